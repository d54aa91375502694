"""Our tasks in seqio and seqio's tasks here; skipped where seqio is not installed."""

import itertools
import json

import numpy as np
import pytest

from t5x.data import (
    ByteVocabulary,
    ContinuousFeature,
    Feature,
    Mixture,
    PassThroughVocabulary,
    Task,
    TaskRegistry,
    converters,
    get_dataset,
    to_seqio,
)
from t5x.data.examples import task_examples
from t5x.data.preprocessors import append_eos_after_trim, tokenize
from t5x.data.seqio.bridge import find

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")

LENGTHS = {"inputs": 6, "targets": 8}


def _repeat(example, rng):
    """Up to two examples of each, with a random frame."""
    for i in range(int(rng.integers(0, 3))):
        noise = rng.normal(size=(1, 3)).astype(np.float32)
        yield {**example, "inputs": np.concatenate([example["inputs"], noise]), "part": i}


def _frames_task(name, n=12):
    source = {
        "train": [
            {
                "inputs": np.full((1 + i % 7, 3), i, np.float32),
                "targets": np.arange(2, 3 + i, dtype=np.int32),
                "id": f"song{i}",
            }
            for i in range(n)
        ]
    }
    features = {"inputs": ContinuousFeature(), "targets": Feature(PassThroughVocabulary(99, 1))}
    return Task(name, source, [_repeat, append_eos_after_trim], features)


def test_to_seqio_gives_the_same_examples():
    task = _frames_task("bridge_frames")
    assert to_seqio(task).name == "bridge_frames"
    dataset = seqio.get_mixture_or_task("bridge_frames").get_dataset(
        sequence_length=LENGTHS, split="train", shuffle=False
    )
    theirs = list(dataset.as_numpy_iterator())
    ours = list(task_examples(task, "train", LENGTHS))
    assert len(theirs) == len(ours) > 5
    for got, expected in zip(theirs, ours):
        assert set(got) == set(expected)
        assert got["id"].decode() == expected["id"]
        for name in ("inputs", "targets", "part"):
            np.testing.assert_array_equal(got[name], expected[name])


def test_text_task_with_seqios_own_converter():
    rows = [{"inputs": "ab" * i, "targets": "x" * i} for i in range(1, 5)]
    features = {"inputs": Feature(ByteVocabulary()), "targets": Feature(ByteVocabulary())}
    task = Task("bridge_text", {"train": rows}, [tokenize, append_eos_after_trim], features)
    to_seqio(task)
    dataset = seqio.get_dataset(
        mixture_or_task_name="bridge_text",
        task_feature_lengths=LENGTHS,
        dataset_split="train",
        shuffle=False,
        num_epochs=1,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
    )
    theirs = dataset.batch(2).as_numpy_iterator()
    ours = get_dataset(
        task,
        LENGTHS,
        "train",
        2,
        shuffle=False,
        num_epochs=1,
        feature_converter=converters.EncDecFeatureConverter,
    )
    for got, expected in itertools.zip_longest(ours, theirs):
        assert set(got) == set(expected)
        for name in got:
            np.testing.assert_array_equal(got[name], expected[name])


def test_random_steps_differ_in_every_epoch():
    to_seqio(_frames_task("bridge_epochs"))
    dataset = seqio.get_mixture_or_task("bridge_epochs").get_dataset(
        sequence_length=LENGTHS, split="train", shuffle=False, num_epochs=2
    )
    counts = [example["id"].decode() for example in dataset.as_numpy_iterator()]
    task = _frames_task("x")
    first = [e["id"] for e in task_examples(task, "train", LENGTHS)]
    assert counts[: len(first)] == first
    assert counts[len(first) :] != first


def test_mixtures_and_metrics_cross_over():
    tasks = [_frames_task("bridge_m1"), _frames_task("bridge_m2")]
    for task in tasks:
        TaskRegistry.add(task)
    mixture = Mixture("bridge_mixture", [("bridge_m1", 1), ("bridge_m2", 3)])
    for task in tasks:
        TaskRegistry.remove(task.name)
    theirs = to_seqio(mixture)
    assert [theirs.get_rate(task) for task in theirs.tasks] == [1, 3]


def _native_task(name):
    def examples(split, shuffle_files, seed=None):
        rows = {"inputs": [[3, 4], [5], [6, 7, 8], [9]], "targets": [[4], [5, 6], [7], [8, 9, 10]]}
        return tf.data.Dataset.from_tensor_slices(
            {k: tf.ragged.constant(v, dtype=tf.int32) for k, v in rows.items()}
        ).map(lambda e: {k: v.to_tensor() if hasattr(v, "to_tensor") else v for k, v in e.items()})

    vocabulary = seqio.PassThroughVocabulary(20, 1)
    return seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(examples, splits=["train"]),
        preprocessors=[seqio.preprocessors.append_eos],
        output_features={k: seqio.Feature(vocabulary) for k in ("inputs", "targets")},
    )


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "pack": True}, {"length_buckets": (3,)}])
def test_native_seqio_names_work_and_resume(options):
    name = f"native_{len(options)}_{'pack' in options}"
    if name not in seqio.TaskRegistry.names():
        _native_task(name)
    assert find(name).name == name
    assert find("no_such_name") is None
    options = {"shuffle": False, "feature_converter": converters.EncDecFeatureConverter} | options
    iterator = get_dataset(name, LENGTHS, "train", 2, seed=3, **options)
    batches, states = [], []
    for _ in range(6):
        states.append(json.loads(json.dumps(iterator.get_state())))
        batches.append(next(iterator))
    other = get_dataset(name, LENGTHS, "train", 2, seed=3, **options)
    other.set_state(states[3])
    for expected in batches[3:]:
        got = next(other)
        for key, value in expected.items():
            np.testing.assert_array_equal(got[key], value)
    iterator.close()
    other.close()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "kwargs", "lengths"),
    [
        ("EncDecFeatureConverter", {}, {"inputs": 7, "targets": 9}),
        ("LMFeatureConverter", {"bos_id": 5}, {"targets": 9}),
        ("PrefixLMFeatureConverter", {}, {"inputs": 7, "targets": 9}),
        ("PrefixLMFeatureConverter", {"loss_on_targets_only": False}, {"inputs": 7, "targets": 9}),
        ("DecoderFeatureConverter", {}, {"targets": 9}),
        ("DecoderFeatureConverter", {}, {"inputs": 7, "targets": 9}),
        ("EncoderFeatureConverter", {"mask_id": 4}, {"inputs": 8, "targets": 8}),
    ],
)
def test_converters_equal_seqios(name, kwargs, lengths, seed):
    rng = np.random.default_rng(seed)
    aligned = name == "EncoderFeatureConverter"
    examples = []
    for _ in range(25):
        sizes = {k: int(rng.integers(1, v + 1)) for k, v in lengths.items()}
        if aligned:
            sizes = dict.fromkeys(sizes, max(sizes.values()))
        examples.append({k: rng.integers(1, 9, n).astype(np.int32) for k, n in sizes.items()})
    signature = {k: tf.TensorSpec([None], tf.int32) for k in lengths}
    dataset = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)
    for pack in (False, True):
        theirs = getattr(seqio, name)(pack=pack, **kwargs)(dataset, lengths)
        ours = getattr(converters, name)(pack=pack, **kwargs)(examples, lengths)
        for got, expected in itertools.zip_longest(ours, theirs.as_numpy_iterator()):
            assert set(got) == set(expected)
            for key in got:
                np.testing.assert_array_equal(got[key], expected[key], err_msg=key)
                assert got[key].dtype == expected[key].dtype
