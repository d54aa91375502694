"""What tokens stand for: text or melodies, to ids and back."""

import abc
import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from cdcd.text import normalise_text8
from cdcd.vocabularies import LettersVocabulary
from musax.events.melody import (
    MAX_PITCH,
    MIN_PITCH,
    NO_EVENT,
    STEPS_PER_BAR,
    MelodyVocabulary,
    melody_to_notes,
    notes_to_melody,
)
from musax.notes import check_length, validate_notes
from t5x.data.vocabularies import UNK_ID, ByteVocabulary, Vocabulary, text_vocabulary
from t5x.user_paths import user_path


@dataclasses.dataclass(frozen=True)
class Text(abc.ABC):
    """Text; subclasses define the symbols."""

    @property
    @abc.abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the symbols."""

    def normalise(self, text: str) -> str:
        """Return the text in the symbols of the vocabulary."""
        return text

    def encode(self, text: str, what: str = "text") -> np.ndarray:
        """Return ids int32 [n] of a text.

        Raises:
          ValueError: it is empty or has unknown symbols; the message calls it `what`.
        """
        ids = self._ids(text, what)
        if not ids.size:
            raise ValueError(f"{what}: empty; expected at least one symbol")
        return ids

    def encode_blanks(self, text: str, blank: str = "_") -> tuple[np.ndarray, np.ndarray]:
        """Return (ids int32 [n], bool [n], True at blanks) of a text with blanks.

        Args:
          text: the given symbols, with a blank for each missing one.
          blank: one character.

        Raises:
          ValueError: as `encode`; no blanks or only blanks; `blank` is not one character.
        """
        if len(blank) != 1:
            raise ValueError(f"blank={blank!r}: expected one character")
        parts = [part for part in re.split(f"({re.escape(blank)}+)", text) if part]
        gaps = [part[0] == blank for part in parts]
        if not any(gaps):
            raise ValueError(f"text: no blanks; write a {blank!r} for each symbol to be filled in")
        if all(gaps):
            raise ValueError("text: only blanks; expected symbols too, or compose without a prompt")
        ids = [
            np.zeros(len(part), np.int32) if gap else self._ids(part, "text")
            for part, gap in zip(parts, gaps)
        ]
        return np.concatenate(ids), np.repeat(gaps, [len(each) for each in ids])

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of ids; ids that are not text, such as broken UTF-8, are left out."""
        return self.vocabulary.decode(np.asarray(ids).tolist())

    def _ids(self, text: str, what: str) -> np.ndarray:
        symbols = self.normalise(text)
        ids = np.asarray(self.vocabulary.encode(symbols), np.int32)
        lost = any(c.isalpha() for c in text) and not symbols.strip()
        if lost or (ids == UNK_ID).any():
            raise ValueError(f"{what}: {text[:40]!r} has symbols that the model does not know")
        return ids


@dataclasses.dataclass(frozen=True)
class Letters(Text):
    """The 27 symbols of text8; text is put through `cdcd.text.normalise_text8`."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Space and a to z."""
        return LettersVocabulary()

    def normalise(self, text: str) -> str:
        """Return letters and spaces only, see `cdcd.text.normalise_text8`."""
        return normalise_text8(text)


@dataclasses.dataclass(frozen=True)
class Bytes(Text):
    """Bytes of UTF-8."""

    @property
    def vocabulary(self) -> Vocabulary:
        """256 bytes."""
        return ByteVocabulary()


@dataclasses.dataclass(frozen=True)
class Pieces(Text):
    """Pieces of a SentencePiece model.

    Attributes:
      model: path of the model.
    """

    model: str

    @property
    def vocabulary(self) -> Vocabulary:
        """The pieces; raises ImportError, ValueError, see `t5x.data.vocabularies`."""
        return text_vocabulary(self.model)

    def encode_blanks(self, text: str, blank: str = "_") -> tuple[np.ndarray, np.ndarray]:
        """Raise ValueError: a blank stands for one symbol, but a piece has several."""
        raise ValueError(
            "text with blanks needs a model of letters or bytes; with one of pieces, give tokens "
            "to Writer.fill_in"
        )


@dataclasses.dataclass(frozen=True)
class Melody:
    """One voice on a grid of quarters and bars, see `musax.events.melody`.

    Attributes:
      tempo: quarters a minute.
      steps_per_quarter, steps_per_bar: the grid.

    Raises:
      ValueError: a field is not positive.
    """

    tempo: float = 120.0
    steps_per_quarter: int = 4
    steps_per_bar: int = STEPS_PER_BAR

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < np.inf:
                raise ValueError(f"{field.name}={value}: expected a positive number")

    @property
    def vocabulary(self) -> MelodyVocabulary:
        """The 90 events of a step."""
        return MelodyVocabulary()

    @property
    def steps_per_second(self) -> float:
        """Rate of the grid, Hz."""
        return self.steps_per_quarter * self.tempo / 60.0

    def encode(
        self, notes: np.ndarray, what: str = "notes", *, whole_bars: bool = False
    ) -> np.ndarray:
        """Return ids int32 [n] of the melody of notes, from time 0 to its end.

        Of notes with the same onset the highest is kept; drums and pitches outside the range of a
        piano are left out.

        Args:
          notes: `musax.notes` array.
          what: what messages call them.
          whole_bars: up to the end of the last bar.

        Raises:
          ValueError: invalid notes, notes that last for hours, or no melody notes.
        """
        notes = validate_notes(notes, what)
        check_length(notes, what)
        pitch = notes["pitch"]
        notes = notes[~notes["is_drum"] & (pitch >= MIN_PITCH) & (pitch <= MAX_PITCH)]
        if not len(notes):
            raise ValueError(
                f"{what}: no notes of a melody; expected some of pitch {MIN_PITCH} to {MAX_PITCH} "
                "that are not drums"
            )
        rate = self.steps_per_second
        steps = int(
            max(np.rint(notes["offset"].max() * rate), np.rint(notes["onset"].max() * rate) + 1)
        )
        if whole_bars:
            steps += -steps % self.steps_per_bar
        return self.vocabulary.encode_array(notes_to_melody(notes, steps, rate))

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Return a `musax.notes` array, times in s; raise ValueError for ids without an event."""
        return melody_to_notes(self.vocabulary.decode_array(ids), self.steps_per_second)

    def extend(self, ids: np.ndarray, seconds: tuple[float, float] | None) -> np.ndarray:
        """Return a melody that is long enough for a gap which ends up to two bars after it.

        The last bar of a piece in another metre may end later than one of 4/4.
        """
        if seconds is None:
            return ids
        more = int(np.ceil(seconds[1] * self.steps_per_second - 1e-6)) - len(ids)
        if not 0 < more <= 2 * self.steps_per_bar:
            return ids
        more += -(len(ids) + more) % self.steps_per_bar
        rest = self.vocabulary.encode_array(np.full(more, NO_EVENT, np.int32))
        return np.concatenate([ids, rest])

    def gap(
        self,
        length: int,
        bars: tuple[int, int] | None = None,
        seconds: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """Return bool [length], True in a part of a melody.

        Args:
          length: of the melody, steps.
          bars: first and last, counted from 1.
          seconds: begin and end, instead.

        Raises:
          ValueError: none or both are given, or they are outside the melody.
        """
        if (bars is None) == (seconds is None):
            raise ValueError("the gap: expected either bars or seconds")
        if bars is not None:
            count = -(-length // self.steps_per_bar)
            if not 1 <= bars[0] <= bars[1] <= count:
                raise ValueError(f"bars {bars[0]} to {bars[1]}: expected bars of 1 to {count}")
            begin, end = (bars[0] - 1) * self.steps_per_bar, bars[1] * self.steps_per_bar
        else:
            whole = length / self.steps_per_second
            if seconds is None or not 0 <= seconds[0] < seconds[1] <= whole:
                raise ValueError(f"seconds={seconds}: expected begin and end, 0 to {whole:g}")
            begin, end = (round(each * self.steps_per_second) for each in seconds)
        place = np.arange(length)
        gap = (place >= begin) & (place < end)
        if not gap.any():
            raise ValueError(f"seconds={seconds}: shorter than a step of the grid")
        return gap


Contents = Text | Melody
#: Content types by their names in a configuration.
KINDS: dict[str, type] = {"letters": Letters, "bytes": Bytes, "pieces": Pieces, "melody": Melody}


def contents_of(vocabulary: Vocabulary) -> Contents:
    """Return the content type of a task's vocabulary.

    Raises:
      ValueError: the vocabulary is of an unknown type.
    """
    if isinstance(vocabulary, MelodyVocabulary):
        return Melody()
    if isinstance(vocabulary, LettersVocabulary):
        return Letters()
    if isinstance(vocabulary, ByteVocabulary):
        return Bytes()
    path = getattr(vocabulary, "sentencepiece_model_file", None)
    if path is None:
        raise ValueError(
            f"{vocabulary}: expected the vocabulary of melodies, letters, bytes or pieces"
        )
    return Pieces(str(user_path(path)))
