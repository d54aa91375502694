#!/usr/bin/env python
"""Writes text files in folders train, validation and test, from sources that need no download.

Examples:
  # 5.3 MB of Shakespeare, held out by work
  scripts/prepare_text.py --shakespeare --out data/text

  # the reference manual of Python as well, all in the 27 letters of text8
  scripts/prepare_text.py --shakespeare --python-docs --letters --out data/letters
"""

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cdcd.text import normalise_text8
from musax.datasets.splits import TASK_SPLITS, hash_split
from t5x.examples.shakespeare.plays import HELD_OUT, load_plays

#: A history, a tragedy and a comedy, as those for validation are.
TEST_PLAYS = ("kingrichardii", "othello", "asyoulikeit")


class Document(NamedTuple):
    """A text, in one split as a whole."""

    split: str
    name: str
    text: str


def shakespeare() -> Iterator[Document]:
    """42 plays and poems of Shakespeare (public domain); three plays each are held out."""
    for name, text in load_plays().items():
        split = "validation" if name in HELD_OUT else "test" if name in TEST_PLAYS else "train"
        yield Document(split, f"shakespeare-{name}", text)


def python_docs() -> Iterator[Document]:
    """Topics of Python's reference manual (PSF licence), as `help()` shows them; split by topic.

    Large topics contain smaller ones, so each paragraph is taken once, in the largest topic.
    """
    from pydoc_data.topics import topics

    split_of = {place: split for split, place in TASK_SPLITS.items()}
    seen = {""}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        kept = []
        for paragraph in topics[name].split("\n\n"):
            # Lines are broken at other places in other topics.
            key = normalise_text8(paragraph).strip()
            if key not in seen:
                seen.add(key)
                kept.append(paragraph)
        if kept:
            yield Document(split_of[hash_split(name)], f"python-{name}", "\n\n".join(kept) + "\n")


def write(documents: Iterable[Document], folder: Path, letters: bool) -> dict[str, tuple[int, int]]:
    """Writes `<split>/<name>.txt` of each document; returns {split: (files, bytes)}."""
    written: dict[str, tuple[int, int]] = dict.fromkeys(TASK_SPLITS, (0, 0))
    for split, name, text in documents:
        data = (normalise_text8(text) if letters else text).encode()
        path = folder / split / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(path)
        files, size = written[split]
        written[split] = (files + 1, size + len(data))
    return written


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and writes the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write to")
    add("--shakespeare", action="store_true", help="42 plays and poems, 5.3 MB")
    add("--python-docs", action="store_true", help="the manual of this Python, 0.4 MB")
    add("--letters", action="store_true", help="write space and a to z alone, as text8 does")
    args = parser.parse_args(arguments)
    chosen = [python_docs()] if args.python_docs else []
    chosen += [shakespeare()] if args.shakespeare else []
    if not chosen:
        parser.error("give --shakespeare, --python-docs or both")
    for documents in chosen:
        for split, (files, size) in write(documents, args.out, args.letters).items():
            print(f"{args.out / split}: {files} files, {size:,} bytes")


if __name__ == "__main__":
    main()
