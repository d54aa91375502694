"""Both ways between the tasks here and seqio's; seqio is imported only when it is used."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5x.data.converters import FeatureConverter, PassThroughFeatureConverter
from t5x.data.examples import ExampleMaker
from t5x.data.features import Feature
from t5x.data.order import Place
from t5x.data.tasks import Mixture, Task, get_mixture_or_task
from t5x.data.vocabularies import ByteVocabulary, SentencePieceVocabulary


def to_seqio(name: str | Task | Mixture, seed: int = 0):
    """Register a task or mixture with seqio under the same name, with the same examples.

    The preprocessors run in Python, inside one seqio preprocessor that knows the sequence length;
    `rng` depends on (seed, number of times the example was read, index) as in `get_dataset`.

    Returns:
      The `seqio.Task` or `seqio.Mixture`.

    Raises:
      ImportError: when seqio is not installed (the extra `seqio`).
    """
    import seqio

    source = get_mixture_or_task(name)
    if isinstance(source, Mixture):
        known = seqio.TaskRegistry.names()
        for task in source.tasks:
            if task.name not in known:
                to_seqio(task, seed)
        rates = [(task.name, source.rate(task)) for task in source.tasks]
        return seqio.MixtureRegistry.add(source.name, rates)
    return seqio.TaskRegistry.add(
        source.name,
        source=_index_source(source),
        preprocessors=[_examples_of_indices(source, seed)],
        output_features={n: _seqio_feature(f) for n, f in source.output_features.items()},
        postprocess_fn=_postprocess(source),
        metric_fns=list(source.metric_fns),
    )


def _index_source(task: Task):
    """A seqio source whose examples are indices of the task's source."""
    import seqio
    import tensorflow as tf

    def dataset_fn(split, shuffle_files, seed=None):
        size = task.num_input_examples(split)
        dataset = tf.data.Dataset.range(size)
        if shuffle_files:
            dataset = dataset.shuffle(size, seed=seed)
        return dataset.map(lambda i: {"index": i, "split": task.splits.index(split)})

    sizes = {split: task.num_input_examples(split) for split in task.splits}
    return seqio.FunctionDataSource(dataset_fn, splits=task.splits, num_input_examples=sizes)


def _examples_of_indices(task: Task, seed: int):
    """The seqio preprocessor: dataset of indices -> dataset of the task's examples."""
    import tensorflow as tf

    def make_examples(dataset, sequence_length):
        lengths = dict(sequence_length or {})
        sequences = [task.sequence(split) for split in task.splits]
        maker = ExampleMaker(
            [task] * len(sequences), sequences, lengths, PassThroughFeatureConverter(), seed, False
        )
        times_read: Counter = Counter()

        def generate(split, index):
            epoch = times_read[int(index)]
            times_read[int(index)] += 1
            yield from maker.task_examples(Place(int(split), epoch, int(index)))

        signature = _signature(maker, sequences)

        def expand(element):
            arguments = (element["split"], element["index"])
            return tf.data.Dataset.from_generator(
                generate, args=arguments, output_signature=signature
            )

        return dataset.flat_map(expand)

    return make_examples


def _signature(maker: ExampleMaker, sequences: Sequence) -> dict:
    """Names, dtypes and ranks of the first example that any split gives."""
    import tensorflow as tf

    for component, sequence in enumerate(sequences):
        for index in range(len(sequence)):
            for example in maker.task_examples(Place(component, 0, index)):
                return {name: _tensor_spec(tf, value) for name, value in example.items()}
    raise ValueError("the task has no examples, so its features are unknown")


def _tensor_spec(tf, value):
    array = np.asarray(value)
    dtype = tf.string if array.dtype.kind in "SUO" else array.dtype
    return tf.TensorSpec([None] * array.ndim, dtype)


def _seqio_feature(feature: Feature):
    import seqio
    import tensorflow as tf

    if isinstance(feature.vocabulary, ByteVocabulary):
        vocabulary = seqio.ByteVocabulary(feature.vocabulary.extra_ids)
    elif isinstance(feature.vocabulary, SentencePieceVocabulary):
        ours = feature.vocabulary
        vocabulary = seqio.SentencePieceVocabulary(
            ours.sentencepiece_model_file,
            ours.extra_ids,
            reverse_extra_ids=ours.reverse_extra_ids,
        )
    else:
        size, eos = feature.vocabulary.vocab_size, feature.vocabulary.eos_id
        vocabulary = seqio.PassThroughVocabulary(size, eos)
    return seqio.Feature(
        vocabulary,
        add_eos=feature.add_eos,
        required=feature.required,
        dtype=tf.as_dtype(np.dtype(feature.dtype)),
        rank=feature.rank,
    )


def _postprocess(task: Task):
    """seqio hands over ids where it knows only `PassThroughVocabulary`: decode them here."""
    feature = task.output_features.get("targets")

    def postprocess(value, **kwargs):
        if feature is not None and not isinstance(value, str | bytes):
            value = feature.vocabulary.decode(value)
        return task.postprocess(value, **kwargs)

    return postprocess


class NativeSource:
    """A task or mixture that only seqio knows."""

    def __init__(self, provider):
        self.provider = provider
        self.name: str = provider.name

    def num_examples(self, split: str) -> dict[str, int | None]:
        """Return {task: examples in a split}, None where seqio does not know."""
        tasks = getattr(self.provider, "tasks", [self.provider])
        known = [task for task in tasks if split in task.splits]
        return {task.name: task.num_input_examples(split) for task in known}

    def elements(
        self,
        settings,
        lengths: Mapping[str, Any],
        converter: FeatureConverter,
        trim: bool,
        use_cached: bool,
    ) -> "_NativeElements":
        """Elements for a `BatchIterator`; `settings` as in `pipeline`."""
        options = {
            "sequence_length": dict(lengths),
            "split": settings.split,
            "shuffle": settings.shuffle,
            "seed": settings.seed,
            "num_epochs": settings.num_epochs,
            "use_cached": use_cached,
            "trim_output_features": trim,
        }
        shard = (settings.shard_index, settings.num_shards)
        return _NativeElements(self.provider, options, shard, converter)


class _NativeElements:
    """seqio cannot start in the middle: opening at `start` reads and drops what comes before."""

    def __init__(self, provider, options: dict, shard: tuple[int, int], converter):
        self._provider, self._options, self._shard = provider, options, shard
        self._converter = converter

    def open(self, start: int) -> Iterator[list[dict]]:
        import seqio

        index, count = self._shard
        shard_info = seqio.ShardInfo(index, count) if count > 1 else None
        dataset = self._provider.get_dataset(shard_info=shard_info, **self._options)
        lengths = self._options["sequence_length"]
        for example in dataset.skip(start).as_numpy_iterator():
            yield [self._converter.prepare(example, lengths)]


def find(name: Any) -> NativeSource | None:
    """Return the seqio task or mixture of a name; None if it has none or was not imported."""
    seqio = sys.modules.get("seqio")
    if seqio is None:
        return None
    if isinstance(name, seqio.Task | seqio.Mixture):
        return NativeSource(name)
    if name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names():
        return NativeSource(seqio.get_mixture_or_task(name))
    return None
