"""Text, one example a file: a play, a book, a program.

text_task("data/pg19", num_latents=1024)                       # folders train, validation, test
text_task("plays/*.txt", num_latents=512, validation_files=["hamlet.txt"])
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from musax.datasets.files import file_source
from perceiver_ar.lazy_arrays import lazy_sequence
from perceiver_ar.tasks import SOS, sequence_task
from t5x.data.tasks import Task
from t5x.data.text_lines import read_file, read_text
from t5x.data.vocabularies import EOS_ID, NUM_SPECIAL_IDS, Vocabulary, text_vocabulary

_SUFFIXES = (".txt", ".txt.gz", ".txt.xz")


def tokenize_bytes(example: dict) -> dict:
    """Return a `lazy_sequence` of the bytes of a file, `path`; a crop reads no more than itself."""
    data = np.frombuffer(read_file(example["path"]), np.uint8)

    def read(first: int, end: int) -> np.ndarray:
        return data[first:end] + np.int32(NUM_SPECIAL_IDS)

    return lazy_sequence(len(data), read)


def tokenize_pieces(example: dict, vocabulary: Vocabulary) -> dict:
    """Return `tokens` int32 [n + 1], SOS to EOS, of a file of UTF-8, `path`."""
    ids = _encode_file(example["path"], vocabulary)
    return {"tokens": np.concatenate([[SOS], ids, [EOS_ID]]).astype(np.int32)}


# Encoding a book takes much longer than reading a crop of it.
@functools.lru_cache(maxsize=64)
def _encode_file(path: str, vocabulary: Vocabulary) -> np.ndarray:
    return np.asarray(vocabulary.encode(read_text(path)), np.int32)


def text_task(
    files: str | os.PathLike | Sequence[str],
    *,
    vocabulary: str = "bytes",
    validation_files: Sequence[str] = (),
    test_files: Sequence[str] = (),
    restart_positions: bool = True,
    name: str = "text",
    **options: Any,
) -> Task:
    """Return a task of files as sequences of bytes or SentencePiece pieces.

    Args:
      files, validation_files, test_files: see `musax.datasets.files.file_source`.
      vocabulary: see `t5x.data.vocabularies.text_vocabulary`.
      restart_positions: whether positions count from the beginning of a crop, so that files have
        any length; otherwise from that of the file, as in the reference.
      name: of the task.
      options: see `perceiver_ar.tasks.sequence_task`; `num_latents` is required. In an evaluation
        all windows of a file are in memory together.
    """
    ids = text_vocabulary(vocabulary)
    if vocabulary == "bytes":
        tokenize = tokenize_bytes
    else:
        tokenize = functools.partial(tokenize_pieces, vocabulary=ids)
    return sequence_task(
        name,
        file_source(files, _SUFFIXES, validation_files, test_files),
        [tokenize],
        ids,
        restart_positions=restart_positions,
        **options,
    )
