"""Evaluate checkpoints: `python -m t5x.eval --gin_file=... --gin.EVAL_OUTPUT_DIR=...`.

One checkpoint, the latest of a run, or all of them (`utils.RestoreCheckpointConfig.mode`). In the
output folder:

    inference_eval/<task>/      scores of predictions: metrics.jsonl and TensorBoard
    inference_eval/*.jsonl      what the evaluator's loggers write, such as every prediction
    training_eval/<task>/       the teacher-forced loss, if it is asked for
    eval.<task>.ckpt            the checkpoints that are done; started again, they are left out
"""

if __name__ == "__main__":  # before the imports that take long
    from t5x import interrupts

    interrupts.end_the_process()

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from t5x import command_line, gin_utils, utils
from t5x.checkpoints.loading import checkpoint_step
from t5x.checkpoints.locks import FolderLock, lock_folder
from t5x.files import check_local, write_text
from t5x.inference.states import InferenceStates
from t5x.loggers import Console
from t5x.training.dry_run import describe_inference
from t5x.training.evaluations import Evaluations
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

Metrics = dict[str, dict[str, dict[str, float]]]


def evaluate(
    *,
    model: Any,
    dataset_cfg: utils.DatasetConfig,
    restore_checkpoint_cfg: utils.RestoreCheckpointConfig,
    partitioner: Any,
    output_dir: str,
    inference_evaluator_cls: Callable[..., Any] | None = None,
    training_evaluator_cls: Callable[..., Any] | None = None,
    summarize_config_fn: Callable[..., None] | None = gin_utils.summarize_gin_config,
    train_state_initializer_cls: Callable[..., Any] = utils.TrainStateInitializer,
    train_eval_get_dataset_fn: Callable[..., Any] = utils.get_training_eval_datasets,
    fallback_init_rng: int | None = None,
    use_orbax: bool = True,
    eval_steps: int | None = None,
    dry_run: bool = False,
) -> dict[int, Metrics]:
    """Evaluate every checkpoint that is not done yet, by step.

    Args:
      model: see `t5x.models.BaseModel`.
      dataset_cfg: the data; its features are not packed.
      restore_checkpoint_cfg: which checkpoints.
      partitioner: the mesh and its rules.
      output_dir: folder of the results.
      inference_evaluator_cls: makes the evaluator of predictions; None takes
        `t5x.data.Evaluator`.
      training_evaluator_cls: a `t5x.trainer.Trainer`, which computes the teacher-forced metrics;
        None leaves them out.
      summarize_config_fn: called as f(output_dir, None, step) to record the configuration.
      train_state_initializer_cls: makes the state.
      train_eval_get_dataset_fn: makes the batches of the teacher-forced metrics.
      fallback_init_rng: seed of what a checkpoint lacks, with `fallback_to_scratch`.
      use_orbax: of upstream; the format of a checkpoint is found out.
      eval_steps: batches of the teacher-forced metrics; None takes the whole split.
      dry_run: find the checkpoints, build everything, print it and evaluate nothing.

    Returns:
      step -> "TRAIN_EVAL", "INFER_EVAL" -> task -> metric -> value, of this call.

    Raises:
      CheckpointError: there is no checkpoint, or it does not fit the model.
      FolderInUseError: another process evaluates into this folder.
      GinError: the task has nothing to evaluate, or its vocabulary is not the model's.
    """
    del use_orbax
    check_local(output_dir, "evaluate.output_dir")
    folder = Path(os.path.expanduser(output_dir)).absolute()
    log_folder = folder if jax.process_index() == 0 and not dry_run else None
    partitioner.get_data_layout(dataset_cfg.batch_size)  # raises if the mesh does not divide it
    utils.verify_matching_vocabs(dataset_cfg, model)

    # ------------------------------------------------------------ the evaluator, which knows shapes
    runner = _Runner(partitioner)
    done = DoneCheckpoints(folder / f"eval.{dataset_cfg.name}.ckpt")
    evaluations = Evaluations(
        model,
        runner,
        log_folder,
        done.last_step,
        eval_steps,
        dataset_cfg if training_evaluator_cls is not None else None,
        dataset_cfg,
        train_eval_get_dataset_fn,
        inference_evaluator_cls,
    )
    spec = evaluations.model_feature_spec()
    if not spec:
        raise gin_utils.GinError(
            f"{dataset_cfg.name} has nothing to evaluate: no task with metric_fns has the split "
            f"{dataset_cfg.split!r}."
        )

    # ------------------------------------------------------------ what is to be done
    states = InferenceStates(
        model,
        partitioner,
        spec,
        restore_checkpoint_cfg,
        fallback_init_rng,
        train_state_initializer_cls,
    )
    todo = [path for path in states.paths if path not in done]
    if dry_run:
        shape = states.initializer.global_train_state_shape
        print(describe_inference(shape, partitioner, spec, todo))
        return {}
    console = Console(0, len(todo), quiet=log_folder is None)
    console.say(f"{len(todo)} of {len(states.paths)} checkpoints to evaluate, into {folder}")
    lock = None if log_folder is None else _lock(log_folder)

    # ------------------------------------------------------------ one after the other
    results: dict[int, Metrics] = {}
    try:
        if summarize_config_fn is not None and log_folder is not None:
            summarize_config_fn(str(folder), None, done.last_step)
        for path in todo:
            step = checkpoint_step(path)
            runner.release()
            axes = states.initializer.train_state_axes
            runner.use(states.read(path), training_evaluator_cls, model, axes)
            results[step] = evaluations.run(step, console)
            done.add(path, write=log_folder is not None)
    finally:
        evaluations.close()
        console.close()
        if lock is not None:
            lock.close()
    return results


def _lock(folder: Path) -> FolderLock:
    folder.mkdir(parents=True, exist_ok=True)
    return lock_folder(folder, "Wait for its end, or choose another output_dir (EVAL_OUTPUT_DIR).")


class _Runner:
    """Stands for the trainer in `Evaluations`: the state of the moment, and its metrics."""

    def __init__(self, partitioner: Any):
        self.partitioner = partitioner
        self.train_state: Any = None
        self._trainer: Any = None

    def use(self, state: Any, trainer_cls: Callable[..., Any] | None, model: Any, axes: Any):
        """Take the next state."""
        self.train_state = state
        if trainer_cls is not None and self._trainer is None:
            self._trainer = trainer_cls(
                model=model,
                train_state=state,
                partitioner=self.partitioner,
                eval_names=(),
                summary_dir=None,
                train_state_axes=axes,
                rng=jax.random.PRNGKey(0),
                learning_rate_fn=lambda step: jnp.zeros(()),
            )
        elif self._trainer is not None:
            self._trainer.train_state = state

    def release(self) -> None:
        """Let go of the state, so that its memory is free for the next."""
        self.train_state = None
        if self._trainer is not None:
            self._trainer.train_state = None

    def eval(self, datasets: Any) -> dict[str, dict[str, float]]:
        """The teacher-forced metrics of each data set."""
        return self._trainer.eval(datasets)


class DoneCheckpoints:
    """The list of evaluated checkpoints in a file, one path a line.

    Args:
      file: read if it is there.
    """

    def __init__(self, file: Path):
        self._file = file
        self._paths: list[Path] = []
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            self._paths = [Path(line) for line in lines if line.strip()]

    def __contains__(self, path: Path) -> bool:
        return Path(path).absolute() in self._paths

    @property
    def last_step(self) -> int:
        """The highest step that is done; 0 for none."""
        return max((checkpoint_step(path) for path in self._paths), default=0)

    def add(self, path: Path, write: bool = True) -> None:
        """Remember a checkpoint, on disk too if `write`."""
        self._paths.append(Path(path).absolute())
        if not write:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, "".join(f"{done}\n" for done in self._paths))


# ---------------------------------------------------------------------- command line

_EXAMPLE = """python -m t5x.eval \\
      --gin_file=my_model.gin --gin_file=t5x/configs/runs/eval.gin \\
      --gin.MIXTURE_OR_TASK_NAME=my_task --gin.MIXTURE_OR_TASK_MODULE=my.tasks \\
      --gin.CHECKPOINT_PATH=runs/first/checkpoint_10000 --gin.EVAL_OUTPUT_DIR=runs/first/eval

  all checkpoints of a run: --gin.CHECKPOINT_PATH=runs/first \\
      --gin.utils.RestoreCheckpointConfig.mode=all"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return command_line.run(
        evaluate, argv, program="t5x.eval", description=__doc__, example=_EXAMPLE
    )


if __name__ == "__main__":
    # The module under its own name, so that there is one `evaluate` however gin files import it.
    from t5x.eval import main as _main

    sys.exit(_main())
