"""Runs benchmarks: `python -m benchmarks [NAME ...] [--json PATH] [--tiny]`."""

import argparse
import importlib
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row, UnavailableError, save_rows

NAMES = (
    "imports",
    "tokenisation",
    "log_mel",
    "decoding",
    "transcription",
    "drums",
    "training",
    "t5",
    "perceiver_ar",
    "cdcd",
    "data_pipeline",
)
MIN_WIDTH = 150  # of the table, whatever the terminal says


def run(names: Sequence[str], tiny: bool = False) -> dict[str, list[Row] | str]:
    """Rows by benchmark, or why there are none."""
    results = {}
    for name in names:
        Console(stderr=True).print(f"[dim]{name} ...[/dim]")
        try:
            results[name] = importlib.import_module(f"benchmarks.{name}").measure(tiny=tiny)
        except UnavailableError as error:
            results[name] = str(error)
    return results


def make_table(results: dict[str, list[Row] | str]) -> Table:
    """One line a comparison; ratios above 1 mean that musax is ahead."""
    table = Table(title="musax beside others, in one run", title_justify="left")
    for column in ("Benchmark", "Case", "Compared with"):
        table.add_column(column)
    for column in ("musax", "other", "Ratio", "Goal"):
        table.add_column(column, justify="right")
    for name, rows in results.items():
        if isinstance(rows, str):
            table.add_row(name, f"not run: {rows}", "", "", "", "", "")
            continue
        for row in rows:
            figures = (f"{x:,.4g} {row.unit}" for x in (row.ours, row.reference))
            ratio = f"{row.ratio:.3g}x"
            table.add_row(name, row.case, row.reference_name, *figures, ratio, row.goal_text)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmarks that the command line names, all without names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", default="out/benchmarks.json", metavar="PATH")
    parser.add_argument("--tiny", action="store_true", help="small sizes: the figures mean nothing")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    results = run(args.names or NAMES, args.tiny)
    save_rows(args.json, results)
    Console(width=max(Console().width, MIN_WIDTH)).print(make_table(results))


if __name__ == "__main__":
    main()
