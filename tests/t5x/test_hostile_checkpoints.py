"""Checkpoints from strangers: nothing outside their folder, no more memory than they are large."""

import gzip
import io
import json
import os
import tracemalloc
import zipfile
import zlib

import flax.serialization
import numpy as np
import pytest
import tensorstore

from t5x.checkpoints import CheckpointError, load_params, load_safetensors, load_state
from t5x.checkpoints.huggingface import load_hugging_face
from t5x.checkpoints.npz import load_npz
from t5x.checkpoints.sizes import Budget
from t5x.checkpoints.zarr import _zstd_bound, read_zarr

MOST_BYTES = 2**27


def header(**changes):
    plain = {"zarr_format": 2, "shape": [4], "chunks": [4], "dtype": "<f4", "order": "C"}
    return plain | {"fill_value": None, "filters": None, "compressor": None} | changes


def write_array(folder, data: bytes | None = bytes(16), name="0", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zarray").write_text(json.dumps(header(**changes)))
    if data is not None:
        (folder / name).write_bytes(data)


def spec(path="target.w", **changes):
    kvstore = {"driver": "file", "path": path}
    return {"driver": "zarr", "kvstore": kvstore, "metadata": {}, **changes}


def write_index(folder, target, version=3, **content):
    content = {"version": version, "optimizer": {"target": target, "state": {}}, **content}
    folder.mkdir(exist_ok=True)
    (folder / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(content))


@pytest.fixture
def folder(tmp_path):
    write_index(tmp_path / "checkpoint_7", {"w": spec()})
    return tmp_path / "checkpoint_7"


@pytest.fixture
def little_memory():
    """Fails if more than `MOST_BYTES` are taken at once."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_BYTES, f"{peak / 2**20:.0f} MiB"


@pytest.mark.parametrize("path", ["../secret", "/../secret", "x/../../secret", "..", "target.w"])
def test_no_array_is_read_outside_the_folder(folder, tmp_path, path):
    write_array(tmp_path / "secret")
    write_array(tmp_path, name="0")
    (folder / "target.w").symlink_to(tmp_path / "secret")
    write_index(folder, {"w": spec(path)})
    with pytest.raises(CheckpointError, match=r"w: .* outside the|target.w.*outside|is missing"):
        load_params(folder)


def test_no_part_of_an_array_is_a_link_out(folder, tmp_path):
    write_array(folder / "target.w", data=None)
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "target.w" / "0").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"target.w/0: this part of array target/w.*outside"):
        load_params(folder)
    (folder / "target.w" / "0").unlink()
    (folder / "target.w" / "real").write_bytes(bytes(16))
    (folder / "target.w" / "0").symlink_to("real")
    assert load_params(folder)["w"].shape == (4,)


HEADERS = {
    "too large": {"shape": [2_100_000_000], "chunks": [2_100_000_000], "fill_value": 0},
    "many chunks": {"shape": [1_000_000_000], "chunks": [1], "fill_value": 0},
    "many chunks of bytes": {"shape": [60_000_000], "chunks": [1], "dtype": "|u1"},
    "large chunks": {"shape": [4], "chunks": [4_000_000_000], "fill_value": 0},
    "overflow": {"shape": [2**40, 2**40], "chunks": [1, 1], "fill_value": 0},
    "negative": {"shape": [-1]},
    "no chunks": {"chunks": [0]},
    "text": {"shape": "4"},
    "fraction": {"shape": [1.5]},
    "true": {"shape": [True]},
    "ranks": {"chunks": [4, 4]},
    "rank": {"shape": [1] * 99, "chunks": [1] * 99},
    "objects": {"dtype": "|O"},
    "structure": {"dtype": [["a", "<f4"]]},
    "long text": {"dtype": "<U1000000000"},
    "no type": {"dtype": None},
    "fill": {"fill_value": {}},
    "fill list": {"fill_value": [[1]]},
    "compressor": {"compressor": 3},
    "codec": {"compressor": {"id": ["gzip"]}},
    "separator": {"dimension_separator": ""},
    "filters": {"filters": [{"id": "x"}]},
    "order": {"order": 7},
}


def test_a_part_is_not_unpacked_to_more_than_the_checkpoint_may_hold(folder):
    write_array(folder / "target.w", chunks=[4_000_000_000])
    with pytest.raises(
        CheckpointError, match=r"array target/w: chunks: \(4000000000,\) of float32"
    ):
        load_params(folder)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS)
def test_headers_are_checked_before_anything_is_allocated(folder, changes):
    write_array(folder / "target.w", **changes)
    with pytest.raises(CheckpointError, match=r"target\.w.*target/w|target/w.*target\.w"):
        load_params(folder)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("text", ["[]", "3", "{", '{"shape": [4]}', "[" * 100_000, "\xff", ""])
def test_headers_that_are_none(folder, text):
    write_array(folder / "target.w")
    (folder / "target.w" / ".zarray").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"zarray: .*array target/w"):
        load_params(folder)


@pytest.mark.usefixtures("little_memory")
def test_parts_unpack_to_their_size_and_no_further(folder):
    bomb = zlib.compressobj(1, wbits=31)
    data = b"".join(bomb.compress(bytes(2**24)) for _ in range(10)) + bomb.flush()
    write_array(folder / "target.w", data, compressor={"id": "gzip"})
    with pytest.raises(CheckpointError, match=r"this part of array target/w.* bytes, expected"):
        load_params(folder)
    write_array(folder / "target.w", data[:3000], compressor={"id": "gzip"})
    with pytest.raises(CheckpointError, match=r"more than 16 bytes, expected 16"):
        load_params(folder)
    write_array(folder / "target.w", None)
    with (folder / "target.w" / "0").open("wb") as file:
        file.truncate(2**40)  # a hole, no bytes
    with pytest.raises(CheckpointError, match=r"1099511627776 bytes, expected at most"):
        load_params(folder)
    (folder / "target.w" / "0").unlink()
    os.mkfifo(folder / "target.w" / "0")
    with pytest.raises(CheckpointError, match="is missing"):
        load_params(folder)


def test_gzip_of_several_members_is_read(tmp_path):
    values = np.arange(4, dtype="<f4")
    parts = [gzip.compress(values[:2].tobytes()), gzip.compress(values[2:].tobytes())]
    write_array(tmp_path, b"".join(parts), compressor={"id": "gzip"})
    np.testing.assert_array_equal(read_zarr(tmp_path, "w"), values)
    write_array(tmp_path, b"".join(parts)[:-9], compressor={"id": "gzip"})
    with pytest.raises(CheckpointError, match="ends too early"):
        read_zarr(tmp_path, "w")


def test_zstd_is_bounded_by_its_blocks(folder):
    # A frame of one window whose 30,000 blocks repeat a byte 131,071 times: 3.9 GB from 120 kB.
    block = (131_071 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + block * 30_000
    assert _zstd_bound(frame) == 131_071 * 30_000
    write_array(
        folder / "target.w", frame, shape=[40_000], chunks=[40_000], compressor={"id": "zstd"}
    )
    with pytest.raises(CheckpointError, match=r"unpacks to 3932130000 bytes, expected 160000"):
        load_params(folder)


@pytest.mark.parametrize("size", [1, 1000, 300_000])
def test_the_bound_of_zstd_is_one(tmp_path, size):
    array = np.random.default_rng(size).integers(0, 9, size).astype("<f4")
    store = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(tmp_path / "w")}}
    metadata = {"compressor": {"id": "zstd", "level": 3}, "chunks": [size]}
    out = tensorstore.open(
        store | {"metadata": metadata}, create=True, dtype=array.dtype, shape=array.shape
    ).result()
    out.write(array).result()
    assert (
        array.nbytes <= _zstd_bound((tmp_path / "w" / "0").read_bytes()) < array.nbytes * 2 + 2**18
    )
    np.testing.assert_array_equal(read_zarr(tmp_path / "w", "w"), array)


INDEXES = {
    "version": {"version": "x"},
    "version none": {"version": None},
    "optimizer": {"optimizer": 3},
    "target": {"optimizer": {"target": np.zeros(3)}},
    "text leaf": {"optimizer": {"target": {"w": "text"}}},
    "list leaf": {"optimizer": {"target": {"w": [1, [2]]}}},
    "bytes leaf": {"optimizer": {"target": {"w": b"x"}}},
    "kvstore": {"optimizer": {"target": {"w": spec() | {"kvstore": "file:///etc/passwd"}}}},
    "path": {"optimizer": {"target": {"w": spec() | {"kvstore": {"path": 3}}}}},
    "driver": {"optimizer": {"target": {"w": spec() | {"driver": "n5"}}}},
    "zero byte": {"optimizer": {"target": {"w": spec("a\0b")}}},
}


@pytest.mark.parametrize("content", INDEXES.values(), ids=INDEXES)
def test_indexes_that_are_wrong_are_told(folder, content):
    write_index(folder, {}, **content)
    with pytest.raises(CheckpointError, match="checkpoint"):
        load_params(folder)


def test_names_are_text_and_not_deep(folder):
    deep = np.zeros(1)
    for _ in range(400):
        deep = {"a": deep}
    write_index(folder, deep)
    with pytest.raises(CheckpointError, match="at most 100 deep"):
        load_state(folder)
    (folder / "checkpoint").write_bytes(b"\x82\xa6target\x81\x03\x04\xa7version\x00")
    with pytest.raises(CheckpointError, match=r"has the entry 3: expected names"):
        load_state(folder)


# ------------------------------------------------------------------------------------ safetensors


def safetensors(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


F4 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    "header",
    [
        {"w": F4 | {"shape": [2**40]}},
        {"w": F4 | {"data_offsets": [0, 2**40]}},
        {"w": F4 | {"shape": [0, 2**62], "data_offsets": [0, 0]}},
        {"w": F4, "w/b": F4 | {"data_offsets": [4, 8]}},
        {"/".join("a" * 500): F4},
        {"w": F4 | {"dtype": "F8_E4M3", "data_offsets": [0, 1]}},
    ],
)
def test_safetensors_headers(tmp_path, header):
    path = safetensors(tmp_path / "model.safetensors", header, bytes(8 if "w/b" in header else 4))
    with pytest.raises(CheckpointError, match=r"model.safetensors"):
        load_safetensors(path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", ".."])
def test_an_index_of_hugging_face_names_files_beside_it(tmp_path, name):
    config = {"model_type": "t5", "num_layers": 1, "num_heads": 1, "d_model": 4, "d_kv": 4}
    config |= {"d_ff": 4, "vocab_size": 8, "relative_attention_num_buckets": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"shared.weight": name}}))
    with pytest.raises(CheckpointError, match=r"index.json: .* is no name of a file"):
        load_hugging_face(tmp_path)
    for content in ({}, {"weight_map": 3}, {"weight_map": {"a": 1}}, []):
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=r"index.json: "):
            load_hugging_face(tmp_path)


# -------------------------------------------------------------------------------------------- npz


def npy(header, data=b""):
    text = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def write_npz(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", content)
    return path


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    "content",
    [
        npy({"descr": "<f4", "fortran_order": False, "shape": (2**31,)}),
        npy({"descr": "<f4", "fortran_order": False, "shape": (3,)}, bytes(4)),
        npy({"descr": "<f4", "fortran_order": False, "shape": (3,)}, bytes(2**25)),
        npy({"descr": "|O", "fortran_order": False, "shape": (3,)}, b"cos\nsystem\n."),
        npy({"descr": "<f4"}),
        npy("(" * 3000),
        b"no array",
        b"",
    ],
)
def test_npz_files(tmp_path, content):
    with pytest.raises(CheckpointError, match=r"params.npz: w"):
        load_npz(write_npz(tmp_path / "params.npz", content))


def test_npz_files_that_are_none(tmp_path):
    path = tmp_path / "params.npz"
    for data in (b"", b"PK\x03\x04", b"x" * 100):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"params.npz"):
            load_npz(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_npz(tmp_path / "absent.npz")


def test_npz_files_are_read(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b/c": np.int32(3),
        "f": np.asfortranarray(np.eye(2)),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    (tmp_path / "x.npz").write_bytes(buffer.getvalue())
    found = load_npz(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_holes_and_links_are_no_bytes_on_the_disk(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "whole").write_bytes(bytes(100))
    with (folder / "hole").open("wb") as file:
        file.truncate(2**30)
    (tmp_path / "large").write_bytes(bytes(10_000))
    (folder / "link").symlink_to(tmp_path / "large")
    assert Budget(folder).on_disk == 100 + 4096
