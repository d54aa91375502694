"""From raw examples to prepared ones: the part of the pipeline that workers run."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t5x.data import order
from t5x.data.converters import FeatureConverter, PassThroughFeatureConverter
from t5x.data.features import trim_features, validate_features
from t5x.data.preprocessors import PreprocessorChain
from t5x.data.tasks import Task


class ExampleMaker:
    """`Place` -> list of prepared examples; runs in the worker processes."""

    def __init__(
        self,
        tasks: Sequence[Task],
        sequences: Sequence[Sequence[dict]],
        lengths: Mapping[str, Any],
        converter: FeatureConverter,
        seed: int,
        trim: bool,
    ):
        # Not the tasks themselves: what they hold otherwise need not be picklable.
        self._names = [task.name for task in tasks]
        self._features = [task.output_features for task in tasks]
        self._sequences = list(sequences)
        self._lengths = lengths
        self._converter = converter
        self._trim = trim
        self._chains = [
            PreprocessorChain(task.preprocessors, task.output_features, lengths, seed)
            for task in tasks
        ]

    def task_examples(self, place: order.Place) -> list[dict]:
        """Preprocessed, checked and trimmed examples, before the feature converter."""
        name, features = self._names[place.component], self._features[place.component]
        try:
            raw = self._sequences[place.component][place.index]
            examples = self._chains[place.component](raw, place.epoch, place.index)
            examples = [validate_features(e, features, name) for e in examples]
        except Exception as e:
            e.add_note(f"while making example {place.index} of task {name!r}")
            raise
        if not self._trim:
            return examples
        return [trim_features(e, self._lengths, features) for e in examples]

    def __call__(self, place: order.Place) -> list[dict]:
        examples = self.task_examples(place)
        try:
            return [self._converter.prepare(e, self._lengths) for e in examples]
        except ValueError as e:
            name = self._names[place.component]
            e.add_note(f"while converting example {place.index} of task {name!r}")
            raise


def task_examples(
    task: Task,
    split: str,
    task_feature_lengths: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    shuffle: bool = False,
    trim_output_features: bool = True,
    num_examples: int | None = None,
) -> Iterator[dict]:
    """One pass over the preprocessed examples of a task, without converting or batching."""
    sequence = task.sequence(split)
    lengths = dict(task_feature_lengths or {})
    converter = PassThroughFeatureConverter()
    maker = ExampleMaker([task], [sequence], lengths, converter, seed, trim_output_features)
    places = order.TaskOrder(len(sequence), shuffle, seed)
    groups = (maker.task_examples(places.place(i)) for i in range(len(sequence)))
    return itertools.islice(itertools.chain.from_iterable(groups), num_examples)
