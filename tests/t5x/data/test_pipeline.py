"""`get_dataset`: order, state, workers, buckets, packing, shards and mixtures."""

import collections
import gc
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x.data import (
    ContinuousFeature,
    ContinuousInputsEncDecFeatureConverter,
    EncDecFeatureConverter,
    Feature,
    FunctionSource,
    LMFeatureConverter,
    Mixture,
    PassThroughVocabulary,
    Task,
    TaskRegistry,
    get_dataset,
    pipeline,
)

TOKENS = Feature(PassThroughVocabulary(1000))
LENGTHS = {"inputs": 12, "targets": 20}


def _raw(n=40, first=1):
    """Example i has the id first + i as its first target, and a length that varies."""
    return [
        {
            "inputs": np.full(1 + i % 7, first + i, np.int32),
            "targets": np.full(1 + (i * 5) % 17, first + i, np.int32),
        }
        for i in range(n)
    ]


def _add_noise(example, rng):
    """Zero to two examples of each, with a random token, so that resuming needs the same rng."""
    for _ in range(int(rng.integers(0, 3))):
        yield {**example, "inputs": np.append(example["inputs"], rng.integers(1, 900))}


def _task(name="numbers", n=40, first=1, preprocessors=()):
    features = {"inputs": TOKENS, "targets": TOKENS}
    source = FunctionSource({"train": _raw(n, first), "test": lambda: _raw(5, 900)})
    return Task(name, source, preprocessors, features)


def _dataset(task=None, batch_size=4, **options):
    options = {"seed": 7, "feature_converter": EncDecFeatureConverter, "prefetch": 0} | options
    return get_dataset(task or _task(), LENGTHS, "train", batch_size, **options)


def _assert_same(got, expected):
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def _ids(batches):
    """First target of every example, over all the segments of all the rows."""
    found = []
    for batch in batches:
        segments = batch.get("decoder_segment_ids", batch["decoder_loss_weights"])
        for row, row_segments in zip(batch["decoder_target_tokens"], segments):
            found += [int(row[row_segments == s][0]) for s in range(1, row_segments.max() + 1)]
    return found


OPTIONS = {
    "plain": {},
    "prefetch": {"prefetch": 3},
    "read_threads": {"num_read_threads": 2},
    "unshuffled": {"shuffle": False},
    "buckets": {"length_buckets": (5, 9), "bucket_window": 3},
    "both_buckets": {
        "length_buckets": {"targets": (8,), "inputs": (4, 8)},
        "bucket_window": 3,
        "prefetch": 2,
    },
    "packed": {"pack": True},
    "packed_prefetch": {"pack": True, "prefetch": 2},
    "one_epoch": {"num_epochs": 1, "drop_remainder": False},
    "epochs_of_buckets": {"num_epochs": 2, "length_buckets": (9,), "bucket_window": 4},
    "shard": {"shard_index": 1, "num_shards": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resumes_bit_exactly_from_every_step(options):
    task = _task(preprocessors=[_add_noise])
    whole = _dataset(task, **options)
    batches, states = [], [whole.get_state()]
    for batch in whole:
        batches.append(batch)
        states.append(json.loads(json.dumps(whole.get_state())))
        if len(batches) == 9:
            break
    assert len(batches) == 9
    other = _dataset(task, **options)
    for step in (5, 0, 8, 3):  # the same iterator goes back and forth
        other.set_state(states[step])
        for expected in batches[step:]:
            _assert_same(next(other), expected)
    other.close()
    whole.close()


def test_workers_change_nothing_and_resume_anywhere():
    task = _task(preprocessors=[_add_noise])
    options = {"length_buckets": (5, 9), "bucket_window": 2, "prefetch": 1}
    task.source.lock = threading.Lock()  # a source need not be picklable
    alone, together = _dataset(task, **options), _dataset(task, num_workers=2, **options)
    for _ in range(2):
        next(alone)
    together.set_state(alone.get_state())
    for _ in range(4):
        _assert_same(next(together), next(alone))
    assert together.get_state() == alone.get_state()
    resumed = _dataset(task, **options)
    resumed.set_state(together.get_state())
    together.close()
    for _ in range(3):
        _assert_same(next(resumed), next(alone))
    resumed.close()


def test_threads_change_nothing():
    task = _task(preprocessors=[_add_noise])
    alone, together = _dataset(task), _dataset(task, num_read_threads=2)
    for _ in range(12):
        _assert_same(next(together), next(alone))
    together.close()


def test_a_preprocessor_that_says_stop_does_not_end_the_data_in_silence():
    def stop(example):
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        next(_dataset(_task(preprocessors=[stop])))


def test_a_preprocessor_error_in_a_worker_names_the_example():
    def fail(example):
        if example["targets"][0] == 6:
            raise RuntimeError("no such audio")
        return example

    for options in ({"num_workers": 1, "prefetch": 1}, {}):
        iterator = _dataset(_task(preprocessors=[fail]), shuffle=False, **options)
        next(iterator)
        with pytest.raises(RuntimeError, match="no such audio") as error:
            next(iterator)
        iterator.close()
    assert "example 5 of task 'numbers'" in error.value.__notes__[0]


def test_one_epoch_has_every_example_once_in_a_new_order_each_seed():
    orders = [_ids(_dataset(num_epochs=1, seed=seed)) for seed in (1, 2)]
    for order in orders:
        assert sorted(order) == list(range(1, 41))
    assert orders[0] != orders[1]
    assert _ids(_dataset(num_epochs=1, shuffle=False)) == list(range(1, 41))


def test_epochs_differ_and_are_each_complete():
    iterator = _dataset()
    first, second = (_ids([next(iterator) for _ in range(10)]) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(1, 41))
    assert first != second


def test_remainder():
    sizes = [len(b["decoder_target_tokens"]) for b in _dataset(_task(n=10), num_epochs=1)]
    assert sizes == [4, 4]
    rest = _dataset(_task(n=10), num_epochs=1, drop_remainder=False)
    assert [len(b["decoder_target_tokens"]) for b in rest] == [4, 4, 2]
    packed = _dataset(_task(n=10), num_epochs=1, drop_remainder=False, pack=True)
    assert sorted(_ids(packed)) == list(range(1, 11))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 6),
    st.lists(st.integers(1, 25), min_size=1, max_size=3),
    st.booleans(),
)
def test_buckets_lose_nothing(n, batch_size, window, buckets, shuffle):
    batches = list(
        _dataset(
            _task(n=n),
            batch_size,
            shuffle=shuffle,
            num_epochs=1,
            drop_remainder=False,
            length_buckets=buckets,
            bucket_window=window,
        )
    )
    assert sorted(_ids(batches)) == list(range(1, n + 1))
    allowed = {b for b in buckets if b < 20} | {20}
    for batch in batches:
        width = batch["decoder_target_tokens"].shape[1]
        longest = int(batch["decoder_loss_weights"].sum(axis=1).max())
        assert width == min(b for b in allowed if b >= longest)
        assert batch["decoder_input_tokens"].shape[1] == width


def test_each_window_holds_the_examples_of_the_plain_stream():
    plain = _dataset(seed=3)
    sorted_windows = _dataset(seed=3, length_buckets=(4, 8, 12), bucket_window=5)
    for _ in range(4):
        window = _ids([next(sorted_windows) for _ in range(5)])
        assert collections.Counter(window) == collections.Counter(
            _ids([next(plain) for _ in range(5)])
        )


def test_buckets_save_padding():
    def padding(**options):
        batches = list(_dataset(num_epochs=1, **options))
        cells = sum(b["decoder_loss_weights"].size for b in batches)
        return 1 - sum(b["decoder_loss_weights"].sum() for b in batches) / cells

    assert padding(length_buckets=(4, 8, 12, 16), bucket_window=10) < 0.3 < 0.5 < padding()


@pytest.mark.parametrize("num_shards", [2, 3])
def test_shards_partition_every_epoch(num_shards):
    n, epochs = 24, 2
    for epoch in range(epochs):
        found = []
        for shard in range(num_shards):
            options = {"shard_index": shard, "num_shards": num_shards}
            iterator = _dataset(_task(n=n), num_shards, **options)
            batches = [next(iterator) for _ in range(epochs * n // num_shards)]
            per_epoch = n // num_shards
            found += _ids(batches[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert sorted(found) == list(range(1, n + 1))


def test_uneven_shards_lose_nothing():
    found = []
    for shard in range(3):
        found += _ids(
            _dataset(
                _task(n=11), 3, shard_index=shard, num_shards=3, num_epochs=1, drop_remainder=False
            )
        )
    assert sorted(found) == list(range(1, 12))


def _mixture(rates):
    tasks = [_task(f"part{i}", 10, 1 + 100 * i) for i in range(len(rates))]
    for task in tasks:
        TaskRegistry.remove(task.name)
        TaskRegistry.add(task)
    try:
        return Mixture("mixed", [(task.name, rate) for task, rate in zip(tasks, rates)])
    finally:
        for task in tasks:
            TaskRegistry.remove(task.name)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.05, 5), min_size=1, max_size=4))
def test_mixture_rates(rates):
    mixture = _mixture(rates)
    iterator = _dataset(mixture, 10)
    total = 600
    ids = _ids([next(iterator) for _ in range(total // 10)])
    counts = np.bincount([i // 100 for i in ids], minlength=len(rates))
    block = max(64, 4 * sum(rates) / min(rates))
    np.testing.assert_allclose(
        counts, total * np.asarray(rates) / sum(rates), atol=min(block, 60) + 1
    )
    for part in range(len(rates)):  # each part goes through its own epochs
        mine = [i for i in ids if i // 100 == part][: len(ids) // 10 * 10]
        for start in range(0, len(mine) - 9, 10):
            assert sorted(mine[start : start + 10]) == list(range(1 + 100 * part, 11 + 100 * part))


def test_a_finite_mixture_visits_everything_once():
    ids = _ids(_dataset(_mixture([1, 3]), num_epochs=1))
    assert sorted(ids) == [*range(1, 11), *range(101, 111)]
    assert {i // 100 for i in ids[:10]} == {0, 1}
    mixture = _mixture([1, 3])
    assert _ids(_dataset(mixture, num_epochs=1, shuffle=False)) == sorted(ids)


def test_mixture_resumes():
    mixture = _mixture([1, 2, 0.5])
    whole = _dataset(mixture)
    batches = [next(whole) for _ in range(6)]
    state = whole.get_state()
    later = [next(whole) for _ in range(60)]
    other = _dataset(mixture)
    other.set_state(state)
    for expected in later:
        _assert_same(next(other), expected)
    assert not np.array_equal(
        batches[0]["decoder_target_tokens"], later[0]["decoder_target_tokens"]
    )


def test_without_a_seed_the_state_carries_it():
    first = _dataset(seed=None, prefetch=2)
    next(first)
    state = first.get_state()
    second = _dataset(seed=None)
    second.set_state(state)
    for _ in range(12):
        _assert_same(next(second), next(first))
    first.close()


def test_state_of_another_stream_is_refused():
    state = _dataset(seed=7).get_state()
    with pytest.raises(ValueError, match="seed: saved 7, now 8"):
        _dataset(seed=8).set_state(state)
    with pytest.raises(ValueError, match=r"examples: saved .'numbers': 40., now .'numbers': 41"):
        _dataset(_task(n=41)).set_state(state)
    del state["settings"]["examples"]  # as earlier versions saved it
    _dataset(_task(n=41)).set_state(state)
    with pytest.raises(ValueError, match="version"):
        _dataset().set_state({})
    inside = _dataset(length_buckets=(5,), bucket_window=4)
    for _ in range(3):
        next(inside)
    with pytest.raises(ValueError, match="bucket_window"):
        _dataset().set_state(inside.get_state())


def test_peek_and_element_spec_do_not_advance():
    iterator = _dataset(length_buckets=(5,), prefetch=2)
    state = iterator.get_state()
    assert iterator.element_spec["decoder_target_tokens"] == ((4, 20), np.dtype(np.int32))
    assert iterator.element_spec["encoder_input_tokens"] == ((4, 12), np.dtype(np.int32))
    assert iterator.get_state() == state
    peeked = iterator.peek()
    _assert_same(next(iterator), peeked)
    assert iterator.get_state() != state
    iterator.close()


def test_a_dropped_iterator_ends_its_thread():
    before = set(threading.enumerate())
    iterator = _dataset(prefetch=2)
    next(iterator)
    (thread,) = set(threading.enumerate()) - before
    del iterator
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_continuous_inputs_are_trimmed_and_padded():
    frames = [np.full((t, 3), t, np.float32) for t in (2, 5, 9)]
    task = Task(
        "frames",
        {"train": [{"inputs": f, "targets": np.array([4, 1])} for f in frames]},
        output_features={"inputs": ContinuousFeature(), "targets": TOKENS},
    )
    options = {
        "shuffle": False,
        "num_epochs": 1,
        "feature_converter": ContinuousInputsEncDecFeatureConverter(),
    }
    (batch,) = get_dataset(task, {"inputs": 6, "targets": 3}, "train", 3, **options)
    assert batch["encoder_input_tokens"].shape == (3, 6, 3)
    assert batch["encoder_input_tokens"].dtype == np.float32
    assert batch["encoder_input_tokens"][:, :, 0].sum(axis=1).tolist() == [4, 25, 54]
    with pytest.raises(ValueError, match="more than the task feature length"):
        next(
            get_dataset(
                task, {"inputs": 6, "targets": 3}, "train", 3, trim_output_features=False, **options
            )
        )


def test_sequence_length_reaches_the_preprocessors():
    def cut(example, sequence_length, output_features):
        assert set(output_features) == {"inputs", "targets"}
        return {**example, "targets": example["targets"][: sequence_length["targets"] // 4]}

    batch = next(_dataset(_task(preprocessors=[cut]), shuffle=False, batch_size=40))
    assert batch["decoder_loss_weights"].sum(axis=1).max() == 5


@pytest.mark.parametrize("prefetch", [0, 2])
def test_preprocessors_that_drop_everything_are_an_error(monkeypatch, prefetch):
    monkeypatch.setattr(pipeline, "_PATIENCE", 100)
    dropping = _task(preprocessors=[lambda example: None])
    with pytest.raises(ValueError, match="dropped each of 101 examples"):
        next(_dataset(dropping, prefetch=prefetch))
    few = _task(preprocessors=[lambda example: example if example["targets"][0] == 3 else None])
    assert next(_dataset(few))["decoder_target_tokens"][:, 0].tolist() == [3] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3, "num_shards": 2}, "multiple of num_shards"),
        ({"shard_index": 2, "num_shards": 2}, "shard_index 2"),
        ({"num_shards": 2, "seed": None}, "needs a seed"),
        ({"seed": -1}, "negative"),
        ({"pack": True, "length_buckets": (4,)}, "exclude each other"),
        ({"num_shards": 2, "length_buckets": (4,)}, "num_shards=1"),
        ({"length_buckets": {"nothing": (4,)}}, "'nothing' has no integer length"),
        ({"length_buckets": (0,)}, "positive"),
        ({"length_buckets": (4,), "bucket_window": 0}, "bucket_window"),
        ({"task": "no_such_task_at_all"}, "unknown task or mixture"),
        ({"task": _task(n=0)}, "'numbers', split 'train': no examples"),
        ({"task": _task(n=1), "num_shards": 2, "shard_index": 1}, "leave none for shard 1"),
        ({"feature_converter": EncDecFeatureConverter(pack=False), "pack": True}, "pack=False"),
        ({"feature_converter": LMFeatureConverter}, "extra features"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _dataset(**options)


def test_unknown_split_names_those_there_are():
    with pytest.raises(ValueError, match=r"'dev'.*\['test', 'train'\]"):
        get_dataset(_task(), LENGTHS, "dev", 4, feature_converter=EncDecFeatureConverter)
