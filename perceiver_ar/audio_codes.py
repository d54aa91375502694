"""Tokens of a neural audio codec, as in Hawthorne et al. 2022 (arXiv 2202.07765).

    audio_codes_task("data/codes", codebooks=24, num_latents=1024)      # SoundStream, 12 kbps

A file is an .npy or .npz with the codes of one recording, integers [frames, codebooks]. They are
written frame by frame; each codebook has ids of its own:

    id = 3 + codebook * codebook_size + code

The paper's SoundStream has 24 codebooks of 1,024 codes at 12 kbps and 44 at 22 kbps.
"""

import dataclasses
import functools
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from musax.datasets.files import file_source
from perceiver_ar.lazy_arrays import lazy_sequence
from perceiver_ar.tasks import SOS, sequence_task
from t5x.checkpoints.npz import load_npz
from t5x.data.tasks import Task
from t5x.data.vocabularies import EOS_ID, NUM_SPECIAL_IDS, PassThroughVocabulary

_SUFFIXES = (".npy", ".npz")


def codes_vocabulary(codebooks: int, codebook_size: int) -> PassThroughVocabulary:
    """Return a vocabulary of padding, EOS, SOS, and the codes of each codebook."""
    return PassThroughVocabulary(NUM_SPECIAL_IDS + codebooks * codebook_size, EOS_ID)


def codes_to_ids(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Convert integers [frames, codebooks] to int32 [frames * codebooks].

    Raises:
      ValueError: a code is not from 0 to `codebook_size` - 1.
    """
    wrong = np.argwhere((codes < 0) | (codes >= codebook_size))
    if wrong.size:
        frame, book = wrong[0].tolist()
        raise ValueError(
            f"code {codes[frame, book]} of codebook {book}: expected 0 to {codebook_size - 1}; "
            "see codebook_size"
        )
    first = NUM_SPECIAL_IDS + codebook_size * np.arange(codes.shape[1], dtype=np.int32)
    return (codes.astype(np.int32) + first).reshape(-1)


def codes_to_tokens(codes: np.ndarray, codebook_size: int = 1024) -> np.ndarray:
    """Convert integers [frames, codebooks] to int32 [frames * codebooks + 2], SOS to EOS.

    Raises:
      ValueError: a code is not from 0 to `codebook_size` - 1.
    """
    ids = codes_to_ids(np.asarray(codes), codebook_size)
    return np.concatenate([[SOS], ids, [EOS_ID]]).astype(np.int32)


def tokens_to_codes(
    tokens: Sequence[int] | np.ndarray, codebooks: int, codebook_size: int = 1024
) -> np.ndarray:
    """Convert tokens to int32 [frames, codebooks], the inverse of `codes_to_tokens`.

    SOS may be missing; EOS or padding ends the codes; an incomplete last frame is dropped.

    Raises:
      ValueError: a token is not of the codebook expected at its position.
    """
    ids = np.asarray(tokens, np.int64)
    ids = ids[1:] if len(ids) and ids[0] == SOS else ids
    ends = np.flatnonzero(ids < SOS)
    ids = ids[: ends[0]] if ends.size else ids
    books = np.arange(len(ids)) % codebooks
    codes = ids - NUM_SPECIAL_IDS - books * codebook_size
    wrong = np.flatnonzero((codes < 0) | (codes >= codebook_size))
    if wrong.size:
        at = int(wrong[0])
        raise ValueError(
            f"token {ids[at]} is no code of codebook {books[at]} of {codebooks}, whose turn it is; "
            "sample with `OnlyCodes`"
        )
    whole = len(codes) - len(codes) % codebooks
    return codes[:whole].astype(np.int32).reshape(-1, codebooks)


# ---------------------------------------------------------------------------------- sampling


def allowed_ids(position: Any, codebooks: int, codebook_size: int = 1024) -> Any:
    """Return which ids are allowed at a position of a sequence, where SOS has position 0.

    Args:
      position: 1 or greater; an int, or integers [..., 1].
      codebooks: number of codebooks.
      codebook_size: number of codes in each.

    Returns:
      bool [V], or [..., V]: the codes of one codebook; EOS where a frame begins, not the first.
    """
    ids = np.arange(NUM_SPECIAL_IDS + codebooks * codebook_size)
    book = (position - 1) % codebooks
    first = NUM_SPECIAL_IDS + book * codebook_size
    codes = (ids >= first) & (ids < first + codebook_size)
    return codes | ((ids == EOS_ID) & (book == 0) & (position > 1))


@dataclasses.dataclass(frozen=True)
class OnlyCodes:
    """A `logit_callback_fn` of `perceiver_ar.generation.generate` that allows only valid codes.

    Attributes:
      codebooks, codebook_size: see `allowed_ids`.
    """

    codebooks: int
    codebook_size: int = 1024

    def __call__(self, logits: Any, state: Any) -> Any:
        """Mask the logits [B, V] of the token after `state.cur_index` [B]."""
        import jax.numpy as jnp

        from t5x.decoding import NEG_INF

        position = state.cur_index[:, None] + 1
        allowed = allowed_ids(position, self.codebooks, self.codebook_size)
        return jnp.where(allowed, logits, NEG_INF)


# -------------------------------------------------------------------------------------- files


def load_codes(
    path: str | os.PathLike, codebooks: int, codebooks_first: bool = False
) -> np.ndarray:
    """Read integers [frames, codebooks] of an .npy, which is mapped, or an .npz with one array.

    Args:
      path: of the file.
      codebooks: expected number.
      codebooks_first: whether the file has [codebooks, frames].

    Raises:
      ValueError: naming the file that is damaged, pickled, or of another type or shape.
    """
    try:
        # Never unpickled: a pickle can run anything.
        if zipfile.is_zipfile(path):
            arrays = list(load_npz(path).values())
            if len(arrays) != 1:
                raise ValueError(f"{len(arrays)} arrays, expected one")
            codes = arrays[0]
        else:
            codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as e:
        raise ValueError(
            f"{path}: no codes that can be read ({e}); write it with numpy.save, as integers"
        ) from e
    shape = "[codebooks, frames]" if codebooks_first else "[frames, codebooks]"
    if codes.dtype.kind not in "iu" or codes.ndim != 2:
        raise ValueError(f"{path}: {codes.dtype} {codes.shape}; expected integers {shape}")
    codes = codes.T if codebooks_first else codes
    if codes.shape[1] != codebooks:
        raise ValueError(
            f"{path}: {codes.shape[1]} codebooks, expected {codebooks}, of {shape}; see codebooks "
            "and codebooks_first"
        )
    return codes


def tokenize_codes(
    example: dict, codebooks: int, codebook_size: int = 1024, codebooks_first: bool = False
) -> dict:
    """Return a `lazy_sequence` of the codes of a file, `path`; a crop reads no more than itself.

    Raises:
      ValueError: naming the file, see `load_codes` and `codes_to_ids`.
    """
    path = example["path"]
    codes = load_codes(path, codebooks, codebooks_first)

    def read(first: int, end: int) -> np.ndarray:
        frame = first // codebooks
        try:
            ids = codes_to_ids(codes[frame : -(-end // codebooks)], codebook_size)
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from e
        return ids[first - frame * codebooks : end - frame * codebooks]

    return lazy_sequence(codes.size, read)


def audio_codes_task(
    files: str | os.PathLike | Sequence[str],
    *,
    codebooks: int,
    codebook_size: int = 1024,
    codebooks_first: bool = False,
    validation_files: Sequence[str] = (),
    test_files: Sequence[str] = (),
    restart_positions: bool = True,
    name: str = "audio_codes",
    **options: Any,
) -> Task:
    """Return a task of recordings as sequences of codes.

    Args:
      files, validation_files, test_files: see `musax.datasets.files.file_source`.
      codebooks, codebook_size: of the codec.
      codebooks_first: whether files have [codebooks, frames].
      restart_positions: see `perceiver_ar.text.text_task`.
      name: of the task.
      options: see `perceiver_ar.tasks.sequence_task`; `num_latents` is required.
    """
    tokenize = functools.partial(
        tokenize_codes,
        codebooks=codebooks,
        codebook_size=codebook_size,
        codebooks_first=codebooks_first,
    )
    return sequence_task(
        name,
        file_source(files, _SUFFIXES, validation_files, test_files),
        [tokenize],
        codes_vocabulary(codebooks, codebook_size),
        restart_positions=restart_positions,
        **options,
    )
