"""The skeleton of verbs that run a model: plan, check, prepare, load, then one job after the other.

A verb is a module with `add_parser(verbs)` and `run(args) -> exit status`; `run` calls `run_verb`
with the verb's own functions. Nothing is read or written before every check has passed.
"""

import argparse
import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from musax.commands.console import describe_exception, minutes, report_error, report_warning
from musax.commands.outputs import (
    AUDIO_FORMATS,
    Job,
    Plan,
    check_formats,
    check_overwriting,
    check_places,
)

#: Formats that are made of the notes.
_DERIVED = ("png", *AUDIO_FORMATS)
#: Options whose lower values take less memory.
_MEMORY = ("batch_size", "count", "passes", "sample_rate")
DONE, FAILED, NOT_STARTED = 0, 1, 2
STATUS_HELP = (
    "exit status: 0 all done, 1 some inputs failed (one line each on stderr), 2 nothing was started"
)


def run_verb(
    args: argparse.Namespace,
    task: str | None,
    *,
    model: str = "",
    plan: Callable[[Path | None], Plan],
    work: Callable[[Any, Job], Sequence[str]],
    prepare: Callable[[], None] | None = None,
) -> int:
    """Run a verb on all of its inputs, and return the exit status.

    Args:
      args: parsed options; `quiet` is read.
      task: key of `musax.pretrained.TASKS` that the model must do; None for a verb without a model,
        whose `work` gets None.
      model: name or folder of the model.
      plan: takes the model's folder; checks options, and decides which files are read and written
        without reading any.
      work: does one job with the loaded model: writes its files and returns one sentence for each
        result.
      prepare: reads what all jobs need, such as a prompt or a drum kit.
    """
    from musax import pretrained

    try:
        folder = None if task is None else pretrained.check_task(model, task)
        with _reported_warnings():
            planned = plan(folder)
        check_formats(args, planned)
        check_places(planned)
        if prepare is not None:
            with _reported_warnings():
                prepare()
    except Exception as error:
        report_error(describe_exception(error))
        return NOT_STARTED
    try:
        loaded = None if folder is None else pretrained.load(folder)
        if planned.folder is not None:
            planned.folder.mkdir(exist_ok=True)
    except Exception as error:
        report_error(describe_exception(error, model))
        return NOT_STARTED
    lower = [name for name in _MEMORY if getattr(args, name, 1) != 1]
    smaller = [f"--{name.replace('_', '-')}" for name in lower]
    return run_jobs(planned, lambda job: work(loaded, job), quiet=args.quiet, smaller=smaller)


def run_jobs(
    plan: Plan,
    work: Callable[[Job], Sequence[str]],
    *,
    quiet: bool,
    smaller: Sequence[str] = (),
) -> int:
    """Do every job, whether or not others fail, and return the exit status.

    Args:
      plan: the jobs.
      work: does one job: writes its files and returns one sentence for each result.
      quiet: print errors and warnings alone.
      smaller: options that take less memory with lower values, for messages.
    """
    failures = 0
    for job in plan.jobs:
        try:
            if not plan.overwrite:
                check_overwriting(job)
            started = time.monotonic()
            with _reported_warnings():
                sentences = work(job)
        except Exception as error:
            report_error(describe_exception(error, job.subject, smaller))
            failures += 1
            continue
        if not quiet:
            _report(job, sentences, time.monotonic() - started)
    if failures and len(plan.jobs) > 1:
        report_error(f"{failures} of {len(plan.jobs)} inputs failed")
    return FAILED if failures else DONE


@contextlib.contextmanager
def _reported_warnings() -> Iterator[None]:
    """Print each warning once as a line on stderr, at the end; not if there was an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        report_warning(message)


def _report(job: Job, sentences: Sequence[str], seconds: float) -> None:
    """Print one line for each result; on stderr if the results themselves were printed."""
    subject = f"{job.given}: " if job.given is not None else ""
    if not job.results:
        for sentence in sentences:
            print(f"{subject}{sentence}, {seconds:.1f} s", file=sys.stderr, flush=True)
    for sentence, result in zip(sentences, job.results):
        files = ", ".join(str(path) for path in result.values())
        print(f"{subject}{sentence}, {seconds:.1f} s -> {files}", flush=True)


def save_result(result: Any, files: Mapping[str, Path], **options: Any) -> None:
    """Write a result of `musax.results` in every format of a job.

    Notes and texts come before pictures and audio, which take more memory and may fail: what can
    be written is.

    Raises:
      Exception: the first error of a format, once the others are written.
    """
    failed = None
    for fmt in sorted(files, key=_DERIVED.__contains__):
        try:
            result.save(files[fmt], **options)
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed


def describe_transcription(result: Any, kind: str, more: str = "") -> str:
    """Return one sentence on a transcription whose notes are called `kind`."""
    if result.silent:
        return f"no {kind} (the recording is silent: every sample is 0)"
    return f"{len(result.notes)} {kind} in {minutes(result.seconds)} of audio{more}"
