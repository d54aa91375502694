"""Models beside other systems: `python -m benchmarks.accuracy transcribe|drums [OPTIONS]`.

The options are those of `musax evaluate`, and `--baseline`:

  python -m benchmarks.accuracy transcribe --folder MAPS=data/maps --model mt3-piano-tiny \\
      --baseline cqt --baseline basic-pitch
  python -m benchmarks.accuracy drums --mdb data/mdb_drums --model drums-small \\
      --baseline spectral-flux

basic-pitch is no dependency of musax; if it is missing, a message says how to get it.
"""

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.baselines.basic_pitch import BasicPitch
from musax.commands.evaluate import drums, transcribe
from musax.commands.evaluate.running import add_task
from musax.commands.options import Parser

BASELINES = {"transcribe": ("cqt", "basic-pitch"), "drums": ("spectral-flux",)}


def load_transcriber(name: str, onnx: str | None = None) -> Any:
    """Return a baseline as a `mt3.evaluation.System`.

    Args:
      name: of `BASELINES["transcribe"]`.
      onnx: path of basic-pitch's network; None searches the installed package.

    Raises:
      ImportError: what it needs is not installed.
    """
    from mt3.evaluation import System

    if name == "basic-pitch":
        return System(name, BasicPitch(onnx).transcribe)
    from benchmarks.baselines import cqt

    return System(name, cqt.transcribe)


def load_drummer(name: str, onnx: str | None = None) -> Any:
    """Return a baseline of `BASELINES["drums"]` as a `drums.evaluation.System`."""
    from benchmarks.baselines.spectral_flux import transcribe as hear
    from drums.evaluation import System
    from drums.vocabularies import map_notes

    return System(name, lambda audio, rate, level: map_notes(hear(audio, rate), level))


class _WithBaselines:
    """A task of `musax evaluate` with an option for baselines."""

    def __init__(self, module: Any, load: Any):
        self.NAME, self.HELP = module.NAME, module.HELP
        self.DESCRIPTION, self.EPILOG = module.DESCRIPTION, None
        self._module, self._load = module, load

    def add_options(self, parser: Any) -> None:
        """Add the task's options, and the baselines."""
        self._module.add_options(parser)
        known = BASELINES[self.NAME]
        parser.add_argument(
            "--baseline", action="append", default=[], choices=known, help="may be repeated"
        )
        parser.add_argument("--basic-pitch-onnx", metavar="PATH", help="nmp.onnx of basic-pitch")

    def check(self, args: Any) -> None:
        """Raise if the task's options do not fit."""
        self._module.check(args)

    def evaluate(self, args: Any, progress: Any) -> Any:
        """Score the models and the baselines."""
        others = [self._load(name, args.basic_pitch_onnx) for name in args.baseline]
        return self._module.evaluate(args, progress, others)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation that the command line asks for; return the exit status."""
    parser = Parser(prog="python -m benchmarks.accuracy", description=__doc__)
    tasks = parser.add_subparsers(metavar="TASK", title="tasks", required=True)
    for module, load in ((transcribe, load_transcriber), (drums, load_drummer)):
        add_task(tasks, _WithBaselines(module, load))
    args = parser.parse_args(arguments)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
