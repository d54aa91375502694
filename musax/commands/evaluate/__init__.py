"""`musax evaluate TASK`: scores of models on data with known answers.

A task is a module of this package with `NAME`, `HELP`, `DESCRIPTION` and `EPILOG`,
`add_options(parser)`, `check(args)`, which reads no data and no parameters, and
`evaluate(args, progress)`, which returns a `musax.tables.Report`.
"""

from typing import Any

from musax.commands.evaluate import compose, drums, infill, pronounce, score, transcribe
from musax.commands.evaluate.running import add_task

TASKS = (transcribe, drums, compose, infill, score, pronounce)

_EPILOG = """\
examples:
  musax evaluate transcribe --model mt3-piano-tiny --folder MAPS=data/maps
  musax evaluate drums --model drums-small --mdb data/mdb_drums
  musax evaluate score --model cdcd-melody --data data/lakh64 --format markdown
  musax evaluate transcribe --help                options and examples of a task

exit status: 0 done, 1 it failed (one line on stderr), 2 nothing was started
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "evaluate",
        help="score models on data with known answers",
        description="Score models on data with known answers, and print tables.",
        epilog=_EPILOG,
    )
    tasks = parser.add_subparsers(dest="evaluated", metavar="TASK", title="tasks", required=True)
    for module in TASKS:
        add_task(tasks, module)
