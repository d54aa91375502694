"""Sources and the record format."""

import gzip
import lzma
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from t5x.data import (
    ArrayRecordSource,
    FileSource,
    FunctionSource,
    GeneratedSource,
    TextLineSource,
    TfdsSource,
)
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


def test_a_generator_is_a_source_too():
    def examples():
        yield {"x": 1}
        yield {"x": 2}

    assert len(FunctionSource({"train": examples}).sequence("train")) == 2


def test_missing_shards_are_noticed(tmp_path):
    paths = write_shards(tmp_path / "train", [{"x": i} for i in range(6)], 3)
    source = ArrayRecordSource({"train": tmp_path / "train-*"})
    assert len(source.sequence("train")) == 6
    paths[1].unlink()
    with pytest.raises(
        ValueError, match=r"train: 1 of 3 shards are missing, the first is number 1"
    ):
        source.sequence("train")


LINES = ["To be, or not to be,", "", "that is\tthe question — ünd", "last"]


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_lines(tmp_path, suffix, pack, end):
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(pack(end.join(LINES).encode()))
    (tmp_path / "more.txt").write_bytes(b"one\ntwo\n")
    (tmp_path / "none.txt").write_bytes(b"")
    sequence = TextLineSource({"train": [path, tmp_path / "more.txt", tmp_path / "none.txt"]})
    sequence = sequence.sequence("train")
    found = [sequence[i]["text"] for i in range(len(sequence))]
    assert found == ["one", "two", *LINES]
    copy = pickle.loads(pickle.dumps(sequence))
    assert copy[4] == {"text": LINES[2]}
    with pytest.raises(IndexError, match="line 6 of 6"):
        sequence[6]
    skipped = TextLineSource({"train": path}, key="inputs", skip_header_lines=1).sequence("train")
    assert skipped[1] == {"inputs": LINES[2]}


def test_bad_text_names_file_and_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\xfe\n")
    sequence = TextLineSource({"train": tmp_path / "a.txt"}).sequence("train")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: not UTF-8"):
        sequence[1]
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"text\n" * 100)[:-20])
    with pytest.raises(ValueError, match=r"b\.txt\.xz: cannot be unpacked"):
        len(TextLineSource({"train": tmp_path / "b.txt.xz"}).sequence("train"))


def test_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"n": np.int64, "text": tfds.features.Text()})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(5), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            yield from ((i, {"n": i, "text": f"t{i}"}) for i in range(count))

    Tiny(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = TfdsSource("tiny", data_dir=tmp_path)
    assert set(source.splits) == {"train", "test"}
    sequence = source.sequence("train")
    assert sorted(int(sequence[i]["n"]) for i in range(len(sequence))) == list(range(5))
    half = TfdsSource("tiny", {"train": "train[:2]"}, tmp_path).sequence("train")
    assert len(half) == 2
    with pytest.raises(ValueError, match="has no split 'dev'"):
        source.sequence("dev")
