"""`musax export`: export a training run as a model folder, whichever package trained it."""

import argparse
from typing import Any

_DESCRIPTION = """\
Export a training run as a model folder, for --model of other verbs. The run's config.gin names the
package of its model. Options of that package, such as --tune of drums, go after OUT_DIR
(python -m drums.export --help lists them)."""
_EPILOG = """\
examples:
  musax export runs/piano models/my-piano
  musax export runs/piano models/my-piano --step 20000 --dtype bfloat16
  musax export runs/drums models/my-drums --tune data/rendered_drums
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`; its options are those of the run's package."""
    parser = verbs.add_parser(
        "export", help="export a training run as a model folder", add_help=False, allow_abbrev=False
    )
    parser.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Export; return 0, or 2 with a line on stderr if the run cannot be exported."""
    import importlib

    from musax.commands.console import report_error
    from musax.exporting import make_parser, package_of_run
    from t5x.gin_limits import trusting

    parser = make_parser(prog="musax export", description=_DESCRIPTION, epilog=_EPILOG)
    known, _ = parser.parse_known_args(args.rest)
    try:
        with trusting(known.trust):
            package = package_of_run(known.run_dir)
    except (ValueError, OSError) as error:
        report_error(error)
        return 2
    return importlib.import_module(f"{package}.export").main(argv=args.rest)
