import asyncio
import errno
import gzip
import json
import shlex
import shutil
import subprocess
import sys
import threading
import weakref

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from t5x import checkpoints
from t5x.checkpoints import CheckpointError
from t5x.checkpoints.legacy import read_zarr
from tests.vectors import golden_dir

FOLDER = golden_dir("t5x")
LEGACY = sorted(p.with_suffix("") for p in FOLDER.glob("checkpoint_*.npz"))


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


# ---------------------------------------------------------------------- legacy


@pytest.mark.parametrize("folder", LEGACY, ids=lambda p: p.name)
def test_legacy_checkpoint_bit_for_bit(folder):
    found = flat(checkpoints.load_state(folder))
    with np.load(folder.with_suffix(".npz")) as expected:
        assert found.keys() == set(expected.files)
        for name, array in found.items():
            assert array.dtype == expected[name].dtype, name
            assert array.shape == expected[name].shape, name
            assert array.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("folder", LEGACY, ids=lambda p: p.name)
def test_legacy_parameters_alone(folder):
    params = flat(checkpoints.load_params(folder))
    state = flat(checkpoints.load_state(folder)["target"])
    assert params.keys() == state.keys()
    assert checkpoints.checkpoint_kind(checkpoints.latest_checkpoint(folder)) == "legacy"


def spec(where, **changes):
    kvstore = {"driver": "gcs", "bucket": "t5x-dummy-bucket", "path": where}
    return {"driver": "zarr", "dtype": "float32", "kvstore": kvstore, "metadata": {}, **changes}


def write_legacy(folder, arrays, version=3, **zarr):
    """A legacy checkpoint with every array in its own folder."""
    target = {}
    for name, (array, leaf) in arrays.items():
        target[name] = leaf
        path = folder / f"target.{name}"
        store = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path)}}
        metadata = {"compressor": {"id": "gzip", "level": 1}, **zarr}
        store["metadata"] = metadata
        out = tensorstore.open(store, create=True, dtype=array.dtype, shape=array.shape).result()
        out.write(array).result()
    content = {"version": version, "optimizer": {"target": target, "state": {"step": np.int32(7)}}}
    (folder / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(content))


@pytest.mark.parametrize("codec", ["gzip", "zstd", "zlib", None])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float64, np.int32])
def test_compressors_chunks_and_dtypes(tmp_path, codec, dtype):
    array = np.arange(7 * 10).reshape(7, 10).astype(dtype)
    compressor = {"id": codec, "level": 1} if codec else None
    leaf = spec("gs://old-bucket/run/checkpoint_7/target.w/")
    write_legacy(tmp_path, {"w": (array, leaf)}, chunks=[3, 4], compressor=compressor)
    found = checkpoints.load_params(tmp_path)["w"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found.astype(np.float64), array.astype(np.float64))


def test_old_position_of_the_path_inline_leaves_and_scalars(tmp_path):
    kvstore = {"driver": "gfile"}
    old = spec("", kvstore=kvstore, path="target.scalar", transform={"stale": 1})
    write_legacy(
        tmp_path,
        {"scalar": (np.float32(3), old), "inline": (np.zeros(1), np.arange(3.0))},
        version=2,
    )
    found = checkpoints.load_params(tmp_path)
    assert found["scalar"].shape == ()
    assert found["scalar"] == 3
    np.testing.assert_array_equal(found["inline"], np.arange(3.0))


def test_reading_gzip_needs_no_tensorstore_and_never_tensorflow(tmp_path):
    write_legacy(tmp_path, {"w": (np.ones((2, 2), np.float32), spec("target.w/"))})
    code = (
        "import sys; from t5x.checkpoints import load_params; "
        f"assert load_params({str(tmp_path)!r})['w'].sum() == 4; "
        "assert not {'tensorflow', 'tensorstore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def damaged(tmp_path):
    folder = tmp_path / "checkpoint_7"
    folder.mkdir()
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_legacy(folder, {"w": (array, spec("target.w/"))}, chunks=[3, 2])
    return folder


def test_errors_name_the_array_and_the_file(damaged):
    chunk = damaged / "target.w" / "0.1"
    chunk.write_bytes(gzip.compress(b"too short"))
    with pytest.raises(CheckpointError, match=r"0\.1: .* target/w has 9 bytes, expected 24"):
        checkpoints.load_params(damaged)
    chunk.write_bytes(b"not gzip")
    with pytest.raises(CheckpointError, match=r"0\.1: .* target/w is damaged"):
        checkpoints.load_params(damaged)
    chunk.unlink()
    with pytest.raises(CheckpointError, match=r"0\.1: this part of array target/w is missing"):
        checkpoints.load_params(damaged)
    shutil.rmtree(damaged / "target.w")
    with pytest.raises(CheckpointError, match=r"array target/w is missing"):
        checkpoints.load_params(damaged)
    (damaged / "checkpoint").write_bytes(b"\xc1nonsense")
    with pytest.raises(CheckpointError, match="msgpack"):
        checkpoints.load_params(damaged)


def test_missing_zstd_chunk_is_an_error(tmp_path):
    array = np.ones((4, 4), np.float32)
    zstd = {"id": "zstd", "level": 1}
    write_legacy(tmp_path, {"w": (array, spec("target.w/"))}, chunks=[2, 4], compressor=zstd)
    (tmp_path / "target.w" / "1.0").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        checkpoints.load_params(tmp_path)


def test_unknown_version(tmp_path):
    write_legacy(tmp_path, {}, version=1)
    with pytest.raises(CheckpointError, match="version 1"):
        checkpoints.load_params(tmp_path)


def test_absent_chunks_are_the_fill_value(tmp_path):
    header = {"zarr_format": 2, "shape": [4], "chunks": [2], "dtype": "<f4", "order": "C"}
    header |= {"fill_value": 5.0, "filters": None, "compressor": None}
    (tmp_path / ".zarray").write_text(json.dumps(header))
    (tmp_path / "1").write_bytes(np.float32([1, 2]).tobytes())
    np.testing.assert_array_equal(read_zarr(tmp_path, "x"), [5, 5, 1, 2])


# ---------------------------------------------------------------------- safetensors


names = st.text("abcdefgh_0123", min_size=1, max_size=4)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float16, np.int32, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
)
trees = st.recursive(arrays, lambda x: st.dictionaries(names, x, min_size=1, max_size=3))


@settings(max_examples=30, deadline=None)
@given(tree=st.dictionaries(names, trees, min_size=1, max_size=3), note=st.text(max_size=9))
def test_safetensors_round_trip(tmp_path_factory, tree, note):
    path = tmp_path_factory.mktemp("x") / "model.safetensors"
    checkpoints.save_safetensors(path, tree, {"note": note})
    found, metadata = checkpoints.load_safetensors(path)
    assert metadata == {"note": note}
    assert flat(found).keys() == flat(tree).keys()
    for name, array in flat(tree).items():
        other = flat(found)[name]
        assert (other.dtype, other.shape, other.tobytes()) == (
            array.dtype,
            array.shape,
            array.tobytes(),
        )


def test_safetensors_is_readable_by_its_own_library(tmp_path):
    import safetensors.numpy

    tree = {"a": {"b": np.arange(6.0).reshape(2, 3)}}
    checkpoints.save_safetensors(tmp_path / "m.safetensors", tree)
    found = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(found["a/b"], tree["a"]["b"])


def test_safetensors_bfloat16_and_errors(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoints.save_safetensors(path, {"w": jnp.ones((2, 3), jnp.bfloat16)})
    assert checkpoints.load_params(path)["w"].dtype == ml_dtypes.bfloat16
    assert checkpoints.load_params(tmp_path)["w"].shape == (2, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a whole"):
        checkpoints.load_params(path)
    with pytest.raises(CheckpointError, match="contains '/'"):
        checkpoints.save_safetensors(path, {"a/b": np.zeros(1)})
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoints.load_params(tmp_path / "absent")


def test_check_params_lists_every_problem():
    expected = {"encoder": {"scale": jax.ShapeDtypeStruct((3,), jnp.float32)}, "w": np.zeros(2)}
    checkpoints.check_params({"encoder": {"scale": np.zeros(3)}, "w": np.ones(2)}, expected)
    with pytest.raises(CheckpointError) as error:
        checkpoints.check_params({"encoder": {"scales": np.zeros(3)}, "w": np.ones(4)}, expected)
    text = str(error.value)
    assert "missing: encoder/scale (3,) (it has encoder/scales)" in text
    assert "unknown to the model: encoder/scales" in text
    assert "w is (4,), the model expects (2,)" in text


def test_check_params_tells_of_parameters_first():
    def state(*names, size=2):
        slots = {name: {"m": np.zeros(size), "v": np.zeros(size)} for name in names}
        return {"target": dict.fromkeys(names, np.zeros(size)), "state": {"param_states": slots}}

    layers = [f"layer_{i}" for i in range(50)]
    with pytest.raises(CheckpointError) as error:
        checkpoints.check_params(state(*layers, size=3), state(*layers))
    lines = str(error.value).splitlines()
    assert lines[1] == "  shape: target/layer_0 is (3,), the model expects (2,)"
    assert lines[-2:] == [
        "  ... and 30 more like it",
        "  and 100 arrays of the optimizer's state for these parameters",
    ]


# ---------------------------------------------------------------------- Orbax


def state(value):
    return {
        "target": {"w": jnp.full((3, 2), value, jnp.float32), "b": jnp.full(4, value)},
        "state": {
            "step": jnp.int32(value),
            "param_states": {"w": {"v": jnp.full(1, float(value))}},
        },
    }


def structs(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def test_orbax_keeps_the_newest_whole_states(tmp_path):
    manager = checkpoints.CheckpointManager(tmp_path, keep=2)
    for step in (1, 2, 3):
        assert manager.save(step, state(step), {"seed": step}, {"position": step})
    manager.wait()
    assert manager.all_steps() == [2, 3]
    assert not manager.save(3, state(9))
    restored = manager.restore(3, structs(state(0)))
    jax.tree.map(np.testing.assert_array_equal, restored, state(3))
    assert manager.restore_json(2, "run") == {"seed": 2}
    assert manager.restore_json(2, "dataset") == {"position": 2}
    manager.close()
    np.testing.assert_array_equal(checkpoints.load_params(tmp_path)["w"], np.full((3, 2), 3))
    assert checkpoints.checkpoint_kind(tmp_path / "checkpoint_2") == "orbax"
    whole = checkpoints.load_state(tmp_path / "checkpoint_2")
    jax.tree.map(np.testing.assert_array_equal, whole, jax.device_get(state(2)))


def test_saving_survives_the_donation_of_the_state(tmp_path):
    manager = checkpoints.CheckpointManager(tmp_path)
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    tree = {"target": {"w": jnp.zeros(200_000)}, "state": {"step": jnp.int32(0)}}
    expected = structs(tree)
    for number in range(3):
        manager.save(number, tree)
        for _ in range(5):
            tree = step(tree)
    manager.wait()
    for number in range(3):
        restored = manager.restore(number, expected)
        assert set(np.asarray(restored["target"]["w"])) == {number * 5}


def test_unfinished_checkpoint_is_not_taken(tmp_path):
    manager = checkpoints.CheckpointManager(tmp_path)
    manager.save(1, state(1))
    manager.wait()
    manager.close()
    shutil.copytree(tmp_path / "checkpoint_1", tmp_path / "checkpoint_2.orbax-checkpoint-tmp")
    manager = checkpoints.CheckpointManager(tmp_path)
    assert manager.latest_step() == 1
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint_1"
    manager.close()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Failed to write 6 bytes: No space left on device"),
    ],
)
def test_a_full_disk_is_named_and_loses_nothing(tmp_path, monkeypatch, error):
    manager = checkpoints.CheckpointManager(tmp_path)
    state = {"target": {"w": jnp.ones(3)}, "state": {"step": jnp.zeros((), jnp.int32)}}
    manager.save(1, state)
    manager.wait()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(manager._manager, "save", fail)
    with pytest.raises(checkpoints.CheckpointError, match=r"no space left.*checkpoint_1 is whole"):
        manager.save(2, state)
    monkeypatch.undo()
    assert manager.all_steps() == [1]
    manager.save(2, state)
    manager.close()
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint_2"


def test_of_files_that_the_disk_refused_the_error_of_the_save_alone_is_told(tmp_path, caplog):
    checkpoints.CheckpointManager(tmp_path).close()
    loop = asyncio.new_event_loop()
    written = "writing checkpoint_2.orbax-checkpoint-tmp/w/.zarray"
    refused = ValueError(f"RESOURCE_EXHAUSTED: {written}: No space left on device")
    others = [
        ValueError(f"INVALID_ARGUMENT: {written}"),
        OSError(errno.ENOSPC, "No space left on device", "/mine"),
    ]
    for error in (refused, *others):
        loop.create_future().set_exception(error)  # never retrieved
    loop.close()
    assert [record.exc_info[1] for record in caplog.records] == others


def test_files_that_come_after_the_failure_of_a_save_are_not_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(str(lost.exc_value)))
    checkpoints.CheckpointManager(tmp_path).close()
    loop = asyncio.new_event_loop()
    loop.close()
    for callback in (loop.call_soon_threadsafe, loop.call_at):
        finished = threading.Event()
        reference = weakref.ref(finished, callback)  # called by the interpreter, as by tensorstore
        del finished
        assert reference() is None
    assert len(told) == 1
    assert "call_at" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [40, 180, 300])
def test_a_disk_that_fills_up_is_told_in_one_line(tmp_path, kilobytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {disk}"
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*alone, mount]).returncode:
        pytest.skip("needs a file system of its own (user namespaces)")
    flags = [f"--gin.MODEL_DIR='{disk}/run'", "--gin.TRAIN_STEPS=6", "--gin.EVAL_PERIOD=0"]
    flags += ["--gin_file=tests/t5x/toy.gin", "--gin.utils.SaveCheckpointConfig.period=1"]
    command = shlex.join([sys.executable, "-m", "t5x.train", *flags])
    ended = subprocess.run([*alone, f"{mount} && {command}"], capture_output=True, text=True)
    (line,) = ended.stderr.splitlines()
    assert "no space left on the disk to write a checkpoint" in line
    assert ended.returncode == 2


def test_a_disk_that_refuses_at_the_end_is_named(tmp_path, monkeypatch):
    manager = checkpoints.CheckpointManager(tmp_path)
    manager.save(1, {"target": {"w": jnp.ones(3)}})
    manager.wait()
    unfinished = tmp_path / "checkpoint_2.orbax-checkpoint-tmp"
    unfinished.mkdir()

    def fail():
        raise OSError(errno.EROFS, "Read-only file system", "/x")

    monkeypatch.setattr(manager._manager, "close", fail)
    message = r"cannot write a checkpoint: Read-only file system: '/x' \(checkpoint_1 is whole\)"
    with pytest.raises(CheckpointError, match=message):
        manager.close()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_1"]


def test_parameters_are_saved_in_the_given_dtype(tmp_path):
    manager = checkpoints.CheckpointManager(tmp_path, save_dtype="bfloat16")
    manager.save(1, state(1))
    manager.wait()
    stored = checkpoints.load_state(tmp_path / "checkpoint_1")
    assert stored["target"]["w"].dtype == ml_dtypes.bfloat16
    assert stored["state"]["param_states"]["w"]["v"].dtype == np.float32
    assert manager.restore(1, structs(state(0)))["target"]["w"].dtype == jnp.float32
    manager.close()


def test_restoring_another_model_lists_what_differs(tmp_path):
    manager = checkpoints.CheckpointManager(tmp_path)
    manager.save(1, state(1))
    manager.wait()
    other = structs(state(1))
    other["target"]["extra"] = other["target"].pop("b")
    with pytest.raises(CheckpointError, match=r"(?s)missing: target/extra.*unknown.*target/b"):
        manager.restore(1, other)
    manager.close()
