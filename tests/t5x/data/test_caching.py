"""Prepared datasets, and tasks whose preprocessing is cached."""

import argparse
import dataclasses
import functools
import json
import sys

import numpy as np
import pytest

from t5x.data import (
    ArrayRecordSource,
    ByteVocabulary,
    EncDecFeatureConverter,
    Evaluator,
    Feature,
    Mixture,
    Task,
    TaskRegistry,
    caching,
    get_dataset,
    mixing_rate_num_examples,
)
from t5x.data.prepared import marker_path, read_info, shard_path, write_dataset
from t5x.data.preprocessors import CacheDatasetPlaceholder, append_eos_after_trim, tokenize
from t5x.inference.data import make_readers
from t5x.utils import DatasetConfig
from tests.t5x.data.shards import numbers

LENGTHS = {"inputs": 8, "targets": 8}


def _twice(example):
    CALLS.append(1)
    yield example
    yield {**example, "inputs": example["inputs"].upper()}


def _noise(example, rng):
    return {**example, "targets": rng.integers(3, 90, 3).astype(np.int32)}


CALLS: list[int] = []
FEATURES = {name: Feature(ByteVocabulary()) for name in LENGTHS}
ROWS = [{"inputs": f"ex{i}", "targets": "y" * (i % 4)} for i in range(10)]
STEPS = [_twice, tokenize, _noise, append_eos_after_trim]


@pytest.fixture
def task():
    yield TaskRegistry.add("cached_words", {"train": ROWS, "test": ROWS[:3]}, STEPS, FEATURES)
    TaskRegistry.remove("cached_words")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "_added", [tmp_path])
    return tmp_path


def test_writes_shards_counts_and_marker(tmp_path):
    info = write_dataset(numbers, tmp_path / "set", "train", 4)
    names = [f"train-{i:05d}-of-00004.array_record" for i in range(4)]
    found = sorted(p.name for p in (tmp_path / "set").iterdir())
    assert found == ["COMPLETED-train", *names, "train.json"]
    assert info["examples"] == 12
    assert info["shards"] == 4
    assert info["bytes"] == sum((tmp_path / "set" / name).stat().st_size for name in names)
    assert read_info(tmp_path / "set", "train") == info
    assert read_info(tmp_path / "set", "test") is None
    sequence = ArrayRecordSource({"train": tmp_path / "set" / "train-*"}).sequence("train")
    assert sorted(int(sequence[i]["x"]) for i in range(12)) == sorted(
        10 * s + i for s in range(4) for i in range(3)
    )


def test_an_interrupted_write_is_noticed_and_continues(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        write_dataset(functools.partial(numbers, fail_at=2), tmp_path, "train", 4)
    with pytest.raises(ValueError, match=r"split 'train' was not written to its end .* again"):
        read_info(tmp_path, "train")
    with pytest.raises(ValueError, match="2 of 4 shards are missing"):
        ArrayRecordSource({"train": tmp_path / "train-*"}).sequence("train")
    before = shard_path(tmp_path, "train", 0, 4).stat().st_mtime_ns
    assert write_dataset(numbers, tmp_path, "train", 4)["examples"] == 12
    assert shard_path(tmp_path, "train", 0, 4).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"in 4 shards .* not in 5"):
        write_dataset(numbers, tmp_path, "train", 5)


def test_processes_write_the_same(tmp_path):
    write_dataset(numbers, tmp_path / "one", "train", 3)
    write_dataset(numbers, tmp_path / "two", "train", 3, workers=2)
    for i in range(3):
        one, two = (shard_path(tmp_path / name, "train", i, 3) for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_beam_writes_the_same(tmp_path):
    pytest.importorskip("apache_beam")
    write_dataset(numbers, tmp_path / "one", "train", 3)
    info = write_dataset(numbers, tmp_path / "two", "train", 3, runner="DirectRunner")
    assert info["examples"] == 9
    for i in range(3):
        one, two = (shard_path(tmp_path / name, "train", i, 3) for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def _batches(task, **options):
    iterator = get_dataset(task, LENGTHS, "train", 5, num_epochs=1, seed=3, **options)
    found = list(iterator)
    iterator.close()
    return found


def test_a_cached_task_gives_the_same_examples(task, folder):
    plain = _batches(task, shuffle=False, use_cached=True)  # no cache yet
    info = caching.cache_task("cached_words", folder, "train", 4)
    assert info["examples"] == 20
    assert info["preprocessors"] == ["_twice", "tokenize"]
    CALLS.clear()
    cached = _batches(task, shuffle=False, use_cached=True)
    assert not CALLS  # nothing is done again
    words = [sorted(_words(batches)) for batches in (plain, cached)]
    assert words[0] == words[1]
    assert len(words[0]) == 20
    # what is random stays random, and reproducible
    again = _batches(task, shuffle=False, use_cached=True)
    np.testing.assert_array_equal(cached[0]["targets"], again[0]["targets"])
    assert len({row.tobytes() for b in cached for row in b["targets"]}) > 10
    assert len(_batches(task, use_cached=False)) == 4


def _words(batches):
    return [ByteVocabulary().decode(row) for b in batches for row in b["inputs"]]


def test_the_state_knows_the_cache(task, folder):
    options = {"seed": 1, "shuffle": True, "use_cached": True}
    plain = get_dataset(task, LENGTHS, "train", 2, **options)
    next(plain)
    state = json.loads(json.dumps(plain.get_state()))
    plain.close()
    caching.cache_task("cached_words", folder, "train", 2)
    cached = get_dataset(task, LENGTHS, "train", 2, **options)
    with pytest.raises(ValueError, match="cached: saved None, now 'cached_words'"):
        cached.set_state(state)
    next(cached)
    state = json.loads(json.dumps(cached.get_state()))
    expected = next(cached)
    other = get_dataset(task, LENGTHS, "train", 2, **options)
    other.set_state(state)
    np.testing.assert_array_equal(next(other)["targets"], expected["targets"])
    for iterator in (cached, other):
        iterator.close()


def _count(targets, scores):
    return {"examples": len(targets), "score": float(np.sum(scores))}


def _evaluate(**options):
    task = TaskRegistry.get("cached_words")
    task = Task(task.name, task.source, task.preprocessors, task.output_features, [_count])
    converter = EncDecFeatureConverter(pack=False)
    evaluator = Evaluator(task, converter, "test", 4, sequence_length=LENGTHS, **options)
    scored = evaluator.evaluate(score_fn=lambda batch: batch["encoder_input_tokens"].sum(axis=1))
    return scored["cached_words"]


def test_evaluation_and_inference_read_the_cache(task, folder):
    plain = _evaluate()
    caching.cache_task("cached_words", folder, "test", 2)
    CALLS.clear()
    assert _evaluate(use_cached=True) == plain
    assert plain["examples"] == 6
    cfg = DatasetConfig("cached_words", LENGTHS, "test", 4, shuffle=False, use_cached=True)
    (reader,) = make_readers(cfg, 0, 1)
    cached = [(example["_id"], bytes(example["inputs"])) for example, _ in reader.read()]
    assert not CALLS  # nothing is done again
    (reader,) = make_readers(dataclasses.replace(cfg, use_cached=False), 0, 1)
    assert CALLS == []
    plain = [bytes(example["inputs"]) for example, _ in reader.read()]
    assert sorted(text for _, text in cached) == sorted(plain)
    assert [number for number, _ in cached] == list(range(6))


def test_evaluation_of_what_has_to_be_cached(folder):
    steps = [CacheDatasetPlaceholder(required=True), tokenize]
    needed = Task("t", {"test": ROWS}, steps, FEATURES, [_count])
    for use_cached in (False, True):
        with pytest.raises(ValueError, match=r"only read from a cache.*musax prepare task t"):
            Evaluator(needed, EncDecFeatureConverter(pack=False), "test", use_cached=use_cached)


def test_rates_count_cached_examples(task, folder):
    mixture = Mixture("m", [("cached_words", mixing_rate_num_examples)])
    assert mixture.rate(task) == 10
    caching.cache_task("cached_words", folder, "train", 2)
    assert mixture.rate(task) == 20


def test_bad_caches_are_explained(task, folder):
    caching.cache_task("cached_words", folder, "train", 2)
    other = Task("cached_words", {"train": ROWS}, [tokenize], FEATURES)
    with pytest.raises(ValueError, match=r"made by the preprocessors .* cache the task again"):
        caching.cached_task(other, "train")
    marker_path(folder / "cached_words", "train").unlink()
    with pytest.raises(ValueError, match="not written to its end"):
        _batches(task, use_cached=True)
    steps = [_noise, CacheDatasetPlaceholder(), tokenize]
    with pytest.raises(ValueError, match="_noise takes rng or sequence_length"):
        caching.split_steps(Task("t", {}, steps, FEATURES))
    needed = Task("t", {"train": ROWS}, [CacheDatasetPlaceholder(required=True)], FEATURES)
    for use_cached in (False, True):
        with pytest.raises(ValueError, match=r"only read from a cache.*musax prepare task t"):
            _batches(needed, use_cached=use_cached)


def test_a_placeholder_moves_the_border():
    steps = [_twice, CacheDatasetPlaceholder(), tokenize, append_eos_after_trim]
    done, rest = caching.split_steps(Task("t", {}, steps, FEATURES))
    assert done == (_twice,)
    assert rest[1:] == (tokenize, append_eos_after_trim)


def test_folders_come_from_flag_and_environment(tmp_path, monkeypatch):
    from t5x import command_line

    monkeypatch.setattr(caching, "_added", [])
    monkeypatch.setitem(sys.modules, "seqio", None)
    monkeypatch.setenv("T5X_CACHE_DIRS", str(tmp_path / "c"))
    flags = argparse.Namespace(
        tfds_data_dir=None, seqio_additional_cache_dirs=f"{tmp_path / 'a'},{tmp_path / 'b'}"
    )
    command_line.set_seqio_folders(flags)
    assert caching.cache_dirs() == [tmp_path / name for name in "abc"]
