"""Run benchmarks: `python -m benchmarks [NAME ...] [--json PATH] [--tiny]`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Row, UnavailableError, save_rows
from musax.tables import Table

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


def run(names: Sequence[str], tiny: bool = False) -> dict[str, list[Row] | str]:
    """Return the rows of each benchmark, or the reason why it has none."""
    results = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            results[name] = importlib.import_module(f"benchmarks.{name}").measure(tiny=tiny)
        except UnavailableError as error:
            results[name] = str(error)
    return results


def make_table(results: dict[str, list[Row] | str]) -> Table:
    """Return one row for each comparison; ratios above 1 mean that musax is ahead."""
    rows: list[dict[str, Any]] = []
    for name, found in results.items():
        if isinstance(found, str):
            rows.append({"Benchmark": name, "Case": f"not run: {found}"})
        else:
            rows += [{"Benchmark": name, **row.to_table()} for row in found]
    return Table("musax beside others, in one run", rows, {"Ratio": lambda x: f"{x:.3g}x"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line names, or all."""
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
    print(make_table(results).to_text())


if __name__ == "__main__":
    main()
