"""Splits of recordings whose corpus defines none."""

import hashlib

SPLITS = ("train", "valid", "test")

#: Names of splits in tasks and in the tables of corpora, and here.
TASK_SPLITS = {"train": "train", "validation": "valid", "test": "test"}


def hash_split(name: str) -> str:
    """Return "train" for nine of ten names, "valid" and "test" for one of twenty each.

    It depends on the name alone, so that a name stays where it is when others come or go. Pass
    the name of the unit that must not be divided, such as a piece's title rather than a file's.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") % 20
    return SPLITS[max(place - 17, 0)]
