"""Vocabularies: ids 0 padding, 1 EOS, 2 UNK, then regular ids, then extra ids at the top."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from t5x.extras import how_to_install
from t5x.files import check_local
from t5x.user_paths import user_path

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
NUM_SPECIAL_IDS = 3

DECODED_EOS = -1
DECODED_INVALID = -2


@runtime_checkable
class Vocabulary(Protocol):
    """What the trainer, the converters and the evaluator ask of a vocabulary."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special and extra ids included."""
        ...

    @property
    def pad_id(self) -> int: ...

    @property
    def eos_id(self) -> int | None: ...

    @property
    def unk_id(self) -> int | None: ...

    def encode(self, value: Any) -> Sequence[int]:
        """Ids of `value`, without EOS."""
        ...

    def decode(self, ids: Iterable[int]) -> Any:
        """The inverse of `encode`, up to and including the first EOS."""
        ...


def clean_ids(ids: Iterable[int], base_size: int | None, eos_id: int | None) -> list[int]:
    """Ids at or above `base_size` become UNK (if given), and nothing follows the first EOS."""
    cleaned = [int(i) for i in ids]
    if base_size is not None:
        cleaned = [UNK_ID if i >= base_size else i for i in cleaned]
    if eos_id is not None and eos_id in cleaned:
        cleaned = cleaned[: cleaned.index(eos_id) + 1]
    return cleaned


class _Ids:
    """The special ids and the equality that the vocabularies here share."""

    _eos_id: int | None = EOS_ID
    _unk_id: int | None = UNK_ID
    _base_size: int = NUM_SPECIAL_IDS
    _extra_ids: int = 0

    @property
    def vocab_size(self) -> int:
        return self._base_size + self._extra_ids

    @property
    def pad_id(self) -> int:
        return PAD_ID

    @property
    def eos_id(self) -> int | None:
        return self._eos_id

    @property
    def unk_id(self) -> int | None:
        return self._unk_id

    @property
    def extra_ids(self) -> int:
        """Number of ids above the regular ones."""
        return self._extra_ids

    def __eq__(self, other) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self).__name__, *sorted(vars(self).items())))


class PassThroughVocabulary(_Ids):
    """Ids are their own meaning: `encode` and `decode` change nothing but cut after EOS."""

    _unk_id = None

    def __init__(self, size: int, eos_id: int | None = None):
        self._base_size = size
        self._eos_id = eos_id

    def encode(self, value: Sequence[int]) -> Sequence[int]:
        return value

    def decode(self, ids: Iterable[int]) -> list[int]:
        return clean_ids(ids, None, self._eos_id)

    def __repr__(self) -> str:
        return f"PassThroughVocabulary(size={self._base_size}, eos_id={self._eos_id})"


class ByteVocabulary(_Ids):
    """UTF-8 bytes as ids 3..258 (ByT5, arXiv 2105.13626), then `extra_ids` sentinels."""

    def __init__(self, extra_ids: int = 0):
        self._base_size = NUM_SPECIAL_IDS + 256
        self._extra_ids = extra_ids

    def encode(self, value: str | bytes) -> list[int]:
        data = value if isinstance(value, bytes) else value.encode("utf-8")
        return [byte + NUM_SPECIAL_IDS for byte in data]

    def decode(self, ids: Iterable[int]) -> str:
        """Text up to EOS; special ids, extra ids and broken UTF-8 are left out."""
        shifted = [i - NUM_SPECIAL_IDS for i in clean_ids(ids, None, EOS_ID)]
        return bytes(i for i in shifted if 0 <= i < 256).decode("utf-8", errors="ignore")

    def __repr__(self) -> str:
        return f"ByteVocabulary(extra_ids={self._extra_ids})"


class TokenVocabulary(_Ids):
    """Regular ids 0..regular_ids-1 shifted above the 3 special ids, `extra_ids` on top.

    The vocabulary of event codecs (MT3's GenericTokenVocabulary): model id = regular id + 3.
    """

    def __init__(self, regular_ids: int, extra_ids: int = 0):
        self._regular_ids = regular_ids
        self._base_size = NUM_SPECIAL_IDS + regular_ids
        self._extra_ids = extra_ids

    @property
    def num_regular_ids(self) -> int:
        return self._regular_ids

    def encode(self, value: Sequence[int]) -> list[int]:
        """Raise ValueError for an id outside [0, regular_ids)."""
        return self.encode_array(value).tolist()

    def decode(self, ids: Iterable[int]) -> list[int]:
        """Regular ids up to the first EOS, which is -1; ids that mean nothing are -2."""
        cleaned = clean_ids(ids, self._base_size, EOS_ID)
        return self.decode_array(np.asarray(cleaned, np.int64)).tolist()

    def encode_array(self, ids) -> np.ndarray:
        """Model ids int32, same shape as `ids`."""
        ids = np.asarray(ids, np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self._regular_ids):
            bad = ids[(ids < 0) | (ids >= self._regular_ids)].flat[0]
            raise ValueError(f"token id {bad} is outside [0, {self._regular_ids})")
        return (ids + NUM_SPECIAL_IDS).astype(np.int32)

    def decode_array(self, ids) -> np.ndarray:
        """Vectorised decoding over the last axis, int32 [..., L] -> int32 [..., L].

        EOS and everything after it is -1; special, extra and negative ids are -2.
        """
        ids = np.asarray(ids)
        invalid = (ids < NUM_SPECIAL_IDS) | (ids >= self._base_size)
        ended = np.logical_or.accumulate(ids == EOS_ID, axis=-1) if ids.size else ids == EOS_ID
        decoded = np.where(invalid, DECODED_INVALID, ids - NUM_SPECIAL_IDS)
        return np.where(ended, DECODED_EOS, decoded).astype(np.int32)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(regular_ids={self._regular_ids}, extra_ids={self._extra_ids})"
        )


class SentencePieceVocabulary(_Ids):
    """Pieces of a SentencePiece model (extra `sentencepiece`), then `extra_ids` sentinels.

    The sentinels are added to the model itself, as seqio does: `<extra_id_0>` is the last id,
    `<extra_id_1>` the one before, so texts may name them, at the beginning of a word.

    Args:
      sentencepiece_model_file: a `.model` file with ids 0 padding, 1 EOS, 2 unknown.
      extra_ids: number of sentinels.
      reverse_extra_ids: False counts the sentinels upwards instead.

    Raises (when first used):
      ImportError: sentencepiece is not installed (the extra `sentencepiece`).
      ValueError: naming the file that cannot be read or is no SentencePiece model.
    """

    def __init__(
        self, sentencepiece_model_file: str, extra_ids: int = 0, reverse_extra_ids: bool = True
    ):
        self.sentencepiece_model_file = sentencepiece_model_file
        self._extra_ids = extra_ids
        self.reverse_extra_ids = reverse_extra_ids

    @property
    def _tokenizer(self) -> Any:
        """Made once a process, and never sent to another one."""
        return _load_sentencepiece(
            self.sentencepiece_model_file, self._extra_ids, self.reverse_extra_ids
        )

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.GetPieceSize()

    @property
    def eos_id(self) -> int | None:
        return self._tokenizer.eos_id()

    @property
    def unk_id(self) -> int | None:
        return self._tokenizer.unk_id()

    def encode(self, value: str | bytes) -> list[int]:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
        return self._tokenizer.EncodeAsIds(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text up to EOS. Ids beyond the vocabulary read as unknown."""
        cleaned = clean_ids(ids, self.vocab_size, self.eos_id)
        return self._tokenizer.DecodeIds(cleaned)

    def __repr__(self) -> str:
        file, extra = self.sentencepiece_model_file, self._extra_ids
        return f"SentencePieceVocabulary({file!r}, extra_ids={extra})"


@functools.lru_cache(maxsize=8)
def _load_sentencepiece(path: str, extra_ids: int, reverse: bool) -> Any:
    """The processor of a model file with sentinels appended.

    A model is a protobuf message with `repeated SentencePiece pieces = 1`, so more pieces are
    appended as bytes: {1: piece, 3: type}, where type 4 is USER_DEFINED.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as e:
        raise ImportError(
            f"SentencePieceVocabulary needs sentencepiece: {how_to_install('sentencepiece')}"
        ) from e
    check_local(path, "SentencePiece model")
    try:
        model = user_path(path).read_bytes()
    except OSError as e:
        raise ValueError(f"SentencePiece model {path}: {e.strerror}") from e
    numbers = range(extra_ids)
    for number in reversed(numbers) if reverse else numbers:
        name = f"▁<extra_id_{number}>".encode()
        piece = bytes([0x0A, len(name)]) + name + bytes([0x15, 0, 0, 0, 0, 0x18, 4])
        model += bytes([0x0A, len(piece)]) + piece
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as e:
        raise ValueError(f"{path}: not a SentencePiece model") from e
    if processor.pad_id() not in (PAD_ID, -1):
        raise ValueError(f"{path}: padding has id {processor.pad_id()}, expected {PAD_ID}")
    return processor


def text_vocabulary(name: str) -> ByteVocabulary | SentencePieceVocabulary:
    """ "bytes", or the pieces of a SentencePiece model, given by its path.

    Raises:
      ImportError, ValueError: see `SentencePieceVocabulary`.
      ValueError: the model has other special ids than those of this module.
    """
    if name == "bytes":
        return ByteVocabulary()
    vocabulary = SentencePieceVocabulary(name)
    if (vocabulary.eos_id, vocabulary.unk_id) != (EOS_ID, UNK_ID):
        raise ValueError(
            f"{name}: EOS has id {vocabulary.eos_id}, unknown pieces {vocabulary.unk_id}; expected "
            "1 and 2: train the model with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1"
        )
    return vocabulary
