"""Where a train state comes from: initialized on the mesh, or read from a checkpoint.

A run that resumes reads its own latest checkpoint whole. A run that starts from another one reads
any format, may map names (`assignment_map`), and is checked name by name.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from t5x.checkpoints import (
    CheckpointError,
    CheckpointManager,
    check_finite,
    load_state,
)
from t5x.checkpoints.loading import (
    all_checkpoints,
    check_local_checkpoint,
    check_tree,
    checkpoint_kind,
    checkpoint_step,
    find_checkpoint,
    latest_checkpoint,
    place,
)
from t5x.checkpoints.orbax import BEGIN_ANEW
from t5x.checkpoints.transformations import transform_restored
from t5x.partitioning import BasePartitioner
from t5x.state_utils import AssignmentMap, assign
from t5x.train_state import FlaxOptimTrainState, InferenceState

Tree = Any
_MOST_RESIZED = 8
#: Key of what a run saves of its data, see `t5x.data.fingerprint`.
FINGERPRINTS = "data_fingerprints"
RestoreConfig = Any  # t5x.utils.RestoreCheckpointConfig; that module imports this one


class TrainStateInitializer:
    """Makes train states of one model, laid out on the mesh.

    Args:
      optimizer_def: the update rule; None makes an `InferenceState`.
      init_fn: `model.get_initial_variables(rng, input_shapes, input_types)`.
      input_shapes: name -> shape of a global batch.
      partitioner: maps the state to devices.
      model: unused; for configurations of upstream.
      input_types: name -> dtype of a batch.

    Attributes:
      global_train_state_shape: the state with `jax.ShapeDtypeStruct`s.
      train_state_axes: the state with `PartitionSpec`s.
    """

    def __init__(
        self,
        optimizer_def: Any,
        init_fn: Callable[..., Mapping[str, Tree]],
        input_shapes: Mapping[str, Any],
        partitioner: BasePartitioner,
        model: Any = None,
        input_types: Mapping[str, Any] | None = None,
    ):
        def make(rng: jax.Array) -> Any:
            variables = init_fn(rng, input_shapes, input_types)
            if optimizer_def is None:
                return InferenceState.create(variables)
            return FlaxOptimTrainState.create(optimizer_def, variables)

        self._partitioner = partitioner
        self._has_optimizer = optimizer_def is not None
        with partitioner.activate():
            self.global_train_state_shape = jax.eval_shape(make, jax.random.PRNGKey(0))
        self.train_state_axes = partitioner.get_mesh_axes(self.global_train_state_shape)
        self._init = partitioner.partition(make, PartitionSpec(), self.train_state_axes)

    def from_scratch(self, rng: jax.Array | None) -> Any:
        """Return the initial state for random key `rng`.

        Raises:
          ValueError: no key.
        """
        if rng is None:
            raise ValueError(
                "The checkpoint lacks a part of the state (or there is none), which is initialized "
                "then: give a random key (init_rng)."
            )
        return self._init(np.asarray(rng))  # every process has the same

    @property
    def expected(self) -> Tree:
        """The state_dict with `jax.ShapeDtypeStruct`s that carry shardings."""
        shardings = self._partitioner.shardings(self.train_state_axes)
        structs = jax.tree.map(
            lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
            self.global_train_state_shape,
            shardings,
        )
        return structs.state_dict()

    def from_manager(self, manager: CheckpointManager, step: int) -> Any:
        """The state of checkpoint `step` of a run of this very model.

        Raises:
          CheckpointError: the checkpoint does not fit the model, or holds NaN.
        """
        try:
            restored = manager.restore(step, self.expected)
        except CheckpointError as error:
            if not error.problems:
                raise
            raise CheckpointError(
                f"{error}\n  A run goes on with the model and optimizer that it began with. For "
                "others begin a new one: another MODEL_DIR, and this checkpoint as "
                "INITIAL_CHECKPOINT_PATH of finetune.gin (RestoreCheckpointConfig.path)."
            ) from error
        check_finite(restored["target"], manager.path(step))
        return self.global_train_state_shape.restore_state(restored)

    def from_checkpoint(
        self,
        path: str | Path | Sequence[RestoreConfig],
        rng: jax.Array | None = None,
        dtype: Any = None,
        assignment_map: AssignmentMap | None = None,
        strict: bool = True,
        fallback_to_scratch: bool = False,
        transformations: Iterable[Callable[..., Tree]] = (),
        *,
        ds_iter: Any = None,
        init_rng: jax.Array | None = None,
    ) -> Any:
        """The state from a checkpoint of any format.

        A `.safetensors` file gives the parameters, and a fresh optimizer at step 0.

        Args:
          path: see `t5x.checkpoints.load_params`. Or, as in upstream, the configurations of
            `from_checkpoints` with its other arguments; the result is the state of their one
            checkpoint, or None.
          rng: key of what is initialized rather than read.
          dtype: parameters are cast to it, and stored in the model's dtype.
          assignment_map: see `assign`.
          strict: raise when the checkpoint has arrays that the model does not use.
          fallback_to_scratch: initialize what the checkpoint lacks.
          transformations: applied in order to the state_dict that was read: f(state_dict), or
            f(state_dict, the model's state_dict of shapes); those with a parameter `is_resuming`
            get False, those with `train_state` get `global_train_state_shape`.

        Raises:
          CheckpointError: lists what is missing, unknown, of another shape, or not finite.
          ValueError: something is initialized and there is no key, or configurations mean several
            checkpoints.
        """
        if not isinstance(path, str | Path):
            return self._only_checkpoint(path, ds_iter, init_rng)
        expected = self.expected
        path = find_checkpoint(path)
        only_params = checkpoint_kind(path) == "safetensors" and self._has_optimizer
        if only_params:
            expected = {"target": expected["target"]}
        found = load_state(path, "target") if only_params else self._read(path)
        found = flax.traverse_util.flatten_dict(self._transformed(found, transformations), sep="/")
        wanted = flax.traverse_util.flatten_dict(expected, sep="/", keep_empty_nodes=True)
        # Rules on the optimizer's state match nothing in a file that has parameters alone.
        chosen, used = assign(wanted, found, assignment_map or (), not only_params)
        absent = [n for n, v in chosen.items() if v is None and _is_array(wanted[n])]
        unused = {} if not strict or assignment_map else {n: found[n] for n in found.keys() - used}
        with _telling_remedies():
            if unused or (absent and not fallback_to_scratch):
                check_tree({**_without(chosen, absent), **unused}, _arrays(wanted), path)
            elif not absent:
                check_tree(chosen, _arrays(wanted), path)
        fresh: Any = self.from_scratch(rng) if absent or only_params else None
        if absent:
            initial = flax.traverse_util.flatten_dict(
                fresh.state_dict(), sep="/", keep_empty_nodes=True
            )
            chosen |= {name: initial[name] for name in absent}
            with _telling_remedies():
                check_tree(chosen, _arrays(wanted), path)
        chosen |= {n: v for n, v in wanted.items() if not _is_array(v)}
        tree = _cast(flax.traverse_util.unflatten_dict(chosen, sep="/"), dtype)
        check_finite(tree["target"], path)
        placed = place(tree, expected)
        if only_params:
            return fresh.replace_params(placed["target"])
        return self.global_train_state_shape.restore_state(placed)

    def from_config(self, cfg: RestoreConfig, path: str | Path, rng: jax.Array | None) -> Any:
        """Return the state of checkpoint `path`, read with the options of `cfg`.

        Args:
          cfg: a `t5x.utils.RestoreCheckpointConfig`.
          path: one of its checkpoints.
          rng: key of what is initialized rather than read.

        Raises:
          CheckpointError: see `from_checkpoint`.
        """
        return self.from_checkpoint(
            path,
            rng,
            dtype=cfg.dtype,
            assignment_map=cfg.assignment_map,
            strict=cfg.strict,
            fallback_to_scratch=cfg.fallback_to_scratch,
            transformations=cfg.state_transformation_fns,
        )

    def from_checkpoints(
        self,
        restore_cfgs: Iterable[RestoreConfig],
        ds_iter: Any = None,
        init_rng: jax.Array | None = None,
    ) -> Iterator[Any]:
        """Yield the states of the checkpoints of the first configuration that has any.

        Args:
          restore_cfgs: `t5x.utils.RestoreCheckpointConfig`s, in order of preference.
          ds_iter: data iterator that continues where the checkpoint's stood, if the configuration
            says `restore_dataset`.
          init_rng: random key of what a checkpoint lacks, with `fallback_to_scratch`.

        Raises:
          CheckpointError: a checkpoint that was named does not exist, or does not fit the model.
          ValueError: a checkpoint lacks something, and there is no `init_rng`.
        """
        for cfg in restore_cfgs:
            paths = _existing(cfg)
            for path in paths:
                state = self.from_config(cfg, path, init_rng)
                if ds_iter is not None and cfg.restore_dataset:
                    restore_data(ds_iter, path)
                yield state
            if paths:
                return

    def from_checkpoint_or_scratch(
        self, ckpt_cfgs: Iterable[RestoreConfig], *, init_rng: jax.Array, ds_iter: Any = None
    ) -> Any:
        """Return the state of the one checkpoint of the configurations, else the initial state.

        Arguments as of `from_checkpoints`.

        Raises:
          CheckpointError: see `from_checkpoints`.
          ValueError: several checkpoints.
        """
        state = self._only_checkpoint(ckpt_cfgs, ds_iter, init_rng)
        return self.from_scratch(init_rng) if state is None else state

    def _only_checkpoint(self, cfgs: Iterable[RestoreConfig], ds_iter: Any, rng: Any) -> Any:
        states = self.from_checkpoints(cfgs, ds_iter, rng)
        state = next(states, None)
        if next(states, None) is not None:
            raise ValueError(
                "The RestoreCheckpointConfigs mean several checkpoints (mode='all', or several "
                "paths); read them with from_checkpoints."
            )
        return state

    def _transformed(self, state: Tree, functions: Iterable[Callable[..., Tree]]) -> Tree:
        """`state` after the transformations, each called with what it takes."""
        return transform_restored(
            state,
            functions,
            self.expected,
            is_resuming=False,
            train_state=self.global_train_state_shape,
        )

    def _read(self, path: Path) -> Tree:
        """The checkpoint's state; of an inference state what it holds, without the slots."""
        if self._has_optimizer:
            return load_state(path)
        found = load_state(path, "target")
        if self.global_train_state_shape.flax_mutables:
            found = {**found, **load_state(path, "flax_mutables")}
        step = np.asarray(checkpoint_step(path), np.int32)
        return {"target": found.pop("target"), **found, "state": {"step": step}}


@contextlib.contextmanager
def _telling_remedies() -> Iterator[None]:
    """Add to the error of a checkpoint that does not fit what makes it fit."""
    try:
        yield
    except CheckpointError as error:
        remedies = "\n  ".join(_remedies(error.problems))
        raise CheckpointError(f"{error}\n  {remedies}") from error


def _remedies(problems: Mapping[str, str]) -> Iterator[str]:
    """Yield what to do about problems by name: first the parameters', else the optimizer's."""
    where = "utils.RestoreCheckpointConfig"
    of_params = [name for name in problems if name.startswith("target/")]
    resized = [name for name in of_params if problems[name].startswith("shape:")]
    scratch = f"{where}.fallback_to_scratch = True"
    if resized and len(resized) <= _MOST_RESIZED:
        # The optimizer's arrays for a parameter have its name within theirs.
        rules = [(f".*/{re.escape(n.removeprefix('target/'))}(/.*)?", None) for n in resized]
        yield (
            "To initialise these parameters at random, as for another vocabulary, put in the gin "
            "file:"
            f"\n    {where}.assignment_map = {rules}\n    {scratch}"
        )
    elif of_params:
        yield (
            "If the model is the same by other names, map them with "
            f"{where}.assignment_map = [('name here', 'name there'), ...]; if it is another, "
            "configure the model that the checkpoint is of."
        )
    elif any(problem.startswith("shape:") for problem in problems.values()):
        rules = [("state/param_states.*", None)]
        yield (
            "The parameters fit, the optimizer is another. To start with an empty one, put in the "
            "gin file:"
            f"\n    {where}.assignment_map = {rules}\n    {scratch}"
        )
    else:
        yield (
            "The parameters fit, the optimizer is another. To start with an empty one, put in the "
            "gin file:"
            f"\n    {where}.strict = False\n    {scratch}"
        )


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape")


def _arrays(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in flat.items() if _is_array(x)}


def _without(flat: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    names = set(names)
    return {name: x for name, x in flat.items() if name not in names}


def _cast(state: Tree, dtype: Any) -> Tree:
    """Round floating parameters to `dtype`."""
    if dtype is None:
        return state

    def cast(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    with np.errstate(over="ignore"):  # numbers that become infinite are refused later
        return {**state, "target": jax.tree.map(cast, state["target"])}


def checkpoint_paths(path: str | Path | Iterable[str | Path], mode: str) -> list[Path]:
    """The checkpoints that a restore configuration means.

    Args:
      path: one or several paths; [] means none.
      mode: "specific" (the paths themselves), "latest" or "all" (of the runs in these folders). A
        path that is a checkpoint itself is taken as it is in each.

    Raises:
      CheckpointError: an unknown mode, or a folder without checkpoints.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    for each in paths:
        check_local_checkpoint(each)
    if mode == "specific":
        return paths
    if mode not in ("latest", "all"):
        raise CheckpointError(
            f"RestoreCheckpointConfig.mode is {mode!r}, expected specific, latest or all."
        )
    result: list[Path] = []
    for folder in paths:
        newest = latest_checkpoint(folder)
        if newest is None and _is_checkpoint(folder):
            result.append(folder)
            continue
        if newest is None:
            raise CheckpointError(f"{folder}: no checkpoint_<step> folder here (mode={mode!r}).")
        result += [newest] if mode == "latest" else all_checkpoints(folder)
    return result


def _existing(cfg: RestoreConfig) -> list[Path]:
    """The checkpoints of a configuration; none if it names none, or folders without any."""
    if not cfg.path:
        return []
    try:
        paths = [find_checkpoint(path) for path in checkpoint_paths(cfg.path, cfg.mode)]
        for path in paths:
            checkpoint_kind(path)
    except CheckpointError:
        if cfg.mode != "specific" or cfg.fallback_to_scratch:
            return []
        raise
    return paths


def restore_data(ds_iter: Any, path: str | Path) -> None:
    """Continue a data iterator where that of an Orbax checkpoint stood.

    Raises:
      CheckpointError: see `continue_data`.
    """
    path = find_checkpoint(path)
    manager = CheckpointManager(path.parent, read_only=True)
    try:
        continue_data(ds_iter, manager, checkpoint_step(path))
    finally:
        manager.close()


def continue_data(ds_iter: Any, manager: CheckpointManager, step: int) -> None:
    """Continue a data iterator where that of checkpoint `step` stood.

    Raises:
      CheckpointError: the checkpoint has no place in the data, or one in other data, or of another
        number of processes.
    """
    path = manager.path(step)
    state = manager.restore_json(step, "dataset")
    if state is None:
        if not hasattr(ds_iter, "get_state") or ds_iter.get_state() is None:
            return
        raise CheckpointError(
            f"{path}: has no folder `dataset` with the place in the data, which would start from "
            f"its beginning. Copy the checkpoint again if it had one; otherwise {BEGIN_ANEW}"
        )
    try:
        ds_iter.set_state(state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}/dataset: {error}; or {BEGIN_ANEW}") from error
    run = manager.restore_json(step, "run") or {}
    _check_same_data(ds_iter, run.get(FINGERPRINTS) or {}, path)


def _check_same_data(ds_iter: Any, saved: Mapping[str, str], path: Path) -> None:
    if not saved or not hasattr(ds_iter, "fingerprints"):
        return
    now = ds_iter.fingerprints()
    other = [name for name, digest in saved.items() if now.get(name, digest) != digest]
    if other:
        name = other[0]
        raise CheckpointError(
            f"{path}: task {name!r} reads other examples than those the run was trained on "
            f"(fingerprint {now[name]}, saved {saved[name]}). Give it the data of then; or "
            f"{BEGIN_ANEW}"
        )


def _is_checkpoint(path: Path) -> bool:
    try:
        checkpoint_kind(find_checkpoint(path))
    except CheckpointError:
        return False
    return True
