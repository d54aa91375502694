"""Vocabularies of MT3: the event codec of a configuration and model ids for it.

Names and numbers are those of upstream's `mt3.vocabularies`.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from musax.events import codec as event_codec
from musax.events.codec import Codec
from musax.events.spec import map_programs
from t5x.data.vocabularies import DECODED_EOS, DECODED_INVALID, TokenVocabulary

DEFAULT_STEPS_PER_SECOND = 100
DEFAULT_MAX_SHIFT_SECONDS = 10
DEFAULT_NUM_VELOCITY_BINS = 127
NUM_EXTRA_IDS = 100
EMBEDDING_MULTIPLE = 128

__all__ = [
    "DECODED_EOS",
    "DECODED_INVALID",
    "PROGRAM_GRANULARITIES",
    "GenericTokenVocabulary",
    "ProgramGranularity",
    "VocabularyConfig",
    "bin_to_velocity",
    "build_codec",
    "drop_programs",
    "num_embeddings",
    "num_velocity_bins_from_codec",
    "programs_to_midi_classes",
    "velocity_to_bin",
    "vocabulary_from_codec",
]


@dataclasses.dataclass(frozen=True)
class VocabularyConfig:
    """Range of events of a vocabulary.

    Attributes:
      steps_per_second: time resolution, Hz.
      max_shift_seconds: longest time shift of one event, s.
      num_velocity_bins: velocity levels besides note-off; 1 for no velocities.
    """

    steps_per_second: float = DEFAULT_STEPS_PER_SECOND
    max_shift_seconds: float = DEFAULT_MAX_SHIFT_SECONDS
    num_velocity_bins: int = DEFAULT_NUM_VELOCITY_BINS

    @property
    def abbrev_str(self) -> str:
        """The values that are not defaults, for task names: "ss50ms4vb32"."""
        parts = []
        if self.steps_per_second != DEFAULT_STEPS_PER_SECOND:
            parts.append(f"ss{self.steps_per_second:g}")
        if self.max_shift_seconds != DEFAULT_MAX_SHIFT_SECONDS:
            parts.append(f"ms{self.max_shift_seconds:g}")
        if self.num_velocity_bins != DEFAULT_NUM_VELOCITY_BINS:
            parts.append(f"vb{self.num_velocity_bins}")
        return "".join(parts)


def build_codec(vocab_config: VocabularyConfig) -> Codec:
    """Return the event codec: shift, pitch, velocity, tie, program, drum."""
    return event_codec.note_codec(
        vocab_config.steps_per_second,
        vocab_config.max_shift_seconds,
        vocab_config.num_velocity_bins,
    )


class GenericTokenVocabulary(TokenVocabulary):
    """Integers 0..regular_ids-1 as model ids, above padding, EOS and UNK.

    `encode` raises ValueError for other integers. `decode` ends with the first EOS, which it
    writes as -1 (`DECODED_EOS`), and writes -2 (`DECODED_INVALID`) for ids without meaning.
    """


def vocabulary_from_codec(codec: Codec) -> GenericTokenVocabulary:
    """Return the vocabulary of a codec's ids, with 100 unused ids on top as in T5."""
    return GenericTokenVocabulary(codec.num_classes, extra_ids=NUM_EXTRA_IDS)


def num_embeddings(vocabulary: GenericTokenVocabulary) -> int:
    """Return the rows of the embedding table: the vocabulary's size, rounded up to 128."""
    return -(-vocabulary.vocab_size // EMBEDDING_MULTIPLE) * EMBEDDING_MULTIPLE


def num_velocity_bins_from_codec(codec: Codec) -> int:
    """Return the number of velocity bins of a codec, without bin 0 (note-off)."""
    return event_codec.num_velocity_bins(codec)


velocity_to_bin = event_codec.velocity_to_bin
bin_to_velocity = event_codec.bin_to_velocity


def drop_programs(tokens: np.ndarray, codec: Codec) -> np.ndarray:
    """Return `tokens` (int [N] codec ids) without program events."""
    tokens = np.asarray(tokens)
    low, high = codec.event_type_range("program")
    return tokens[(tokens < low) | (tokens > high)]


def programs_to_midi_classes(tokens: np.ndarray, codec: Codec) -> np.ndarray:
    """Return `tokens` (int [N] codec ids), each program the first of its family of 8."""
    tokens = np.asarray(tokens)
    low, high = codec.event_type_range("program")
    is_program = (tokens >= low) & (tokens <= high)
    return np.where(is_program, low + (tokens - low) // 8 * 8, tokens).astype(tokens.dtype)


def _keep_programs(tokens: np.ndarray, codec: Codec) -> np.ndarray:
    del codec
    return np.asarray(tokens)


@dataclasses.dataclass(frozen=True)
class ProgramGranularity:
    """Granularity of programs.

    Attributes:
      tokens_map_fn: (tokens int [N], codec) -> tokens.
      program_map_fn: program -> program, for numbers and arrays.
    """

    tokens_map_fn: Callable[[np.ndarray, Codec], np.ndarray]
    program_map_fn: Callable


PROGRAM_GRANULARITIES = {
    name: ProgramGranularity(tokens_map_fn, functools.partial(map_programs, granularity=name))
    for name, tokens_map_fn in {
        "flat": drop_programs,
        "midi_class": programs_to_midi_classes,
        "full": _keep_programs,
    }.items()
}
