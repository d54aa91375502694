"""Whole training states with Orbax: asynchronous, written beside and renamed.

    MODEL_DIR/checkpoint_<step>/state/     parameters, optimizer, mutables (the state_dict)
                               /run/       JSON: seed, random keys, anything small of the run
                               /dataset/   JSON: one data iterator state per process
                               /files.json sizes and checksums (see `integrity`)

A run that is killed while saving leaves a folder that Orbax takes for unfinished, and the last
whole checkpoint before it.
"""

import contextlib
import json
import logging
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.folders import read_state
from t5x.checkpoints.integrity import damaged, reading, write_file_list
from t5x.checkpoints.loading import check_tree, latest_checkpoint, place
from t5x.checkpoints.locks import FolderLock, lock_folder, may_delete
from t5x.checkpoints.orbax_arrays import open_arrays
from t5x.checkpoints.retention import Checkpointer
from t5x.checkpoints.steps import all_steps, get_checkpoint_dir, is_pinned_checkpoint
from t5x.files import refusal

Tree = Any
STEP_PREFIX = "checkpoint"
_JSON_NAME = "metadata"  # Orbax's name of the file
#: The way out when the place in the data cannot be taken up.
BEGIN_ANEW = (
    "begin a new run (another MODEL_DIR) from this checkpoint (RestoreCheckpointConfig.path, "
    "restore_dataset=False), which starts the data from its beginning."
)


class CheckpointManager:
    """Saves and restores the checkpoints of one run.

    Args:
      directory: the run's folder, MODEL_DIR.
      keep: which checkpoints are kept: the newest so many (None: all), or a policy.
      save_dtype: dtype of the parameters ("target") on disk; None keeps theirs.
      read_only: never write or delete.

    Raises:
      FolderInUseError: another process writes there.
    """

    def __init__(
        self,
        directory: str | Path,
        keep: int | Checkpointer | None = None,
        save_dtype: Any = None,
        read_only: bool = False,
    ):
        self.directory = Path(directory).absolute()
        self._lock = None if read_only else self._hold()
        self._policy = keep if isinstance(keep, Checkpointer) else Checkpointer(keep=keep)
        self._saving: int | None = None
        self._save_dtype = None if save_dtype is None else jnp.dtype(save_dtype)
        self._manager = None if read_only else self._orbax_manager()

    def _orbax_manager(self) -> Any:
        import orbax.checkpoint as ocp

        _quiet_orbax()
        options = ocp.CheckpointManagerOptions(
            step_prefix=STEP_PREFIX,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            save_root_metadata=False,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._list_files),
        )
        handlers = {
            "state": ocp.PyTreeCheckpointHandler(use_ocdbt=True),
            "run": ocp.JsonCheckpointHandler(),
            "dataset": ocp.JsonCheckpointHandler(),
        }
        return ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def _hold(self) -> FolderLock | None:
        """Make the folder, and keep other processes from writing in it."""
        if jax.process_index():
            return None  # the first process has it for all of the run
        self.directory.mkdir(parents=True, exist_ok=True)
        return lock_folder(
            self.directory,
            "Wait for its end, or end it; for another run choose another folder (MODEL_DIR).",
        )

    def all_steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        if self._manager is None:
            return all_steps(self.directory)
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The newest step, or None."""
        return max(self.all_steps(), default=None)

    def path(self, step: int) -> Path:
        """Return the folder of checkpoint `step`."""
        return self.directory / f"{STEP_PREFIX}_{step}"

    def save(
        self,
        step: int,
        state: Tree,
        run: Mapping[str, Any] | None = None,
        dataset: Mapping[str, Any] | None = None,
    ) -> bool:
        """Start saving; return when the arrays are copied, while files are still written.

        Args:
          step: the number in the folder's name.
          state: a state_dict of arrays.
          run: small JSON values.
          dataset: this process's data iterator state, JSON.

        Returns:
          False when a checkpoint of this step exists already.
        """
        import orbax.checkpoint as ocp

        if self._manager is None:
            raise RuntimeError(
                f"{self.directory} was opened with read_only=True; nothing is saved."
            )
        if step in self.all_steps():
            return False
        self.wait()  # so that only whole checkpoints count as kept
        items = {
            "state": ocp.args.PyTreeSave(state, save_args=self._save_args(state)),
            "run": ocp.args.JsonSave(dict(run or {})),
        }
        if dataset is not None:
            items["dataset"] = ocp.args.JsonSave({"processes": _gather_json(dataset)})
        self._saving = step
        with self._explaining():
            return self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def _list_files(self) -> None:
        """Write the list of files of the checkpoint that Orbax is about to rename."""
        if jax.process_index() == 0:
            for folder in self.directory.glob(
                f"{STEP_PREFIX}_{self._saving}.orbax-checkpoint-tmp*"
            ):
                write_file_list(folder)

    def _reading(self, step: int, part: str) -> contextlib.AbstractContextManager[None]:
        """Check the files of `part`, shared among the processes, before they are read."""
        share = (jax.process_index(), jax.process_count())
        return reading(self.path(step), part, share)

    def _save_args(self, state: Tree) -> Tree:
        import orbax.checkpoint as ocp

        def args(path: tuple[Any, ...], leaf: Any) -> Any:
            cast = self._save_dtype is not None and path[0].key == "target"
            floating = jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
            return ocp.SaveArgs(dtype=self._save_dtype if cast and floating else None)

        return jax.tree_util.tree_map_with_path(args, state)

    def restore(self, step: int, expected: Tree) -> Tree:
        """Restore the state of `step`.

        Args:
          step: one of `all_steps()`.
          expected: a state_dict of `jax.ShapeDtypeStruct`s, with shardings; arrays come in these
            dtypes and on these devices.

        Returns:
          The same tree of arrays.

        Raises:
          CheckpointError: the checkpoint's arrays are not those expected, which the message lists,
            or it is damaged.
        """
        path = self.path(step)
        with self._reading(step, "state"):
            stored = open_arrays(path / "state")
            if stored is not None:
                check_tree(stored.shapes, expected, path)
                return stored.restore(expected)
            state = read_state(path)
            check_tree(state, expected, path)
            return place(state, expected)

    def array_shapes(self, step: int) -> Tree:
        """The state of checkpoint `step`, of which only shapes and dtypes count.

        Raises:
          CheckpointError: they cannot be read.
        """
        path = self.path(step)
        try:
            stored = open_arrays(path / "state")
            return read_state(path) if stored is None else stored.shapes
        except CheckpointError:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise damaged(path, f"state: {error}") from error

    def restore_json(self, step: int, item: str) -> Any:
        """The JSON of `run`, or this process's `dataset` state; None when there is none.

        Raises:
          CheckpointError: the run had another number of processes, so the states do not fit, or
            the checkpoint is damaged.
        """
        folder = self.path(step) / item
        with self._reading(step, item):
            if not folder.is_dir():
                return None
            content = dict(json.loads((folder / _JSON_NAME).read_text(encoding="utf-8")))
            if item != "dataset":
                return content
            states = list(content["processes"])
        if len(states) != jax.process_count():
            raise CheckpointError(
                f"{folder}: data iterator states of {len(states)} processes, but this run has "
                f"{jax.process_count()}. Use as many, or {BEGIN_ANEW}"
            )
        return states[jax.process_index()]

    def wait(self) -> None:
        """Wait until started saves are on disk; raise what went wrong in them.

        Then deletes the checkpoints that the policy does not keep, unless they are pinned.
        """
        if self._manager is None:
            return
        with self._explaining():
            self._manager.wait_until_finished()
        for step in self._policy.superfluous(self.all_steps(), self.directory):
            if not is_pinned_checkpoint(get_checkpoint_dir(self.directory, step)):
                self._delete(step)

    def _delete(self, step: int) -> None:
        """Delete a checkpoint that nobody reads; later, if somebody does."""
        with may_delete(self.path(step)) as free:
            if free or jax.process_count() > 1:  # where all must do the same
                self._manager.delete(step)  # type: ignore[union-attr]

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say what a full or read-only disk means for the run."""
        try:
            yield
        except (OSError, ValueError) as error:
            refused = refusal(error)
            if refused is None:
                raise
            for unfinished in self.directory.glob(f"{STEP_PREFIX}_*.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            full = "No space left" in refused or "uota exceeded" in refused
            what = (
                "no space left on the disk to write a checkpoint"
                if full
                else (f"cannot write a checkpoint: {refused}")
            )
            remedy = "Free some, or keep fewer (SaveCheckpointConfig.keep)" if full else "Mend that"
            raise CheckpointError(
                f"{self.directory}: {what} ({self._whole()}). {remedy}, and start the run again: "
                "it continues from the last whole one."
            ) from error

    def _whole(self) -> str:
        last = latest_checkpoint(self.directory)
        return "none is whole yet" if last is None else f"{last.name} is whole"

    def close(self) -> None:
        """Wait, free the threads, and let others write.

        Raises:
          CheckpointError: the last checkpoint could not be written.
        """
        try:
            with self._explaining():
                if self._manager is not None:
                    self._manager.close()
        finally:
            if self._lock is not None:
                self._lock.close()


def _gather_json(value: Mapping[str, Any]) -> list[Any]:
    """The JSON of every process, in order, on every process."""
    if jax.process_count() == 1:
        return [dict(value)]
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(text.size))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths.ravel())]


def _quiet_orbax() -> None:
    """Keep Orbax from telling every phase of a save, and, besides raising them, its errors."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    absl_logging.get_absl_logger().addFilter(_is_of_others)  # the same filter is added once
    logging.getLogger("asyncio").addFilter(_is_not_refused)
    if not isinstance(sys.unraisablehook, _WithoutLateFiles):
        sys.unraisablehook = _WithoutLateFiles(sys.unraisablehook)


def _is_of_others(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def _is_not_refused(record: logging.LogRecord) -> bool:
    """Whether a log tells of something else than a file of a checkpoint that the disk refused.

    Orbax raises the error of the first such file, and asyncio logs those of all others.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is None or refusal(error) is None:
        return True
    return "orbax" not in "".join(traceback.format_exception(error))


class _WithoutLateFiles:
    """A `sys.unraisablehook` that leaves out what tensorstore cannot say to a save that failed."""

    def __init__(self, hook: Callable[[Any], object]):
        self._hook = hook

    def __call__(self, lost: Any) -> None:
        # A thread of C++ reports a file to the event loop, which the first failure has closed.
        trace = lost.exc_traceback
        caller = None if trace is None else trace.tb_frame.f_code.co_name
        if caller != "call_soon_threadsafe" or str(lost.exc_value) != "Event loop is closed":
            self._hook(lost)
