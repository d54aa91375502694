"""Prepared shards that are damaged: named when opened, and made again by the same preparation."""

import functools
import json

import pytest

from t5x.data.prepared import read_info, shard_path, write_dataset
from t5x.data.records import read_array_record
from t5x.data.sources import ArrayRecordSource
from tests.t5x.data.shards import numbers


@pytest.fixture
def prepared(tmp_path):
    write_dataset(numbers, tmp_path, "train", 3)
    return tmp_path


def rows(folder):
    sequence = ArrayRecordSource({"train": folder / "train-*.array_record"}).sequence("train")
    return [int(sequence[i]["x"]) for i in range(len(sequence))]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


WHOLE = [0, 1, 2, 10, 11, 12, 20, 21, 22]
DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 9),
    "record": lambda path: flip(path, _record(path)),
    "index": lambda path: flip(path, 65_544),  # where the last block begins
    "another file": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


def _record(path):
    """The place of a byte of the second record."""
    return path.read_bytes().index(b"\xa1x", 200)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_named_and_made_again(damage, prepared):
    assert rows(prepared) == WHOLE
    path = shard_path(prepared, "train", 1, 3)
    whole = path.read_bytes()
    others = {p: p.stat().st_mtime_ns for p in prepared.glob("*.array_record") if p != path}
    damage(path)
    with pytest.raises(ValueError, match=rf"{path.name}: .*run its preparation again"):
        rows(prepared)
    write_dataset(numbers, prepared, "train", 3)
    assert path.read_bytes() == whole
    assert rows(prepared) == WHOLE
    assert {p: p.stat().st_mtime_ns for p in others} == others


def test_sizes_are_written_and_compared(prepared):
    info = read_info(prepared, "train")
    assert info is not None
    sizes = [path.stat().st_size for path in sorted(prepared.glob("*.array_record"))]
    assert info["shard_bytes"] == sizes
    assert info["bytes"] == sum(sizes)
    assert info["examples"] == 9
    path = shard_path(prepared, "train", 2, 3)
    path.write_bytes(path.read_bytes()[:-1])
    message = rf"{path.name}: has {sizes[2] - 1} bytes, but {sizes[2]} when it was prepared"
    with pytest.raises(ValueError, match=message):
        ArrayRecordSource({"train": prepared / "train-*"}).sequence("train")


@pytest.mark.parametrize("text", ["", "[]", '{"shard_bytes": [1]}', '{"shard_bytes": "x"}'])
def test_without_sizes_shards_are_read_as_before(text, prepared):
    (prepared / "train.json").write_text(text)
    assert rows(prepared) == WHOLE
    assert write_dataset(numbers, prepared, "train", 3)["examples"] == 9


def test_shards_of_an_interrupted_preparation_are_looked_at_too(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        write_dataset(functools.partial(numbers, fail_at=2), tmp_path, "train", 3)
    flip(shard_path(tmp_path, "train", 0, 3), 65_544)
    write_dataset(numbers, tmp_path, "train", 3)
    assert rows(tmp_path) == WHOLE
    assert json.loads((tmp_path / "train.json").read_text())["shards"] == 3


def test_records_are_named_with_their_file(prepared):
    path = shard_path(prepared, "train", 0, 3)
    assert [int(row["x"]) for row in read_array_record(path)] == [0, 1, 2]
    flip(path, _record(path))
    with pytest.raises(ValueError, match=rf"{path.name}: record \d: damaged"):
        list(read_array_record(path))
