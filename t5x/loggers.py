"""Where metrics go: JSON lines and TensorBoard in the run's folder, one line on the console."""

import contextlib
import json
import math
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t5x.files import named, write_text


class MetricWriter:
    """Writes the metrics of one part of a run, such as `train`.

    `folder/metrics.jsonl` has one line per call, {"step", "time", name: value, ...}, flushed at
    once, so a run that is killed loses none; TensorBoard files lie beside it. After a resume, lines
    beyond the restored step are dropped, so the steps of the file ascend.

    Args:
      folder: made if absent; None writes nothing (on all processes but the first).
      start_step: the step that the run continues from.
    """

    def __init__(self, folder: str | Path | None, start_step: int = 0):
        self._file: Any = None
        self._board: _Board | None = None
        if folder is None:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        _drop_after(self._path, start_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _Board(folder, start_step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write scalars of `step`. Values that are not finite are null in JSON.

        Raises:
          OSError: the disk refuses; names the file.
        """
        if self._file is None or self._board is None:
            return
        values = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
        line = {"step": step, "time": round(time.time(), 3), **values}
        with named(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        self._board.scalars(step, metrics)

    def write_text(self, step: int, name: str, text: str) -> None:
        """Write a text to TensorBoard."""
        if self._board is not None:
            self._board.text(step, name, text)

    def close(self) -> None:
        """Write what is pending."""
        file, board = self._file, self._board
        self._file = self._board = None
        if file is not None and board is not None:
            with contextlib.closing(board), named(self._path):
                file.close()


class _Board:
    """A file of TensorBoard, written at once: what the disk refuses is known where it happens.

    Args:
      folder: where.
      start_step: events after this step, of files before, are to be forgotten.

    Raises:
      OSError: as all methods, the disk refuses; names the file.
    """

    def __init__(self, folder: Path, start_step: int):
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self._path = folder / name
        with named(self._path):
            self._writer: Any = RecordWriter(str(self._path))
        self._event = Event
        self._write(file_version="brain.Event:2")
        if start_step:
            log = SessionLog(status=SessionLog.START)
            self._write(step=start_step + 1, session_log=log)

    def scalars(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX import summary

        for name, value in metrics.items():
            self._write(step=step, summary=summary.scalar(name, value))

    def text(self, step: int, name: str, text: str) -> None:
        from tensorboardX import summary

        self._write(step=step, summary=summary.text(name, text))

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        with named(self._path):
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def close(self) -> None:
        with named(self._path):
            self._writer.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The whole lines of a `metrics.jsonl`; one cut off by a kill, or damaged, is left out."""
    lines = []
    for text in Path(path).read_bytes().split(b"\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            lines.append(line)
    return lines


def _drop_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = [json.dumps(line) for line in read_metrics(path) if line["step"] <= step]
    write_text(path, "".join(line + "\n" for line in kept))


def format_duration(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Console:
    """Progress on the terminal: a live bar if it is one, and one line per logging period.

    Args:
      start: first step of this process.
      total: last step.
      quiet: show nothing (on all processes but the first).
    """

    def __init__(self, start: int, total: int, quiet: bool = False):
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = RichConsole(quiet=quiet, highlight=False, soft_wrap=True)
        self._total = total
        self._clock: tuple[float, int] | None = None
        self._bar: Any = None
        if self._console.is_terminal and not quiet:
            columns = (
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, refresh_per_second=2)
            self._task = self._bar.add_task("train", total=total, completed=start)
            self._bar.start()

    def step(self, step: int) -> None:
        """Say that `step` has started; the pace counts from the first, which compiles."""
        if self._clock is None:
            self._clock = (time.perf_counter(), step)
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the line of a logging period, with the time left at this process's pace."""
        clock, start = self._clock or (time.perf_counter(), step)
        pace = (time.perf_counter() - clock) / max(step - start, 1)
        shown = [f"step {step}/{self._total}"]
        for name, label, spec in _SHOWN:
            if name in metrics:
                shown.append(f"{label} {metrics[name]:{spec}}")
        shown.append(f"ETA {format_duration(pace * (self._total - step))}")
        self.say("  ".join(shown))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


_SHOWN = (
    ("loss", "loss", ".4g"),
    ("accuracy", "acc", ".4f"),
    ("learning_rate", "lr", ".3g"),
    ("timing/steps_per_second", "steps/s", ".3g"),
    ("timing/target_tokens_per_second", "tok/s", ".0f"),
    ("timing/data_wait_fraction", "data wait", ".1%"),
    ("timing/mfu", "MFU", ".1%"),
)
