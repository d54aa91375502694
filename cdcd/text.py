"""Text as letters, bytes or SentencePiece pieces.

text_task("data/text", length=256)                     # folders train, validation and test
text_task("plays/*.txt", length=256, vocabulary="bytes", validation_files=["hamlet.txt"])
text8_task("data/text8", length=256)
"""

import dataclasses
import functools
import os
import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from cdcd.tasks import check_part, sequence_task
from cdcd.vocabularies import LettersVocabulary
from musax.datasets.files import file_source
from t5x.data.tasks import Task
from t5x.data.text_lines import read_file, read_text
from t5x.data.vocabularies import NUM_SPECIAL_IDS, ByteVocabulary, Vocabulary, text_vocabulary
from t5x.user_paths import user_path

_SUFFIXES = (".txt", ".txt.gz", ".txt.xz")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SPELLED = {ord("0") + i: f" {word} " for i, word in enumerate(_DIGITS)}
_ACCENTS = "[\u0300-\u036f]+"

#: Bytes of text8, and the end of each split, as everyone divides it.
TEXT8_SIZE = 100_000_000
_TEXT8_SPLITS = {
    "train": (0, 90_000_000),
    "validation": (90_000_000, 95_000_000),
    "test": (95_000_000, TEXT8_SIZE),
}


def normalise_text8(text: str) -> str:
    """Return text in the 27 symbols of text8: space and a to z.

    Letters lose accents and become lowercase, digits are spelled out, all else is space, and
    several spaces become one. Except for accents, text8's wikifil.pl does the same to plain text.
    """
    plain = re.sub(_ACCENTS, "", unicodedata.normalize("NFKD", text))
    return re.sub("[^a-z]+", " ", plain.lower().translate(_SPELLED))


def vocabulary_of(name: str) -> Vocabulary:
    """Return `LettersVocabulary` for "letters", or see `t5x.data.vocabularies.text_vocabulary`.

    Raises:
      ValueError: no such file, or not a SentencePiece model.
    """
    if name == "letters":
        return LettersVocabulary()
    if name != "bytes" and not user_path(name).is_file():
        raise ValueError(
            f"vocabulary={name!r}: expected 'letters', 'bytes' or the path of a SentencePiece model"
        )
    return text_vocabulary(name)


# -------------------------------------------------------------------------------- sequences


@dataclasses.dataclass(frozen=True)
class FileSlice:
    """Ids of the bytes of a file; a slice reads no more than itself.

    Attributes:
      path: of the file.
      begin, end: of the slice in it.
      encode: bytes uint8 [n] -> ids int32 [n].
    """

    path: str
    begin: int
    end: int
    encode: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, part: slice) -> np.ndarray:
        begin, end = (self.begin + i for i in part.indices(len(self))[:2])
        try:
            return self.encode(_mapped(self.path)[begin:end])
        except ValueError as e:
            raise ValueError(f"{self.path}, bytes {begin} to {end}: {e}") from e


@functools.lru_cache(maxsize=256)
def _mapped(path: str) -> np.ndarray:
    return np.frombuffer(read_file(path), np.uint8)


def read_ids(path: str, vocabulary: Vocabulary) -> np.ndarray | FileSlice:
    """Return ids of a file, [n], in the smallest integer type; those of bytes stay in the file.

    Raises:
      ValueError: naming the file that is not UTF-8, or cannot be unpacked.
    """
    if isinstance(vocabulary, ByteVocabulary):
        shift = functools.partial(np.add, np.int32(NUM_SPECIAL_IDS))
        return FileSlice(path, 0, len(_mapped(path)), shift)
    text = read_text(path)
    if isinstance(vocabulary, LettersVocabulary):
        data = np.frombuffer(normalise_text8(text).encode(), np.uint8)
        return vocabulary.encode_bytes(data).astype(np.uint8)
    return np.asarray(vocabulary.encode(text), np.min_scalar_type(vocabulary.vocab_size))


# ------------------------------------------------------------------------------------ tasks


def text_task(
    files: str | os.PathLike | Sequence[str],
    length: int,
    vocabulary: str = "letters",
    *,
    validation_files: Sequence[str] = (),
    test_files: Sequence[str] = (),
    purpose: str = "train",
    train_part: tuple[int, int] | None = None,
    name: str = "text",
) -> Task:
    """Return a task of parts of text files; no part crosses from one file to the next.

    Args:
      files, validation_files, test_files: see `musax.datasets.files.file_source`.
      length: tokens of an example.
      vocabulary: see `vocabulary_of`. With "letters", files go through `normalise_text8`.
      purpose: see `cdcd.tasks.sequence_task`.
      train_part: (index, count) takes every count-th training file, from that index on, so that
        models can be trained on disjoint texts.
      name: of the task.

    Raises:
      ValueError: an argument is out of range.
      FileNotFoundError, ValueError (when read): files are missing, or not text.
    """
    ids = vocabulary_of(vocabulary)
    index, count = check_part(train_part)
    source = file_source(files, _SUFFIXES, validation_files, test_files)

    def read(split: str) -> list:
        paths = [str(example["path"]) for example in source.sequence(split)]
        if split == "train":
            paths = paths[index::count]
        return [read_ids(path, ids) for path in paths]

    sequences = {split: functools.partial(read, split) for split in source.splits}
    return sequence_task(name, sequences, ids, length, purpose=purpose)


def text8_task(
    path: str,
    length: int,
    *,
    purpose: str = "train",
    train_part: tuple[int, int] | None = None,
    name: str = "text8",
) -> Task:
    """Return a task of parts of text8 (mattmahoney.net/dc/text8.zip): 90 M letters, 5 M and 5 M.

    Args:
      path: the unpacked file; it is mapped, not read.
      length: tokens of an example.
      purpose: see `cdcd.tasks.sequence_task`.
      train_part: (index, count) takes one of `count` consecutive parts of the training letters.
      name: of the task.

    Raises:
      ValueError: an argument is out of range, or (when read) the file is not text8.
      FileNotFoundError (when read): the file is missing.
    """
    index, count = check_part(train_part)
    letters, path = LettersVocabulary(), os.fspath(user_path(path))

    def read(split: str) -> list[FileSlice]:
        _check_text8(path)
        begin, end = _TEXT8_SPLITS[split]
        if split == "train":
            begin, end = (begin + (end - begin) * i // count for i in (index, index + 1))
        return [FileSlice(path, begin, end, letters.encode_bytes)]

    sequences = {split: functools.partial(read, split) for split in _TEXT8_SPLITS}
    return sequence_task(name, sequences, letters, length, purpose=purpose)


def _check_text8(path: str) -> None:
    """Check the size alone; symbols that are not letters are found when they are read."""
    size = os.stat(path).st_size
    if size != TEXT8_SIZE:
        raise ValueError(
            f"{path}: {size} bytes, but text8 has {TEXT8_SIZE}; unpack text8.zip of "
            "mattmahoney.net/dc, or read other files with text_task"
        )
