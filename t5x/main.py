"""All entry points in one: `python -m t5x.main --run_mode=train --gin_file=...`.

The other flags are those of the entry point: `python -m t5x.train --help`.
"""

if __name__ == "__main__":  # before the imports that take long
    from t5x import interrupts

    interrupts.end_the_process()

import argparse
import importlib
import sys
from collections.abc import Sequence

_MODULES = {"train": "train", "eval": "eval", "infer": "infer", "export": "export"}
_LEFT_OUT = {
    "precompile": "a run compiles its step once and keeps it in the compilation cache; to look at "
    "a run without training use --run_mode=train --dry_run",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of the entry point that --run_mode names; return its status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="python -m t5x.main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=not any(arg.startswith("--run_mode") for arg in argv),
    )
    parser.add_argument("--run_mode", required=True, choices=[*_MODULES, *_LEFT_OUT])
    args, rest = parser.parse_known_args(argv)
    if args.run_mode in _LEFT_OUT:
        parser.error(f"--run_mode={args.run_mode} is not supported: {_LEFT_OUT[args.run_mode]}")
    return importlib.import_module(f"t5x.{_MODULES[args.run_mode]}").main(rest)


if __name__ == "__main__":
    sys.exit(main())
