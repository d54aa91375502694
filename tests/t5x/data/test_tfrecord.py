"""TFRecord files and tf.train.Example without TensorFlow."""

import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x.data import TFExampleSource
from t5x.data.crc32c import crc32c, masked_crc32c
from t5x.data.tf_example import parse_example, serialize_example
from t5x.data.tfrecord import TFRecordFile, write_tfrecord

# `tf.train.Example` of {"a": [1, -1, 300], "b": [0.5, -2.0], "c": [b"x", b"yz"]}, as TensorFlow
# serialized it; and a file of `tf.io.TFRecordWriter`.
EXAMPLE = bytes.fromhex(
    "0a3b0a160a016112111a0f0a0d01ffffffffffffffffff01ac02"
    "0a110a0162120c120a0a080000003f000000c00a0e0a016312090a070a01780a02797a"
)
FILE = bytes.fromhex("06000000000000007369d5377365636f6e64d3e0d3ca")  # one record, b"second"


def _bitwise(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_known_checksums():
    # RFC 3720 appendix B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1200) | st.integers(8100, 9000) | st.just(16384), st.integers(0, 99))
def test_checksums_equal_the_definition(size, seed):
    data = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    assert crc32c(data.tobytes()) == _bitwise(data.tobytes())


def test_parses_what_tensorflow_writes():
    example = parse_example(EXAMPLE)
    assert example["a"].dtype == np.int64
    assert example["a"].tolist() == [1, -1, 300]
    assert example["b"].dtype == np.float32
    assert example["b"].tolist() == [0.5, -2.0]
    assert example["c"].tolist() == [b"x", b"yz"]


def test_unpacked_lists_parse_too():
    # old writers: `value` fields one by one
    ints = bytes.fromhex("0a0d0a0b0a016112061a0408050807")
    floats = bytes.fromhex("0a0e0a0c0a0162120712050d0000003f")
    assert parse_example(ints)["a"].tolist() == [5, 7]
    assert parse_example(floats)["b"].tolist() == [0.5]


values = (
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)
    | st.lists(st.integers(0, 2**16), min_size=1, max_size=40)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5)
    | st.lists(st.binary(max_size=200), min_size=1, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_examples_survive(example):
    back = parse_example(serialize_example(example))
    assert {name: value.tolist() for name, value in back.items()} == example


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40) | st.builds(lambda n: EXAMPLE[:n], st.integers(0, len(EXAMPLE))))
def test_rubbish_is_refused_clearly(data):
    try:
        example = parse_example(data)
    except ValueError as e:
        message = str(e)
    else:
        assert isinstance(example, dict)
        return
    assert "not a tf.train.Example" in message


def test_a_number_in_place_of_a_message_is_refused():
    name = b"\x08" + b"\xff" * 8 + b"\x7f"  # as many bytes as it says would be exabytes
    feature = b"\x0a\x01a\x12\x02\x18\x05"
    for entry in (name, feature):
        features = b"\x0a" + bytes([len(entry)]) + entry
        with pytest.raises(ValueError, match=r"not a tf\.train\.Example .* expected a message"):
            parse_example(b"\x0a" + bytes([len(features)]) + features)


def test_zeros_at_the_end_of_bytes_stay():
    example = {"one": b"a\0", "many": [b"\0", "ü"], "array": np.array([b"x", b"y\0"], object)}
    back = parse_example(serialize_example(example))
    assert {name: value.tolist() for name, value in back.items()} == {
        "one": [b"a\0"],
        "many": [b"\0", "ü".encode()],
        "array": [b"x", b"y\0"],
    }


def test_unstorable_values_are_named():
    with pytest.raises(ValueError, match="feature 'z': cannot store dtype complex128"):
        serialize_example({"z": 1j})


def test_the_file_is_that_of_tensorflow(tmp_path):
    write_tfrecord(tmp_path / "ours", [b"second"])
    assert (tmp_path / "ours").read_bytes() == FILE


def _file(tmp_path, count=5):
    records = [
        serialize_example({"n": i, "text": f"t{i}", "x": [i, i + 0.5]}) for i in range(count)
    ]
    path = tmp_path / "data.tfrecord"
    assert write_tfrecord(path, iter(records)) == count
    return path, records


def test_random_access(tmp_path):
    path, records = _file(tmp_path)
    file = TFRecordFile(path)
    assert len(file) == 5
    assert [file[i] for i in (3, 0, 4)] == [records[i] for i in (3, 0, 4)]
    copy = pickle.loads(pickle.dumps(file))
    assert copy[2] == records[2]
    (tmp_path / "empty").write_bytes(b"")
    assert len(TFRecordFile(tmp_path / "empty")) == 0


def test_source(tmp_path):
    path, _ = _file(tmp_path)
    write_tfrecord(
        tmp_path / "more.tfrecord", [serialize_example({"n": 9, "text": "u", "x": [0.0]})]
    )
    source = TFExampleSource({"train": tmp_path / "*.tfrecord", "one": path}, {"n": ()})
    sequence = source.sequence("train")
    assert len(sequence) == 6
    assert [int(sequence[i]["n"]) for i in range(6)] == [0, 1, 2, 3, 4, 9]
    assert np.ndim(sequence[3]["n"]) == 0
    assert sequence[3]["text"] == b"t3"
    assert sequence[3]["x"].tolist() == [3.0, 3.5]
    assert pickle.loads(pickle.dumps(sequence))[5]["text"] == b"u"
    with pytest.raises(IndexError):
        sequence[6]
    shaped = TFExampleSource({"train": path}, {"x": (3,)}).sequence("train")
    with pytest.raises(ValueError, match=r"data\.tfrecord: record 1: .*reshape"):
        shaped[1]
    missing = TFExampleSource({"train": path}, {"y": ()}).sequence("train")
    with pytest.raises(
        ValueError, match=r"record 0: no feature 'y'; there are \['n', 'text', 'x'\]"
    ):
        missing[0]


def test_damage_is_found_and_named(tmp_path):
    path, records = _file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match=r"data\.tfrecord: record 4 is damaged: the file ends"):
        len(TFRecordFile(path))
    path.write_bytes(whole + b"\0\0\0")
    with pytest.raises(ValueError, match="record 5 is damaged: the file ends inside its header"):
        len(TFRecordFile(path))
    place = whole.index(records[2]) + 4
    path.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    file = TFRecordFile(path)
    assert file[1] == records[1]
    with pytest.raises(ValueError, match="record 2 is damaged: its checksum"):
        file[2]
    path.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(ValueError, match=r"record 0 is damaged: .*compressed"):
        len(TFRecordFile(path))
    crc = masked_crc32c(struct.pack("<Q", 3))
    path.write_bytes(struct.pack("<QI", 3, crc) + b"abc" + bytes(4))
    with pytest.raises(ValueError, match="record 0 is damaged: its checksum"):
        TFRecordFile(path)[0]


def test_tensorflow_agrees(tmp_path):
    tf = pytest.importorskip("tensorflow")
    features = {
        "a": tf.train.Feature(int64_list=tf.train.Int64List(value=[1, -1, 300])),
        "b": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, -2.0])),
        "c": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x", b"yz"])),
    }
    proto = tf.train.Example(features=tf.train.Features(feature=features))
    theirs = str(tmp_path / "theirs")
    with tf.io.TFRecordWriter(theirs) as writer:
        writer.write(proto.SerializeToString())
        writer.write(b"second" * 100)
    file = TFRecordFile(theirs)
    assert file[1] == b"second" * 100
    ours = parse_example(file[0])
    assert {k: v.tolist() for k, v in ours.items()} == {
        k: v.tolist() for k, v in parse_example(EXAMPLE).items()
    }
    write_tfrecord(tmp_path / "ours", [serialize_example(ours)])
    (record,) = tf.data.TFRecordDataset(str(tmp_path / "ours")).as_numpy_iterator()
    assert tf.train.Example.FromString(record) == proto
