"""A run on disk: where it stands, what its seed is, what it starts from, when it saves."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from t5x.checkpoints import CheckpointError, CheckpointManager
from t5x.checkpoints.integrity import damaged
from t5x.checkpoints.loading import (
    check_tree,
    checkpoint_kind,
    find_checkpoint,
)
from t5x.checkpoints.transformations import transform_saved
from t5x.restoring import FINGERPRINTS, checkpoint_paths, continue_data, restore_data
from t5x.utils import CheckpointConfig, DatasetConfig, RestoreCheckpointConfig


class Run:
    """The checkpoints of one run in MODEL_DIR, and the little that is saved beside the state.

    Attributes:
      folder: MODEL_DIR.
      resume_step: step of the latest whole checkpoint in `folder`, or None.
      seed: the run's random seed, once `set_seed` was called.
      first_step: step of the weights when the run began; None before the first restore.
      trained_seconds: time spent training so far, in all processes that continued the run.
      origin: where the state came from, for the log.
    """

    def __init__(self, folder: Path, cfg: CheckpointConfig, manager: CheckpointManager | None):
        self.folder = folder
        self.seed = 0
        self.first_step: int | None = None
        self.origin = ""
        self._cfg = cfg
        self._manager = manager
        self.resume_step = None if manager is None else manager.latest_step()
        self._saved: dict[str, Any] = {}
        self._fingerprints: dict[str, str] = {}
        if manager is not None and self.resume_step is not None:
            saved = manager.restore_json(self.resume_step, "run")
            if saved is None:
                raise damaged(manager.path(self.resume_step), "no folder `run`, with its seed")
            self._saved = saved
            self.first_step = self._saved.get("first_step")
        self.trained_seconds = float(self._saved.get("trained_seconds", 0.0))

    @classmethod
    def open(cls, folder: Path, cfg: CheckpointConfig, read_only: bool = False) -> Self:
        """Open MODEL_DIR; make it unless `read_only`.

        Raises:
          FolderInUseError: another process trains there.
          CheckpointError: it cannot be written or read, or its latest checkpoint is damaged.
        """
        read_only = read_only or cfg.save is None
        try:
            manager = None
            _check_folder(folder)
            if folder.is_dir() or not read_only:
                keep = cfg.save.policy if cfg.save else None
                dtype = cfg.save.dtype if cfg.save else None
                manager = CheckpointManager(folder, keep, dtype, read_only)
        except OSError as error:
            raise CheckpointError(
                f"{folder}: cannot be used as MODEL_DIR ({error.strerror or error}). Choose "
                "another folder, or mend this one; nothing was changed."
            ) from error
        try:
            return cls(folder, cfg, manager)
        except BaseException:
            if manager is not None:
                manager.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------ randomness

    def set_seed(self, seed: int | None) -> None:
        """Take `seed`, else the saved one, else a new one that all processes share."""
        chosen = self._saved.get("seed") if seed is None else seed
        self.seed = _shared_random_seed() if chosen is None else int(chosen)

    def keys(self) -> tuple[jax.Array, jax.Array]:
        """(key of initialization, base key of training steps)."""
        init_rng, trainer_rng = jax.random.split(jax.random.PRNGKey(self.seed))
        saved = self._saved.get("rng")
        if saved and self._saved.get("seed") == self.seed and len(saved) == trainer_rng.size:
            trainer_rng = jax.numpy.asarray(saved, trainer_rng.dtype)
        self._rng = np.asarray(trainer_rng).tolist()
        return init_rng, trainer_rng

    def seeded(self, cfg: DatasetConfig) -> DatasetConfig:
        """`cfg` with the run's seed where it has none."""
        return dataclasses.replace(cfg, seed=self.seed) if cfg.seed is None else cfg

    # ------------------------------------------------------------------ reading

    def restore_data(self, batches: Iterator[Any]) -> None:
        """Put the data iterator where the run, or the one it starts from, stood.

        Raises:
          CheckpointError: it stood in other data, or its place was not saved.
        """
        manager, step = self._manager, self.resume_step
        self._fingerprints = batches.fingerprints() if hasattr(batches, "fingerprints") else {}
        restore = self._cfg.restore
        if step is None and restore and restore.restore_dataset and restore.path:
            restore_data(batches, checkpoint_paths(restore.path, restore.mode)[-1])
            return
        if manager is not None and step is not None:
            continue_data(batches, manager, step)

    def restore_or_create(self, initializer: Any, rng: jax.Array) -> Any:
        """The run's own latest state, else that of the restore configuration, else a new one.

        Raises:
          CheckpointError: a checkpoint does not fit the model, or is absent.
        """
        if self._manager is not None and self.resume_step is not None:
            self.origin = f"resumed from {self.folder}/checkpoint_{self.resume_step}"
            return initializer.from_manager(self._manager, self.resume_step)
        restore = self._cfg.restore
        path, why = (None, "") if restore is None else _initial_checkpoint(restore)
        if restore is None or path is None:
            self.origin = f"initialized with seed {self.seed}{why}"
            return initializer.from_scratch(rng)
        self.origin = f"restored from {path}"
        return initializer.from_config(restore, path, rng)

    def start(self, expected: Any) -> str:
        """Say what the run would start from, without reading its arrays.

        Args:
          expected: the model's state_dict of `jax.ShapeDtypeStruct`s; a run that would resume is
            compared with it.

        Raises:
          CheckpointError: a checkpoint is absent, or the run's own does not fit.
        """
        if self._manager is not None and self.resume_step is not None:
            where = f"{self.folder}/checkpoint_{self.resume_step}"
            check_tree(self._manager.array_shapes(self.resume_step), expected, where)
            return f"{where}, which this run resumes"
        restore = self._cfg.restore
        path, why = (None, "") if restore is None else _initial_checkpoint(restore)
        return f"a new initialization{why}" if path is None else str(path)

    # ------------------------------------------------------------------ writing

    def is_save_step(self, step: int) -> bool:
        """Does the configuration ask for a checkpoint after `step`?"""
        save = self._cfg.save
        if save is None:
            return False
        periodic = save.period is not None and step % save.period == 0
        return periodic or step in (save.checkpoint_steps or ())

    def save(self, step: int, train_state: Any, batches: Any) -> bool:
        """Start writing checkpoint `step`; False if it exists or nothing is to be saved."""
        if self._cfg.save is None or self._manager is None:
            return False
        run = {
            "seed": self.seed,
            "rng": self._rng,
            "first_step": self.first_step,
            "trained_seconds": self.trained_seconds,
            FINGERPRINTS: self._fingerprints,
        }
        state = train_state.state_dict()
        state = transform_saved(state, self._cfg.save.state_transformation_fns)
        return self._manager.save(step, state, run, batches.get_state())

    def last_checkpoint(self) -> str:
        """Say which checkpoint is the last whole one."""
        step = None if self._manager is None else self._manager.latest_step()
        return "no checkpoint was saved" if step is None else f"checkpoint_{step} is the last one"

    def wait(self) -> None:
        """Wait until checkpoints are whole; raise what went wrong in writing them."""
        if self._manager is not None:
            self._manager.wait()

    def close(self) -> None:
        """Wait, free the threads that write, and let other processes have the folder."""
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.close()


def _check_folder(folder: Path) -> None:
    """Raise OSError unless `folder` can be listed, or made."""
    try:
        os.listdir(folder)
    except FileNotFoundError:
        if folder.is_symlink():
            raise


def _shared_random_seed() -> int:
    """A seed from the clock of the first process."""
    seed = np.asarray(time.time_ns() % 2**31, np.int32)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        seed = multihost_utils.broadcast_one_to_all(seed)
    return int(seed)


def _initial_checkpoint(cfg: RestoreCheckpointConfig) -> tuple[Path | None, str]:
    """(the one checkpoint of `cfg`, ""), or (None, why it cannot be read, if one was named)."""
    if not cfg.path:
        return None, ""
    try:
        paths = [find_checkpoint(p) for p in checkpoint_paths(cfg.path, cfg.mode)]
        checkpoint_kind(paths[-1])
    except CheckpointError as error:
        if not cfg.fallback_to_scratch:
            raise
        return None, f" ({error})"
    if len(paths) > 1:
        raise CheckpointError(f"Training starts from one checkpoint, got {len(paths)}: {paths}")
    return paths[0], ""
