"""What the entry points share: flags, start-up, and how a mistake is told.

    python -m t5x.train --gin_file=t5x/configs/runs/pretrain.gin --gin.TRAIN_STEPS=100 ...

`run` parses the flags, joins the processes of a run, tells seqio its folders, reads the gin
configuration and calls the function that it configures.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from t5x import gin_utils
from t5x.extras import how_to_install
from t5x.files import refusal
from t5x.mistakes import explanation_of, without_gin_calls
from t5x.training.errors import TrainingError
from t5x.training.preemption import Interrupted, prompt_end

STATUS_OK, STATUS_FAILED, STATUS_MISTAKE = 0, 1, 2


def make_parser(
    entry: Callable[..., Any],
    program: str,
    description: str | None,
    example: str,
    command: str | None = None,
) -> argparse.ArgumentParser:
    """A parser with the flags of every entry point.

    Args:
      entry: the function that gin configures.
      program: its name on the command line, such as `t5x.train`.
      description: the module's docstring.
      example: a whole command line, shown by `--help`.
      command: the command that usage lines name; None for `python -m <program>`.
    """
    parser = argparse.ArgumentParser(
        prog=command or f"python -m {program}",
        description=description,
        epilog=f"example:\n  {example}\n\nThe configured function is {program}.{entry.__name__}; "
        "its docstring explains every argument.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    gin_utils.add_flags(parser)
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="build everything, print parameters, shardings and batch shapes, then stop",
    )
    _add_seqio_flags(parser)
    _add_process_flags(parser)
    return parser


def _add_seqio_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("seqio tasks")
    group.add_argument("--tfds_data_dir", metavar="FOLDER", help="folder of TFDS datasets")
    group.add_argument(
        "--seqio_additional_cache_dirs",
        default="",
        metavar="FOLDERS",
        help="comma-separated folders of cached tasks",
    )


def _add_process_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several processes (run the same command in each)")
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--process_count", type=int, metavar="N", help="number of processes")
    group.add_argument(
        "--process_index", type=int, metavar="I", help="number of this process, counted from 0"
    )
    group.add_argument(
        "--multiprocess_gpu",
        action="store_true",
        help="one process per GPU, started by a scheduler such as Slurm",
    )
    group.add_argument(
        "--initialization_timeout",
        type=int,
        default=300,
        metavar="S",
        help="seconds to wait for all processes to join",
    )


def start_processes(args: argparse.Namespace) -> None:
    """Join the processes of a run, if the flags name several.

    Raises:
      GinError: flags that do not go together.
    """
    given = [args.coordinator_address, args.process_count, args.process_index]
    if not (args.coordinator_address or args.multiprocess_gpu):
        if any(value is not None for value in given):
            raise gin_utils.GinError(
                "--process_count and --process_index go with --coordinator_address=HOST:PORT of "
                "process 0."
            )
        return
    if args.process_index is not None and not 0 <= args.process_index < (args.process_count or 0):
        raise gin_utils.GinError(
            f"--process_index={args.process_index} must be below "
            f"--process_count={args.process_count}; processes are counted from 0."
        )
    import jax

    try:
        jax.distributed.initialize(
            args.coordinator_address,
            args.process_count,
            args.process_index,
            initialization_timeout=args.initialization_timeout,
        )
    except ValueError as error:  # the cluster's environment does not say what the flags leave out
        raise gin_utils.GinError(
            f"{error} JAX found no cluster; give --coordinator_address=HOST:PORT of process "
            "0, --process_count and --process_index."
        ) from error


def set_seqio_folders(args: argparse.Namespace) -> None:
    """Tell the tasks here and seqio where data and caches are, if a flag says so.

    Raises:
      GinError: seqio is not installed, which alone has a use for --tfds_data_dir.
    """
    cache_dirs = [f for f in args.seqio_additional_cache_dirs.split(",") if f]
    if cache_dirs:
        from t5x.data.caching import add_cache_dirs

        add_cache_dirs(cache_dirs)
    if not (args.tfds_data_dir or cache_dirs):
        return
    try:
        import seqio
    except ImportError as error:
        if not args.tfds_data_dir:
            return
        raise gin_utils.GinError(
            f"--tfds_data_dir is for tasks of seqio, which is not installed ({error}): "
            f"{how_to_install('seqio')}."
        ) from error
    if args.tfds_data_dir:
        seqio.set_tfds_data_dir_override(args.tfds_data_dir)
    seqio.add_global_cache_dirs(cache_dirs)


def run(
    entry: Callable[..., Any],
    argv: Sequence[str] | None,
    *,
    program: str,
    description: str | None,
    example: str,
    command: str | None = None,
    add_flags: Callable[[argparse.ArgumentParser], None] | None = None,
    arguments: Callable[[argparse.Namespace], Mapping[str, Any]] | None = None,
) -> int:
    """Run an entry point's command line.

    Args:
      entry: the function that gin configures; it takes `dry_run`.
      argv: the arguments; None takes the process's.
      program: as in `make_parser`.
      description: as in `make_parser`.
      example: as in `make_parser`.
      command: as in `make_parser`.
      add_flags: adds the entry point's own flags to the parser.
      arguments: arguments of `entry` that those flags override.

    Returns:
      The exit status: 0; 1 for a run that could not go on; 2 for a mistake in flags, configuration,
      data, checkpoint or mesh; 128 and the number of a signal that ended it. All are told without a
      traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = make_parser(entry, program, description, example, command)
    if add_flags is not None:
        add_flags(parser)
    try:
        with prompt_end():
            args = parser.parse_args(gin_utils.rewrite_gin_args(argv))
            if not (args.gin_file or args.gin_bindings):
                parser.error("nothing is configured: give --gin_file=FILE; for help: --help")
            start_processes(args)
            set_seqio_folders(args)
            configured = gin_utils.parse_flags(args, entry)
            overrides = dict(arguments(args)) if arguments is not None else {}
            if args.dry_run:
                overrides["dry_run"] = True
            _call(configured, overrides)
    except Interrupted as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.status
    except TrainingError as error:
        print(f"{program}: {without_gin_calls(error)}", file=sys.stderr)
        return STATUS_FAILED
    except _mistakes() as error:
        print(f"{program}: {without_gin_calls(error)}", file=sys.stderr)
        return STATUS_MISTAKE
    except Exception as error:
        if isinstance(error, OSError) and (refused := refusal(error)) is not None:
            print(
                f"{program}: {refused}. Nothing is half-written; once the disk takes it, the same "
                "command goes on from there.",
                file=sys.stderr,
            )
            return STATUS_FAILED
        explained = explanation_of(error)
        if explained is None:
            raise
        print(f"{program}: {explained}", file=sys.stderr)
        return STATUS_MISTAKE
    return STATUS_OK


def _call(configured: Callable[..., Any], overrides: Mapping[str, Any]) -> None:
    import jax

    from t5x.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    configured(**overrides)
    jax.effects_barrier()


def _mistakes() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend, and whose message says how."""
    from t5x.checkpoints import CheckpointError
    from t5x.partitioning import PartitioningError

    return (gin_utils.GinError, CheckpointError, PartitioningError)
