"""Which split a recording belongs to, where its corpus does not say."""

import hashlib

SPLITS = ("train", "valid", "test")

#: Names of splits in tasks and in the tables of corpora, and here.
TASK_SPLITS = {"train": "train", "validation": "valid", "test": "test"}


def hash_split(name: str) -> str:
    """Nine of ten names are "train", one of twenty each "valid" and "test".

    It depends on the name alone, so that a name stays where it is when others come or go. Give
    what may not be divided, such as the title of a piece, not the file's name, as the name.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") % 20
    return SPLITS[max(place - 17, 0)]
