"""Sources and the record format."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from t5x.data import ArrayRecordSource, FileSource, FunctionSource, GeneratedSource
from t5x.data.records import (
    deserialize_example,
    read_array_record,
    serialize_example,
    write_array_record,
    write_shards,
)

arrays = hnp.arrays(
    st.sampled_from(["<f4", "<f8", "<i4", "<i8", "u1", "?", "<f2", ">i4", "<c8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
values = arrays | st.text(max_size=8) | st.binary(max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_examples_survive_serialization(example):
    back = deserialize_example(serialize_example(example))
    assert list(back) == list(example)
    for name, value in example.items():
        if isinstance(value, str | bytes):
            assert back[name] == value
            continue
        assert back[name].shape == value.shape
        assert back[name].dtype == value.dtype.newbyteorder("<")
        np.testing.assert_array_equal(back[name], value)


def test_numbers_become_arrays_and_objects_are_refused():
    assert deserialize_example(serialize_example({"n": 3, "x": [1.5]}))["n"] == 3
    with pytest.raises(ValueError, match="feature 'bad': cannot store dtype object"):
        serialize_example({"bad": {"a": 1}})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_rubbish_is_refused_clearly(data):
    try:
        example = deserialize_example(data)
    except ValueError as e:
        message = str(e)
    else:
        assert isinstance(example, dict)
        return
    assert "not an example" in message


def test_function_source_calls_once():
    calls = []

    def make():
        calls.append(1)
        return [{"x": 1}, {"x": 2}]

    source = FunctionSource({"train": make, "test": [{"x": 3}], "bad": lambda: 3})
    assert source.splits == ("train", "test", "bad")
    assert len(source.sequence("train")) == 2
    assert source.sequence("train")[1] == {"x": 2}
    assert calls == [1]
    with pytest.raises(ValueError, match="has no split 'dev'"):
        source.sequence("dev")
    with pytest.raises(ValueError, match="expected a sequence"):
        source.sequence("bad")


def test_generated_source():
    source = GeneratedSource(lambda split, i: {"x": f"{split}{i}"}, {"train": 3})
    sequence = source.sequence("train")
    assert len(sequence) == 3
    assert sequence[2] == {"x": "train2"}


def test_array_records_are_read_at_random(tmp_path):
    examples = [{"x": np.full((i, 2), i, np.float32), "id": f"e{i}"} for i in range(7)]
    paths = write_shards(tmp_path / "data" / "train", examples, 3)
    assert [p.name for p in paths] == [f"train-0000{i}-of-00003" for i in range(3)]
    assert write_array_record(tmp_path / "one", iter(examples[:2])) == 2
    assert [e["id"] for e in read_array_record(tmp_path / "one")] == ["e0", "e1"]
    source = ArrayRecordSource({"train": tmp_path / "data" / "train-*", "one": [tmp_path / "one"]})
    sequence = source.sequence("train")
    assert len(sequence) == 7
    found = [sequence[i] for i in (6, 0, 3, 1, 2, 4, 5)]
    assert {e["id"] for e in found} == {e["id"] for e in examples}
    for example in found:
        i = int(example["id"][1:])
        np.testing.assert_array_equal(example["x"], examples[i]["x"])
    copy = pickle.loads(pickle.dumps(sequence))  # as sent to a worker
    assert copy[2]["id"] == sequence[2]["id"]
    assert len(source.sequence("one")) == 2
    with pytest.raises(FileNotFoundError, match=r"no file matches .*nothing-"):
        ArrayRecordSource({"train": tmp_path / "nothing-*"}).sequence("train")


def test_a_failed_write_leaves_no_file(tmp_path):
    def examples():
        yield {"x": 1}
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        write_array_record(tmp_path / "data", examples())
    assert list(tmp_path.iterdir()) == []


def test_file_source(tmp_path):
    for name in ("b.wav", "a.wav", "sub/c.wav", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    everything = FileSource({"train": tmp_path}).sequence("train")
    assert len(everything) == 4
    waves = FileSource({"train": [tmp_path / "**" / "*.wav"]}, lambda p: {"text": p.read_text()})
    sequence = waves.sequence("train")
    assert [sequence[i]["text"] for i in range(len(sequence))] == ["a.wav", "b.wav", "sub/c.wav"]
