"""Logical axis names -> mesh axes -> shardings.

Parameters and activations name their axes ("embed", "heads", "batch", ...); rules map those names
to the axes of a device mesh, `data` and `model` (and `replica` across slices). `PjitPartitioner`
owns the mesh and the rules. Everything else is `jax.jit` with `NamedSharding`s, on one CPU, eight
fake CPU devices, several processes, or a pod.
"""

import abc
import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax.linen import spmd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from t5x.unsupported import explanation, unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

LogicalAxisRules = Sequence[tuple[str, str | tuple[str, ...] | None]]

# Set while a partitioned function is being traced; read by `with_sharding_constraint`.
_context: contextvars.ContextVar[tuple[Mesh, LogicalAxisRules] | None] = contextvars.ContextVar(
    "partitioning", default=None
)


class PartitioningError(ValueError):
    """A shape, batch size or device count does not fit the mesh."""


def standard_logical_axis_rules(
    activation_partitioning_dims: int = 1,
    parameter_partitioning_dims: int = 1,
    additional_rules: LogicalAxisRules | None = None,
) -> LogicalAxisRules:
    """The T5X rules: (logical axis, mesh axis) in order of precedence.

    Args:
      activation_partitioning_dims: 2 also splits activations along `embed` over `model`.
      parameter_partitioning_dims: 2 also splits parameters along `embed` over `data` (as ZeRO-3).
      additional_rules: appended with the lowest precedence.

    Raises:
      ValueError: a number of dims that is neither 1 nor 2.
    """
    dims = (activation_partitioning_dims, parameter_partitioning_dims)
    if any(d not in (1, 2) for d in dims):
        raise ValueError(
            "activation_partitioning_dims and parameter_partitioning_dims must be 1 or 2, "
            f"got {dims}."
        )
    split = [("batch", "data"), ("vocab", "model"), ("mlp", "model"), ("heads", "model")]
    split += [("joined_kv", "model")]
    if activation_partitioning_dims == 2:
        split.append(("embed", "model"))
    if parameter_partitioning_dims == 2:
        split.append(("embed", "data"))
    whole = ["kv", "relpos_buckets", "abspos_buckets", "length", "layers", "stack"]
    whole += ["mlp_activations"]
    if "embed" not in dict(split):
        whole.append("embed")
    return (*split, *((name, None) for name in whole), *(additional_rules or ()))


def logical_to_mesh_axes(
    logical_axes: Sequence[str | None] | PartitionSpec | None, rules: LogicalAxisRules
) -> PartitionSpec:
    """Mesh axes of an array; a name without a rule, or whose mesh axis is taken, is replicated."""
    if logical_axes is None:
        return PartitionSpec()
    return spmd.logical_to_mesh_axes(tuple(logical_axes), rules) or PartitionSpec()


def _check_divides(shape: Sequence[int], spec: PartitionSpec, mesh: Mesh, name: str) -> None:
    for dim, axes in zip(shape, spec):
        axes = (axes,) if isinstance(axes, str) else axes or ()
        parts = math.prod(mesh.shape[a] for a in axes)
        if dim % parts:
            raise PartitioningError(
                f"{name} of shape {tuple(shape)} cannot be split as {spec}: {dim} is not a "
                f"multiple of the {parts} devices along {axes}. Choose num_partitions, or the "
                "model's dimensions, so that it divides."
            )


def with_sharding_constraint(x: jax.Array, logical_axes: Sequence[str | None]) -> jax.Array:
    """Tell the compiler how to lay out activation `x`; changes no value.

    Acts inside functions made by `PjitPartitioner.partition`, and returns `x` elsewhere.

    Args:
      x: any array.
      logical_axes: one name, or None, per axis of `x`.

    Raises:
      PartitioningError: an axis does not divide by the mesh axis it maps to.
    """
    context = _context.get()
    if context is None:
        return x
    mesh, rules = context
    if len(logical_axes) != x.ndim:
        raise PartitioningError(f"Axes {tuple(logical_axes)} named for an array of {x.shape}.")
    spec = logical_to_mesh_axes(logical_axes, rules)
    _check_divides(x.shape, spec, mesh, f"Activation {tuple(logical_axes)}")
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


type LogicalAxes = Sequence[str | None]


def per_device(
    fn: Callable[..., Any], in_axes: Sequence[LogicalAxes], out_axes: Sequence[LogicalAxes]
) -> Callable[..., Any]:
    """`fn`, called on each device with its own part of the arrays.

    For what the compiler cannot divide, such as a kernel, and what needs no other device's part.
    Acts inside functions made by `PjitPartitioner.partition`, and returns `fn` elsewhere.

    Args:
      fn: of arrays, returns a tuple of arrays.
      in_axes: the logical axes of each argument.
      out_axes: of each result.
    """
    context = _context.get()
    if context is None:
        return fn
    mesh, rules = context

    def specs(arrays: Sequence[LogicalAxes]) -> tuple[PartitionSpec, ...]:
        return tuple(logical_to_mesh_axes(axes, rules) for axes in arrays)

    return jax.shard_map(
        fn, mesh=mesh, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False
    )


@dataclasses.dataclass(frozen=True)
class DataLayout:
    """Which part of the global batch this process loads.

    Attributes:
      batch_size: global number of examples.
      shard_id: this process loads shard `shard_id` of `num_shards`.
      num_shards: number of processes, or groups of processes, with different data.
      is_first_host_in_replica_set: among the processes with this shard, is it the first?
    """

    batch_size: int
    shard_id: int
    num_shards: int
    is_first_host_in_replica_set: bool


def create_mesh(
    num_partitions: int,
    devices: Sequence[Any],
    ici_mesh_shape: Sequence[int] | None = None,
    dcn_mesh_shape: Sequence[int] | None = None,
) -> Mesh:
    """The (`data`, `model`) mesh with `num_partitions` devices along `model`.

    With `ici_mesh_shape` and `dcn_mesh_shape`, (replica, data, model) inside and across slices, the
    mesh has all three axes.

    Raises:
      PartitioningError: the number of devices is not a multiple of `num_partitions`, or not the
        product of the two shapes.
    """
    from jax.experimental import mesh_utils

    if ici_mesh_shape is not None or dcn_mesh_shape is not None:
        if ici_mesh_shape is None or dcn_mesh_shape is None:
            raise PartitioningError("ici_mesh_shape and dcn_mesh_shape must be given together.")
        grid = _slices(tuple(ici_mesh_shape), tuple(dcn_mesh_shape), devices)
        return Mesh(grid, ("replica", "data", "model"))
    if len(devices) % num_partitions:
        raise PartitioningError(
            f"num_partitions={num_partitions} does not divide the {len(devices)} devices: "
            "it is the size of the mesh's `model` axis, and `data` gets the rest."
        )
    shape = (len(devices) // num_partitions, num_partitions)
    if devices[0].platform == "cpu":
        grid = np.asarray(devices, dtype=object).reshape(shape)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, ("data", "model"))


def _slices(ici: tuple[int, ...], dcn: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Devices [replica, data, model] with the shape `dcn` of slices, each of the shape `ici`."""
    from jax.experimental import mesh_utils

    if len(ici) != 3 or len(dcn) != 3 or math.prod(ici) * math.prod(dcn) != len(devices):
        raise PartitioningError(
            f"ici_mesh_shape={ici} and dcn_mesh_shape={dcn} must be (replica, data, model) each "
            f"and multiply to the number of devices, {len(devices)}."
        )
    if devices[0].platform != "cpu":
        return mesh_utils.create_hybrid_device_mesh(ici, dcn, devices)
    # CPU devices know no slices: consecutive ones make up a slice.
    grid = np.asarray(devices, dtype=object).reshape(*dcn, *ici)
    return grid.transpose(0, 3, 1, 4, 2, 5).reshape([d * i for d, i in zip(dcn, ici)])


class BasePartitioner(abc.ABC):
    """Maps a train state, batches and functions onto a device mesh.

    Subclasses define `partition`, how a function becomes a program of all devices.

    Args:
      mesh: devices along the axes `data` and `model`, and `replica` across slices.
      logical_axis_rules: see `standard_logical_axis_rules`, the default.
    """

    def __init__(self, mesh: Mesh, logical_axis_rules: LogicalAxisRules | None = None):
        self.mesh = mesh
        rules = standard_logical_axis_rules() if logical_axis_rules is None else logical_axis_rules
        self._batch_axes = tuple(a for a in ("replica", "data") if a in mesh.axis_names)
        if len(self._batch_axes) > 1:
            rules = [(n, self._batch_axes if n == "batch" else m) for n, m in rules]
        self.logical_axis_rules = tuple((name, mesh_axes) for name, mesh_axes in rules)

    @property
    def data_partition_spec(self) -> PartitionSpec:
        """Mesh axes of a batch: rows over the data axes."""
        data = "data" if len(self._batch_axes) == 1 else self._batch_axes
        return PartitionSpec(data)

    @property
    def data_sharding(self) -> NamedSharding:
        """Sharding of every array of a batch, [B, ...]."""
        return NamedSharding(self.mesh, self.data_partition_spec)

    @property
    def replicated(self) -> NamedSharding:
        """Sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def num_data_slices(self) -> int:
        """Number of parts that a batch is split into."""
        return math.prod(self.mesh.shape[a] for a in self._batch_axes)

    def get_data_layout(
        self, batch_size: int | None = None, host_index: int | None = None
    ) -> DataLayout:
        """Which shard of a global batch of `batch_size` process `host_index` loads.

        Raises:
          PartitioningError: the batch does not divide over the mesh, or the processes' devices
            cover the batch in overlapping parts.
        """
        slices = self.num_data_slices
        batch_size = slices if batch_size is None else batch_size
        if batch_size < 1 or batch_size % slices:
            raise PartitioningError(
                f"batch_size={batch_size} is not a multiple of the {slices} devices along the "
                f"mesh's data axis (mesh {dict(self.mesh.shape)}): use a multiple of {slices}, "
                "or a larger num_partitions."
            )
        host_index = jax.process_index() if host_index is None else host_index
        return _layout_of_host(self.mesh.devices.reshape(slices, -1), batch_size, host_index)

    def get_logical_axes(self, train_state: Any) -> Any:
        """The train state with the tuple of logical axis names in place of each array."""
        return train_state.as_logical_axes()

    def get_mesh_axes(self, train_state: Any) -> Any:
        """The train state with a `PartitionSpec` in place of each array.

        Raises:
          PartitioningError: names the array that the mesh does not divide.
        """
        paths, treedef = jax.tree_util.tree_flatten_with_path(train_state)
        logical = treedef.flatten_up_to(self.get_logical_axes(train_state))
        specs = []
        for (path, array), axes in zip(paths, logical):
            spec = logical_to_mesh_axes(axes, self.logical_axis_rules)
            _check_divides(array.shape, spec, self.mesh, jax.tree_util.keystr(path))
            specs.append(spec)
        return treedef.unflatten(specs)

    def shardings(self, axes: Any) -> Any:
        """A tree of `PartitionSpec`s (None = replicated) as `NamedSharding`s."""

        def convert(spec: PartitionSpec | None) -> NamedSharding:
            return NamedSharding(self.mesh, PartitionSpec() if spec is None else spec)

        return jax.tree.map(convert, axes, is_leaf=_is_axes)

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make `with_sharding_constraint` use this mesh inside."""
        token = _context.set((self.mesh, self.logical_axis_rules))
        try:
            yield
        finally:
            _context.reset(token)

    @abc.abstractmethod
    def partition(
        self,
        fn: Callable[..., Any],
        in_axis_resources: Any,
        out_axis_resources: Any,
        static_argnums: int | Sequence[int] = (),
        donate_argnums: int | Sequence[int] = (),
    ) -> Any:
        """Return `fn` as a program of all devices of the mesh.

        Args:
          fn: the function.
          in_axis_resources: a tree prefix of `PartitionSpec`s for its positional arguments;
            None replicates.
          out_axis_resources: the same for its result.
          static_argnums: as in `jax.jit`.
          donate_argnums: arguments whose memory the result may take.

        Returns:
          The compiled function, with `.lower` as of `jax.jit`.
        """

    def compile(self, partitioned_fn: Any, *args: Any) -> Any:
        """Compile what `partition` returned for arguments like `args` (arrays or their shapes)."""
        return partitioned_fn.lower(*args).compile()

    def shard_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's rows of a batch, [B / num_shards, ...], as global device arrays."""
        if jax.process_count() == 1:
            return jax.device_put(dict(batch), self.data_sharding)
        return {
            name: jax.make_array_from_process_local_data(self.data_sharding, np.asarray(x))
            for name, x in batch.items()
        }


#: Upstream's name of what partitioners with `pjit` derive from.
BasePjitPartitioner = BasePartitioner


class PjitPartitioner(BasePartitioner):
    """Partitions with `jax.jit` and `NamedSharding`s.

    Args:
      num_partitions: devices along the mesh's `model` axis.
      model_parallel_submesh: (x, y, z, core) alternative to num_partitions: their product.
      params_on_devices: kept for configurations of upstream; parameters are always on devices.
      backend: platform name such as "cpu"; None is JAX's default.
      ici_mesh_shape: (replica, data, model) inside a slice, with dcn_mesh_shape across slices.
      logical_axis_rules: see `standard_logical_axis_rules`, the default.

    Raises:
      PartitioningError: the devices cannot be arranged so.
    """

    def __init__(
        self,
        num_partitions: int | None = None,
        model_parallel_submesh: Sequence[int] | None = None,
        params_on_devices: bool = True,
        backend: str | None = None,
        ici_mesh_shape: Sequence[int] | None = None,
        dcn_mesh_shape: Sequence[int] | None = None,
        logical_axis_rules: LogicalAxisRules | None = None,
    ):
        submesh = None if model_parallel_submesh is None else math.prod(model_parallel_submesh)
        if num_partitions and submesh and num_partitions != submesh:
            raise PartitioningError(
                f"num_partitions={num_partitions} and model_parallel_submesh="
                f"{tuple(model_parallel_submesh or ())} disagree; give one of them."
            )
        if not params_on_devices:
            raise PartitioningError("params_on_devices=False is not supported; leave it True.")
        devices = jax.devices(backend)
        mesh = create_mesh(num_partitions or submesh or 1, devices, ici_mesh_shape, dcn_mesh_shape)
        super().__init__(mesh, logical_axis_rules)

    def partition(
        self,
        fn: Callable[..., Any],
        in_axis_resources: Any,
        out_axis_resources: Any,
        static_argnums: int | Sequence[int] = (),
        donate_argnums: int | Sequence[int] = (),
    ) -> Any:
        """Return `jax.jit` of `fn` on this mesh; see `BasePartitioner.partition`."""

        @functools.wraps(fn)
        def on_mesh(*args):
            with self.activate():
                return fn(*args)

        return jax.jit(
            on_mesh,
            in_shardings=self.shardings(in_axis_resources),
            out_shardings=self.shardings(out_axis_resources),
            static_argnums=static_argnums,
            donate_argnums=donate_argnums,
        )


class ModelBasedPjitPartitioner:
    """Upstream's partitioner that asks the model for its rules; not here.

    Raises:
      NotImplementedError: always; says what to use.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs
        raise NotImplementedError(explanation("t5x.partitioning.ModelBasedPjitPartitioner"))


def _is_axes(x: Any) -> bool:
    return x is None or isinstance(x, PartitionSpec)


def _layout_of_host(devices: np.ndarray, batch_size: int, host: int) -> DataLayout:
    """Layout of process `host`, for `devices` [data slices, copies of each slice]."""
    rows_of: dict[int, set[int]] = {}
    for row, copies in enumerate(devices):
        for device in copies:
            rows_of.setdefault(device.process_index, set()).add(row)
    if host not in rows_of:
        raise PartitioningError(f"Process {host} has no device in the mesh.")
    shards = sorted({tuple(sorted(rows)) for rows in rows_of.values()})
    covered = [row for shard in shards for row in shard]
    if sorted(covered) != list(range(len(devices))):
        raise PartitioningError(
            f"The processes' devices cover the batch unevenly ({shards}): choose num_partitions "
            "so that it divides, or is a multiple of, the devices of one process."
        )
    mine = tuple(sorted(rows_of[host]))
    first = min(p for p, rows in rows_of.items() if tuple(sorted(rows)) == mine)
    return DataLayout(batch_size, shards.index(mine), len(shards), host == first)
