import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from t5x import partitioning
from t5x.partitioning import PartitioningError, PjitPartitioner, logical_to_mesh_axes


@pytest.mark.parametrize(
    ("activations", "parameters", "axes", "expected"),
    [
        (1, 1, ("embed", "mlp"), P(None, "model")),
        (1, 1, ("vocab", "embed"), P("model", None)),
        (1, 1, ("batch", "length", "embed"), P("data", None, None)),
        (2, 1, ("batch", "length", "embed"), P("data", None, "model")),
        (2, 1, ("embed", "mlp"), P(None, "model")),
        (1, 2, ("embed", "mlp"), P("data", "model")),
        (1, 2, ("batch", "length", "embed"), P("data", None, None)),
        (2, 2, ("embed",), P("model")),
        (2, 2, ("joined_kv", "embed"), P("model", "data")),
        (1, 1, ("heads", "relpos_buckets"), P("model", None)),
        (1, 1, ("a_name_without_a_rule",), P(None)),
        (1, 1, None, P()),
    ],
)
def test_rules(activations, parameters, axes, expected):
    rules = partitioning.standard_logical_axis_rules(activations, parameters)
    assert logical_to_mesh_axes(axes, rules) == expected


def test_additional_rules_come_last():
    rules = partitioning.standard_logical_axis_rules(additional_rules=[("extra", "model")])
    assert logical_to_mesh_axes(("extra",), rules) == P("model")
    assert logical_to_mesh_axes(("extra", "mlp"), rules) == P(None, "model")


def test_wrong_dims_raise():
    with pytest.raises(ValueError, match="1 or 2"):
        partitioning.standard_logical_axis_rules(activation_partitioning_dims=3)


def test_constraint_changes_nothing_outside_a_mesh():
    x = jnp.ones((3, 5))
    assert partitioning.with_sharding_constraint(x, ("batch", "embed")) is x
    assert partitioning.per_device(jnp.sin, [("batch", "embed")], [()]) is jnp.sin


def test_devices_must_divide():
    with pytest.raises(PartitioningError, match=r"num_partitions=3 .* devices"):
        partitioning.create_mesh(3, jax.devices() * 8)
    with pytest.raises(PartitioningError, match="disagree"):
        PjitPartitioner(num_partitions=2, model_parallel_submesh=(1, 1, 2, 2))


def test_other_partitioners_define_how_a_function_is_compiled():
    class Counting(partitioning.BasePartitioner):
        calls = 0

        def partition(self, fn, in_axis_resources, out_axis_resources, *args, **kwargs):
            self.calls += 1
            sharding = self.shardings(in_axis_resources)
            return jax.jit(fn, in_shardings=sharding, out_shardings=self.replicated)

    with pytest.raises(TypeError, match="abstract"):
        partitioning.BasePartitioner(partitioning.create_mesh(1, jax.devices()))  # type: ignore
    partitioner = Counting(partitioning.create_mesh(1, jax.devices()[:1]))
    assert partitioner.get_data_layout(3).batch_size == 3
    double = partitioner.partition(lambda x: 2 * x, P("data"), P())
    compiled = partitioner.compile(double, jax.ShapeDtypeStruct((3,), jnp.float32))
    assert compiled(jnp.ones(3)).tolist() == [2, 2, 2]
    assert partitioner.calls == 1
    assert issubclass(PjitPartitioner, partitioning.BasePjitPartitioner)


def test_slices_must_multiply_to_the_devices():
    with pytest.raises(PartitioningError, match="number of devices, 1"):
        PjitPartitioner(ici_mesh_shape=(1, 2, 2), dcn_mesh_shape=(2, 1, 1))
    with pytest.raises(PartitioningError, match="given together"):
        PjitPartitioner(ici_mesh_shape=(1, 2, 2))


class FakeDevice:
    platform = "cpu"

    def __init__(self, process_index):
        self.process_index = process_index


def layouts(num_processes, devices_each, num_partitions, batch_size=16):
    devices = np.asarray([FakeDevice(p) for p in range(num_processes) for _ in range(devices_each)])
    grid = devices.reshape(-1, num_partitions)
    return [partitioning._layout_of_host(grid, batch_size, p) for p in range(num_processes)]


@pytest.mark.parametrize(
    ("processes", "devices", "partitions", "shards", "first"),
    [
        (4, 2, 1, [0, 1, 2, 3], [True] * 4),
        (4, 2, 2, [0, 1, 2, 3], [True] * 4),
        (4, 2, 4, [0, 0, 1, 1], [True, False, True, False]),
        (4, 2, 8, [0, 0, 0, 0], [True, False, False, False]),
    ],
)
def test_data_layout_of_several_processes(processes, devices, partitions, shards, first):
    found = layouts(processes, devices, partitions)
    assert [x.shard_id for x in found] == shards
    assert {x.num_shards for x in found} == {max(shards) + 1}
    assert [x.is_first_host_in_replica_set for x in found] == first


def test_uneven_cover_raises():
    with pytest.raises(PartitioningError, match="unevenly"):
        layouts(2, 3, 2)


EIGHT_DEVICES = """
import jax, jax.numpy as jnp, pytest
from t5x.partitioning import (
    PjitPartitioner, PartitioningError, per_device, with_sharding_constraint)
from jax.sharding import PartitionSpec as P
for model in (1, 2, 4, 8):
    partitioner = PjitPartitioner(num_partitions=model)
    assert dict(partitioner.mesh.shape) == {"data": 8 // model, "model": model}
    seen = []
    def f(x):
        x = with_sharding_constraint(x * 2, ("batch", "mlp"))
        jax.debug.inspect_array_sharding(x, callback=seen.append)
        return x
    f = partitioner.partition(f, P("data"), P("data", "model"))
    y = f(jnp.ones((8, 16)))
    assert y.sharding.spec == P("data", "model"), y.sharding
    assert y.addressable_shards[0].data.shape == (model, 16 // model)
    assert seen[0].shard_shape((8, 16)) == (model, 16 // model), seen
four = PjitPartitioner(num_partitions=2)
def sums(x):  # what a device has: [2, 3] of [8, 6]
    local = lambda x: (jnp.full_like(x, x.sum()),)
    return per_device(local, [("batch", "mlp")], [("batch", "mlp")])(x)[0]
found = four.partition(sums, P("data"), P("data", "model"))(jnp.ones((8, 6)))
assert found.tolist() == [[6.0] * 6] * 8
with pytest.raises(PartitioningError, match="batch_size=6 .* 4 devices"):
    four.get_data_layout(6)
def heads(x):
    return with_sharding_constraint(x, ("batch", "heads"))
with pytest.raises(PartitioningError, match="3 is not a multiple of the 2 devices"):
    four.partition(heads, None, None)(jnp.ones((4, 3)))
assert PjitPartitioner(model_parallel_submesh=(2, 2, 1, 1)).mesh.shape["model"] == 4
print("eight devices passed")
"""


def test_eight_devices():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert "eight devices passed" in run.stdout, run.stderr[-3000:]
