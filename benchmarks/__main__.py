"""Run benchmarks: `python -m benchmarks [NAME ...] [--write] [--json PATH] [--tiny]`.

`python -m benchmarks profile NAME[:PROGRAM]` shows where the time of one goes.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from benchmarks import profile, report
from benchmarks.harness import Row, UnavailableError

NAMES = (
    "t5",
    "decoding",
    "compilation",
    "restoring",
    "training",
    "perceiver_ar",
    "cdcd",
    "drums",
    "transcription",
    "log_mel",
    "tokenisation",
    "data_pipeline",
    "imports",
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line names, or all."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["profile"]:
        profile.main(given[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--json", default="out/benchmarks.json", metavar="PATH")
    parser.add_argument("--tiny", action="store_true", help="small sizes: the figures mean nothing")
    args = parser.parse_args(given)
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if args.write and args.tiny:
        parser.error("--write with --tiny: figures of small sizes mean nothing; leave one out")
    results = run(args.names or NAMES, args.tiny)
    report.save_json(args.json, results)
    if args.write:
        report.write_tables(results)
    print(report.to_text(results))


if __name__ == "__main__":
    main()
