"""Where metrics go: JSON lines and TensorBoard in the run's folder, one line on the console."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t5x.files import write_text


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
        self._board: Any = None
        if folder is None:
            return
        from tensorboardX import SummaryWriter

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        _drop_after(path, start_step)
        self._file = path.open("a", encoding="utf-8")
        purge = start_step + 1 if start_step else None
        self._board = SummaryWriter(str(folder), purge_step=purge, flush_secs=30)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write scalars of `step`. Values that are not finite are null in JSON."""
        if self._file is None:
            return
        values = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
        line = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def write_text(self, step: int, name: str, text: str) -> None:
        """Write a text to TensorBoard."""
        if self._board is not None:
            self._board.add_text(name, text, step)

    def close(self) -> None:
        """Write what is pending."""
        if self._file is not None:
            self._file.close()
            self._board.close()


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
