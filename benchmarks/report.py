"""Tables of figures: printed, and written into README.md between markers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from musax.tables import Table
from t5x.files import write_json, write_text

README = Path(__file__).parent / "README.md"
Results = Mapping[str, Sequence[Row] | str]


def make_table(rows: Sequence[Row], title: str = "") -> Table:
    """Return one line for each row; columns of upstream and goals only where there are any."""
    columns = ["Case", "Measure", "musax"]
    columns += ["upstream"] if any(row.upstream is not None for row in rows) else []
    columns += ["goal", ""] if any(row.goal is not None for row in rows) else []
    cells = [_cells(row) for row in rows]
    return Table(title, [{name: line[name] for name in columns} for line in cells])


def _cells(row: Row) -> dict[str, Any]:
    met = {None: "", True: "met", False: "MISSED"}[row.goal_met]
    sign = "≤" if row.at_most else "≥"
    return {
        "Case": row.case,
        "Measure": row.measure,
        "musax": _number(row.figure),
        "upstream": "" if row.upstream is None else _number(row.upstream),
        "goal": "" if row.goal is None else f"{sign} {_number(row.goal)}",
        "": met,
    }


def _number(x: float) -> str:
    """Return three digits, two of what is below 1: more would be noise."""
    return f"{x:.2f}" if abs(x) < 10 else f"{x:,.{1 if abs(x) < 100 else 0}f}"


def to_text(results: Results) -> str:
    """Return the tables of all benchmarks; a line says why one has none."""
    return "\n\n".join(
        f"{name}: not run, {rows}" if isinstance(rows, str) else make_table(rows, name).to_text()
        for name, rows in results.items()
    )


def write_tables(results: Results, path: Path = README) -> None:
    """Replace the tables of the benchmarks that were run; all else stays.

    The table of a benchmark stands between the lines `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises:
      ValueError: a marker is missing; then nothing is written.
    """
    text = path.read_text()
    for name, rows in results.items():
        if not isinstance(rows, str):
            text = _replaced(text, name, make_table(rows).to_markdown(), path)
    write_text(path, text)


def _replaced(text: str, name: str, table: str, path: Path) -> str:
    begin, end = (f"<!-- {side} {name} -->\n" for side in ("begin", "end"))
    if not text.count(begin) == text.count(end) == 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"{path}: the table of {name} needs the lines {begin.strip()} and {end.strip()}, once "
            "each and in this order; add them where it is to stand."
        )
    before, rest = text.split(begin)
    return f"{before}{begin}{table}\n{end}{rest.split(end)[1]}"


def save_json(path: str | Path, results: Results) -> None:
    """Write results by benchmark as JSON; a string says why there are none."""
    content = {
        "format": 2,
        "machine": {"cores": os.cpu_count(), "load": list(os.getloadavg())},
        "benchmarks": {
            name: {"unavailable": rows} if isinstance(rows, str) else [r.to_json() for r in rows]
            for name, rows in results.items()
        },
    }
    write_json(path, content)
