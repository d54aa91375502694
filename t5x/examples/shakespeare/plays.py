"""The text: 42 plays and poems of Shakespeare, in `plays.txt.xz` beside this file.

The file holds them one after the other, each under a line `=== name`, in the form

    HORATIO<tab>Where, my lord?
    (blank line)
    HAMLET<tab>In my mind's eye, Horatio.

with further lines of a speech, and stage directions, behind a tab. Shakespeare is in the public
domain; the transcription comes from github.com/martin-gorner/tensorflow-rnn-shakespeare
(Apache-2.0, Martin Görner).
"""

import functools
import lzma
import re
from pathlib import Path

PATH = Path(__file__).with_name("plays.txt.xz")

#: Whole plays, a history, a tragedy and a comedy, that training never reads.
HELD_OUT = ("kingjohn", "macbeth", "twelfthnight")
SPLITS = ("train", "validation")


@functools.cache
def load_plays() -> dict[str, str]:
    """{name: text} of all plays and poems, in alphabetical order."""
    text = lzma.decompress(PATH.read_bytes()).decode("ascii")
    parts = re.split(r"^=== (\w+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def plays_of(split: str) -> dict[str, str]:
    """{name: text} of a split: "validation" are the plays of `HELD_OUT`, "train" all others."""
    if split not in SPLITS:
        raise ValueError(f"Shakespeare has no split {split!r}; it has {SPLITS}")
    held_out = split == "validation"
    return {name: text for name, text in load_plays().items() if (name in HELD_OUT) == held_out}


def passages(split: str, min_length: int = 2000) -> list[dict[str, str]]:
    """{"play", "targets"}: the text of each play in whole speeches of together `min_length` bytes.

    The rest of a play is shorter.
    """
    found = []
    for play, text in plays_of(split).items():
        pieces: list[str] = []
        for speech in re.split(r"\n{2,}", text.strip("\n")):
            pieces.append(speech)
            if sum(map(len, pieces)) >= min_length:
                found.append({"play": play, "targets": "\n\n".join(pieces)})
                pieces = []
        if pieces:
            found.append({"play": play, "targets": "\n\n".join(pieces)})
    return found


def speeches(text: str) -> list[list[str]]:
    """The lines of each speech of a play, without who speaks and stage directions.

    A poem has none.
    """
    _, _, acts = text.partition("\nACT I\n")  # the list of characters is before
    found = re.findall(r"^(?!SCENE)[^\t\n]+\t(.*(?:\n\t[^\[].*)*)", acts, flags=re.M)
    spoken = [re.sub(r"\[[^\]]*\]", "", speech).split("\n") for speech in found]
    return [[" ".join(line.split()) for line in speech] for speech in spoken]
