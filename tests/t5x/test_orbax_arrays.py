"""Orbax folders read without Orbax, beside Orbax; and those that are damaged or made to harm."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from t5x.checkpoints import CheckpointError, CheckpointManager, load_state
from t5x.checkpoints.folders import read_state
from t5x.checkpoints.orbax_arrays import open_arrays

TREE = {
    "target": {
        "a.b": {"w": jnp.arange(12.0).reshape(3, 4)},
        "b": jnp.ones(4, jnp.bfloat16),
        "quantized": jnp.ones(3, jnp.float8_e4m3fn),
    },
    "state": {"step": jnp.int32(3), "none": None, "empty": {}, "mask": jnp.zeros(5, bool)},
}
LAYOUTS = {
    "one store": {"use_ocdbt": True},
    "folders": {"use_ocdbt": False},
    "zarr v3": {"use_ocdbt": True, "use_zarr3": True},
}


def write(folder, tree=TREE, **options):
    """Write a tree with Orbax as a checkpoint of step 1."""
    path = folder / "checkpoint_1" / "state"
    saver = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options))
    saver.save(path, args=ocp.args.PyTreeSave(tree))
    saver.close()
    (path.parent / "commit_success.txt").touch()
    return path


def structs(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_orbax_reads_it(tmp_path, layout):
    folder = write(tmp_path, **LAYOUTS[layout])
    assert (open_arrays(folder) is None) == (layout == "zarr v3")
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), TREE)
    theirs = handler.restore(folder, args=ocp.args.PyTreeRestore(TREE, restore_args=args))
    ours = load_state(tmp_path)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert jax.tree.map(lambda x: x.dtype, ours) == jax.tree.map(lambda x: x.dtype, theirs)
    part = read_state(folder.parent, "target")
    assert jax.tree.structure(part) == jax.tree.structure({"target": TREE["target"]})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_manager_restores_every_layout_on_the_devices(tmp_path, layout):
    write(tmp_path, **LAYOUTS[layout])
    manager = CheckpointManager(tmp_path, read_only=True)
    expected = structs(TREE)
    expected["target"]["b"] = expected["target"]["b"].update(dtype=jnp.float32)
    restored = manager.restore(1, expected)
    assert jax.tree.structure(restored) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, restored, TREE)
    assert restored["target"]["b"].dtype == jnp.float32
    assert restored["target"]["b"].sharding == TREE["target"]["b"].sharding


HEADERS = {
    "too large": {"shape": [2**40, 4]},
    "large chunks": {"chunks": [2**40, 4]},
    "text": {"shape": "3"},
    "objects": {"dtype": "|O"},
}


@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS)
def test_headers_are_checked_before_anything_is_allocated(tmp_path, changes):
    path = write(tmp_path, use_ocdbt=False) / "target.a.b.w" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=r"array target/a\.b/w"):
        load_state(tmp_path)


def test_nothing_outside_the_folder_is_read(tmp_path):
    folder = write(tmp_path, use_ocdbt=False)
    (folder / "target.b").rename(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"array target/b: its header is missing"):
        load_state(tmp_path)
    (folder / "target.b").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"target\.b.* outside the checkpoint's folder"):
        load_state(tmp_path)
    (folder / "target.b").unlink()
    text = (folder / "_METADATA").read_text()
    (folder / "_METADATA").write_text(text.replace('"key": "b"', '"key": "/../../secret"'))
    with pytest.raises(CheckpointError, match="would lie outside the folder"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"tree_metadata": [3]}', '{"tree_metadata": {"a": {}}}', "[" * 10**5]
)
def test_a_tree_that_is_none_is_damage(tmp_path, text):
    (write(tmp_path) / "_METADATA").write_text(text)
    with pytest.raises(CheckpointError, match="checkpoint_1"):
        load_state(tmp_path)


def test_parts_go_to_their_devices(tmp_path):
    code = f"""
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from t5x.checkpoints import CheckpointManager
mesh = jax.make_mesh((2, 4), ("data", "model"))
values = np.arange(64.0, dtype=np.float32).reshape(8, 8)
whole = jax.device_put(values, NamedSharding(mesh, P("model", None)))
manager = CheckpointManager({str(tmp_path)!r})
manager.save(1, {{"target": {{"w": whole}}}})
for spec in (P(), P("data"), P(None, ("data", "model")), P("model", "data")):
    struct = jax.ShapeDtypeStruct((8, 8), np.float32, sharding=NamedSharding(mesh, spec))
    manager.wait()
    found = manager.restore(1, {{"target": {{"w": struct}}}})["target"]["w"]
    assert found.sharding == struct.sharding
    np.testing.assert_array_equal(found, values)
"""
    env = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_reading_needs_no_orbax(tmp_path):
    write(tmp_path)
    code = (
        "import sys; from t5x.checkpoints import CheckpointManager, load_state; "
        f"assert load_state({str(tmp_path)!r})['state']['step'] == 3; "
        f"assert CheckpointManager({str(tmp_path)!r}, read_only=True).all_steps() == [1]; "
        "assert 'orbax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
