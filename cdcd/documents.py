"""Texts that need no download, split into documents for training, validation and test."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cdcd.text import normalise_text8
from musax.datasets.splits import TASK_SPLITS, hash_split
from t5x.examples.shakespeare.plays import HELD_OUT, load_plays
from t5x.files import write_bytes

#: A history, a tragedy and a comedy, as those for validation are.
TEST_PLAYS = ("kingrichardii", "othello", "asyoulikeit")


class Document(NamedTuple):
    """A text, in one split as a whole."""

    split: str
    name: str
    text: str


def shakespeare() -> Iterator[Document]:
    """Yield 42 plays and poems of Shakespeare (public domain); three plays each are held out."""
    for name, text in load_plays().items():
        split = "validation" if name in HELD_OUT else "test" if name in TEST_PLAYS else "train"
        yield Document(split, f"shakespeare-{name}", text)


def python_docs() -> Iterator[Document]:
    """Yield topics of Python's reference manual (PSF licence) as `help()` shows them.

    Splits are by topic. Large topics contain smaller ones, so each paragraph is taken once, in the
    largest topic.
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


#: The documents by their names on the command line.
SOURCES: dict[str, Callable[[], Iterator[Document]]] = {
    "python-docs": python_docs,
    "shakespeare": shakespeare,
}


def write_documents(
    documents: Iterable[Document], folder: Path, letters: bool
) -> dict[str, tuple[int, int]]:
    """Write `<split>/<name>.txt` of each document; return {split: (files, bytes)}.

    Args:
      documents: any.
      folder: output; folders of splits are created as needed.
      letters: write space and a to z alone, as text8 does.
    """
    written: dict[str, tuple[int, int]] = dict.fromkeys(TASK_SPLITS, (0, 0))
    for split, name, text in documents:
        data = (normalise_text8(text) if letters else text).encode()
        path = folder / split / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
        files, size = written[split]
        written[split] = (files + 1, size + len(data))
    return written
