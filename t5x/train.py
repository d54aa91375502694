"""Train a model: `python -m t5x.train --gin_file=... --gin.MODEL_DIR=...`.

`train` reads top to bottom: seed, data, state, loop, end. Everything of a run lies in MODEL_DIR:
`checkpoint_<step>/`, `config.gin`, and metrics in `train/`, `training_eval/<task>/` and
`inference_eval/`. Started again, a run continues where it stood, with the same examples in the same
order. SIGTERM or Ctrl-C saves and ends with exit status 0; before the first step, when there is
nothing to save, with 128 and the signal's number.
"""

if __name__ == "__main__":  # before the imports that take long
    from t5x import interrupts

    interrupts.end_the_process()

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from t5x import command_line, gin_utils, utils
from t5x.data.prefetch import Prefetcher
from t5x.files import check_local
from t5x.loggers import Console, MetricWriter
from t5x.partitioning import BasePartitioner
from t5x.trainer import Trainer
from t5x.training.actions import MODES, BaseAction
from t5x.training.dry_run import describe_run
from t5x.training.evaluations import Evaluations
from t5x.training.loop import Loop
from t5x.training.preemption import prompt_end
from t5x.training.profiling import Profiler
from t5x.training.run import Run
from t5x.training.stats import Stats

_STATS_PERIOD = 100


def train(
    *,
    model: Any,
    train_dataset_cfg: utils.DatasetConfig,
    train_eval_dataset_cfg: utils.DatasetConfig | None = None,
    infer_eval_dataset_cfg: utils.DatasetConfig | None = None,
    checkpoint_cfg: utils.CheckpointConfig,
    partitioner: BasePartitioner,
    trainer_cls: Callable[..., Trainer],
    model_dir: str,
    total_steps: int,
    eval_steps: int | None = None,
    eval_period: int = 1000,
    relative_steps: int | None = None,
    stats_period: int | None = None,
    random_seed: int | None = None,
    use_hardware_rng: bool = False,
    summarize_config_fn: Callable[..., None] | None = gin_utils.summarize_gin_config,
    inference_evaluator_cls: Callable[..., Any] | None = None,
    get_dataset_fn: Callable[..., Any] = utils.get_dataset,
    concurrent_metrics: bool = True,
    actions: Mapping[str, Sequence[BaseAction]] | None = None,
    train_eval_get_dataset_fn: Callable[..., Any] = utils.get_training_eval_datasets,
    run_eval_before_training: bool = False,
    train_state_initializer_cls: Callable[..., Any] = utils.TrainStateInitializer,
    use_orbax: bool = True,
    verify_matching_vocabs_fn: Callable[..., None] | None = utils.verify_matching_vocabs,
    gc_period: int = 0,
    profile_steps: Sequence[int] | None = None,
    end_when_diverged: bool = True,
    dry_run: bool = False,
) -> tuple[int, Any]:
    """Train to `total_steps`, from where MODEL_DIR stands.

    Args:
      model: see `t5x.models.BaseModel`.
      train_dataset_cfg: the training data.
      train_eval_dataset_cfg: data of the teacher-forced evaluation; None leaves it out.
      infer_eval_dataset_cfg: data whose predictions are scored; None leaves it out.
      checkpoint_cfg: when to save, and what a new run starts from.
      partitioner: the mesh and its rules.
      trainer_cls: makes the `Trainer`.
      model_dir: the run's folder.
      total_steps: step to end at, counted from the first step of the weights.
      eval_steps: batches of each teacher-forced evaluation; None evaluates the whole split.
      eval_period: steps between evaluations; 0 never evaluates.
      relative_steps: end this many steps after the run's first step instead of at total_steps.
      stats_period: steps between reports; None means 100, or eval_period if that is less.
      random_seed: of initialization, dropout and, where a dataset gives none, data. None draws one
        and keeps it with the checkpoints.
      use_hardware_rng: faster random numbers that differ between kinds of devices.
      summarize_config_fn: called as f(model_dir, writer, step) to record the configuration.
      inference_evaluator_cls: makes the evaluator of predictions; None takes `t5x.data.Evaluator`.
      get_dataset_fn: makes the training batches.
      concurrent_metrics: of upstream, without effect: evaluations end before training goes on.
      actions: mode (TRAIN, TRAIN_EVAL, INFER_EVAL) -> what may end the run by its metrics.
      train_eval_get_dataset_fn: makes the batches of the teacher-forced evaluation.
      run_eval_before_training: evaluate also before the first step of this process.
      train_state_initializer_cls: makes or restores the state.
      use_orbax: of upstream; checkpoints are always written with Orbax.
      verify_matching_vocabs_fn: called as f(train_dataset_cfg, model) to check the vocabularies.
      gc_period: collect garbage only every so many steps; 0 leaves it to Python.
      profile_steps: (first, last) step, counted from the start of this process, whose trace goes
        to MODEL_DIR/profile, for TensorBoard or Perfetto.
      end_when_diverged: raise TrainingError, and save nothing more, once a state is NaN or
        infinite. False trains on; such states are not saved either.
      dry_run: build everything, print it, and train nothing.

    Returns:
      (step reached, train state).

    Raises:
      ValueError: something in the configuration does not fit; the message says what.
      TrainingError: the run cannot go on; the message says from where it can be continued.
    """
    del concurrent_metrics, use_orbax
    start_time = time.perf_counter()
    _check_actions(actions)
    utils.check_count("train.total_steps", total_steps)
    utils.check_count("train.relative_steps", relative_steps)
    utils.check_count("train.eval_steps", eval_steps)
    utils.check_count("train.eval_period", eval_period)
    utils.check_count("train.stats_period", stats_period)
    if use_hardware_rng:
        utils.set_hardware_rng_ops()
    check_local(model_dir, "train.model_dir")
    folder = Path(os.path.expanduser(model_dir)).absolute()
    log_folder = folder if jax.process_index() == 0 else None

    # ------------------------------------------------------------ where the run stands, its seed
    with prompt_end(), Run.open(folder, checkpoint_cfg, read_only=dry_run) as run:
        run.set_seed(random_seed)
        init_rng, trainer_rng = run.keys()

        # ------------------------------------------------------------ data
        if verify_matching_vocabs_fn is not None:
            verify_matching_vocabs_fn(train_dataset_cfg, model)
        layout = partitioner.get_data_layout(train_dataset_cfg.batch_size)
        host_batches = get_dataset_fn(
            run.seeded(train_dataset_cfg),
            layout.shard_id,
            layout.num_shards,
            model.FEATURE_CONVERTER_CLS,
        )
        run.restore_data(host_batches)
        batch_spec = global_batch_spec(host_batches, layout.num_shards)

        # ------------------------------------------------------------ state and trainer
        initializer = train_state_initializer_cls(
            optimizer_def=model.optimizer_def,
            init_fn=model.get_initial_variables,
            input_shapes={name: x.shape for name, x in batch_spec.items()},
            input_types={name: x.dtype for name, x in batch_spec.items()},
            partitioner=partitioner,
            model=model,
        )
        if dry_run:
            train_state = initializer.global_train_state_shape
        else:
            train_state = run.restore_or_create(initializer, init_rng)
        trainer = trainer_cls(
            model=model,
            train_state=train_state,
            partitioner=partitioner,
            eval_names=(),
            summary_dir=str(folder),
            train_state_axes=initializer.train_state_axes,
            rng=trainer_rng,
        )
        del train_state  # the trainer gives its memory to the next state

        # ------------------------------------------------------------ evaluation and logs
        first = 0 if dry_run else int(trainer.train_state.step)
        evaluations = Evaluations(
            model,
            trainer,
            None if dry_run else log_folder,
            first,
            eval_steps,
            train_eval_dataset_cfg and run.seeded(train_eval_dataset_cfg),
            infer_eval_dataset_cfg and run.seeded(infer_eval_dataset_cfg),
            train_eval_get_dataset_fn,
            inference_evaluator_cls,
        )
        if dry_run:
            start = run.start(initializer.expected)
            host_batches.close()
            return _dry_run(trainer, batch_spec, total_steps, start)

        run.first_step = first if run.first_step is None else run.first_step
        if relative_steps is not None:
            total_steps = run.first_step + relative_steps
        console = Console(first, total_steps, quiet=log_folder is None)
        writer = MetricWriter(log_folder and log_folder / "train", first)
        if summarize_config_fn is not None and log_folder is not None:
            summarize_config_fn(str(folder), writer, first)
        console.say(f"{run.origin}; training from step {first} to {total_steps} in {folder}")
        if infer_eval_dataset_cfg is not None and not evaluations.predicts:
            console.say(
                f"  no inference_eval: no task of {infer_eval_dataset_cfg.name} with metric_fns "
                f"has the split {infer_eval_dataset_cfg.split!r}"
            )

        # ------------------------------------------------------------ loop
        depth = max(2, getattr(host_batches, "lookahead", 1))
        batches = Prefetcher(host_batches, depth, partitioner.shard_batch)
        profiler = Profiler(folder / "profile", profile_steps, first)
        if not profiler.begins_before(total_steps):
            console.say(f"  no profile: its steps, counted from {first}, come after the last one")
        stats = Stats(
            trainer, batches, train_dataset_cfg.batch_size, first, start_time, run.trained_seconds
        )
        loop = Loop(
            run=run,
            trainer=trainer,
            batches=batches,
            stats=stats,
            evaluations=evaluations,
            writer=writer,
            console=console,
            profiler=profiler,
            actions=actions or {},
            total_steps=total_steps,
            eval_period=eval_period,
            stats_period=stats_period or min(_STATS_PERIOD, eval_period or _STATS_PERIOD),
            gc_period=gc_period,
            end_when_diverged=end_when_diverged,
        )
        step = loop.train(first, evaluate_first=run_eval_before_training)
        return step, trainer.train_state


def global_batch_spec(batches: Any, num_shards: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a global batch; `batches` gives `element_spec` of one shard's."""
    return {
        name: jax.ShapeDtypeStruct((shape[0] * num_shards, *shape[1:]), dtype)
        for name, (shape, dtype) in batches.element_spec.items()
    }


def _check_actions(actions: Mapping[str, Any] | None) -> None:
    unknown = sorted(set(actions or ()) - set(MODES))
    if unknown:
        raise ValueError(f"train.actions has modes {unknown}, expected some of {MODES}.")


def _dry_run(
    trainer: Trainer,
    batch_spec: Mapping[str, jax.ShapeDtypeStruct],
    total_steps: int,
    start: str,
) -> tuple[int, Any]:
    """Trace one step, which finds what does not fit, and print the run."""
    with trainer.partitioner.activate():
        jax.eval_shape(trainer.train_step, trainer.train_state, dict(batch_spec))
    print(
        describe_run(
            trainer.train_state,
            trainer.partitioner,
            batch_spec,
            trainer.learning_rate_fn,
            total_steps,
            start,
        )
    )
    return 0, trainer.train_state


# ---------------------------------------------------------------------- command line

_EXAMPLE = """python -m t5x.train \\
      --gin_file=my_model.gin --gin_file=t5x/configs/runs/pretrain.gin \\
      --gin.MIXTURE_OR_TASK_NAME=my_task --gin.MIXTURE_OR_TASK_MODULE=my.tasks \\
      --gin.TASK_FEATURE_LENGTHS="{'inputs': 512, 'targets': 114}" \\
      --gin.TRAIN_STEPS=10000 --gin.MODEL_DIR=runs/first [--dry_run]"""


def main(
    argv: Sequence[str] | None = None, command: str | None = None, example: str = _EXAMPLE
) -> int:
    """Run the command line; return the exit status.

    Args:
      argv: the arguments; None takes the process's.
      command: the command that `--help` names; None for `python -m t5x.train`.
      example: a whole command line, shown by `--help`.
    """
    description = (__doc__ or "").replace("python -m t5x.train", command or "python -m t5x.train")
    return command_line.run(
        train,
        argv,
        program="t5x.train",
        description=description,
        example=example,
        command=command,
    )


if __name__ == "__main__":
    # The module under its own name, so that there is one `train` whichever way gin files import it.
    from t5x.train import main as _main

    sys.exit(_main())
