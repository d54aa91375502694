"""Options that mean the same in every verb, and the parser that reports wrong ones in a line."""

import argparse
import secrets
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from musax.commands import numbers
from musax.commands.console import report_error
from musax.commands.outputs import NOTE_FORMATS, read_formats

_WIDTH = 80


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on stderr, with exit status 2."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        paragraphs = (self.description or "").split("\n\n")
        self.description = "\n\n".join(textwrap.fill(text, _WIDTH) for text in paragraphs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and take what follows an option as its value even if it begins with a hyphen."""
        given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(self._with_values(given), namespace)

    def _with_values(self, args: Sequence[str]) -> list[str]:
        """Join `--option -value` to `--option=-value`, unless the value is an option."""
        joined: list[str] = []
        for arg in args:
            action = self._option_string_actions.get(joined[-1]) if joined else None
            takes_value = action is not None and action.nargs is None
            if takes_value and arg[:1] == "-" and arg != "--" and not self._is_option(arg):
                joined[-1] += f"={arg}"
            else:
                joined.append(arg)
        return joined

    def _is_option(self, arg: str) -> bool:
        name = arg.partition("=")[0]
        known = self._option_string_actions
        return name in known or (name[2:] != "" and any(flag.startswith(name) for flag in known))

    def error(self, message: str) -> NoReturn:
        """Print the message and where to find help, and exit."""
        report_error(f"{message}; see `{self.prog} --help`")
        sys.exit(2)


def hyphenated(text: str) -> str:
    """Read a name of several words: hyphens between them, underscores accepted."""
    return text.strip().lower().replace("_", "-")


class _StoreName(argparse.Action):
    """Store a choice as Python spells it, with underscores."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, values.replace("-", "_"))


def add_choice(parser: argparse.ArgumentParser, flag: str, choices: Sequence[str], help: str):
    """Add a choice of names, with hyphens between words; underscores are accepted.

    Parsed options have the names with underscores, as functions take them.
    """
    parser.add_argument(
        flag,
        type=hyphenated,
        action=_StoreName,
        choices=choices,
        help=help,
    )


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("an empty name; expected a file or folder")
    return Path(text)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the audio files that a verb reads."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="audio files, folders of audio files, or patterns such as 'takes/*.flac'",
    )


def add_output(
    parser: argparse.ArgumentParser,
    known: Sequence[str] = NOTE_FORMATS,
    default: str = "beside each input, where existing files are kept (see --overwrite)",
) -> None:
    """Add `-o`; see `musax.commands.outputs` for its rule."""
    names = ", ".join(f".{name}" for name in known)
    parser.add_argument(
        "-o",
        "--output",
        type=_path,
        metavar="FILE|DIR",
        help=f"where results go: a file if the name ends in {names}, otherwise a folder. The "
        "folder around it must exist; the folder itself is created. Existing files are replaced. "
        f"Default: {default}",
    )


def add_formats(
    parser: argparse.ArgumentParser, known: Sequence[str] = NOTE_FORMATS, default: str = "mid"
) -> None:
    """Add `--format`, with the shorthands `--plot` and `--render` where they apply."""
    parser.add_argument(
        "--format",
        type=read_formats(known),
        metavar="F,...",
        help=f"formats to write, any of {','.join(known)}; default: that of FILE, or {default}",
    )
    if "png" in known:
        parser.add_argument("--plot", action="store_true", help="write a picture too (adds png)")
    if "wav" in known and default != "wav":
        parser.add_argument("--render", action="store_true", help="write audio too (adds wav)")
    if "wav" in known:
        parser.add_argument(
            "--soundfont",
            metavar="F",
            help="soundfont that plays the audio, name or path of an .sf2 or .sf3 file; default: "
            "the General MIDI bank that comes with musax",
        )


def add_model(parser: argparse.ArgumentParser, task: str) -> None:
    """Add `--model`, whose default is that of the task."""
    from musax.pretrained import DEFAULT_MODELS

    names = DEFAULT_MODELS[task]
    default = names[0] if len(names) == 1 else f"{names[0]}; for text {names[1]}"
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help=f"a name that `musax models --task {task}` lists, or a folder with a model; default: "
        f"{default}",
    )


def default_model(task: str, *, text: bool = False) -> str:
    """Return the name of the model that a task uses by default, for music or for text."""
    from musax.pretrained import DEFAULT_MODELS

    return DEFAULT_MODELS[task][int(text)]


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`, random by default."""
    parser.add_argument(
        "--seed",
        type=numbers.seed,
        metavar="N",
        help="seed of the random numbers; the same seed and options give the same result; default: "
        "a random one, which is printed",
    )


def choose_seed(args: argparse.Namespace) -> int:
    """Return the given seed, or a random one."""
    return secrets.randbelow(1 << 31) if args.seed is None else args.seed


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`, for verbs that write beside their inputs."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace existing files beside inputs, without -o"
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add `-q`."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors and warnings only")
