"""Recordings with exact notes, rendered from real MIDI on many instruments.

`RenderedMidi` is a random-access source: element i is one take of a few seconds, drawn from the
pieces, varied (`vary_notes`) and played by instrument `i // takes_per_instrument`, all from
`(seed, i)`. Half of the instruments are virtual (`musax.rendering.virtual_piano`), the others are
programs of soundfonts, so that timbre varies as much as notes do.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musax.audio import normalize_peak
from musax.datasets.pieces import Piece
from musax.notes import NOTE_FIELDS, empty_notes, make_notes, sort_notes, trim_overlapping_notes
from musax.rendering.synthesizer import Synthesizer
from musax.rendering.virtual_piano import HIGHEST, LOWEST, VirtualPiano

# General MIDI: pianos (the acoustic grand most often), and other instruments that speak clearly.
PIANO_PROGRAMS = (0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4)
OTHER_PROGRAMS = (
    *(*range(8, 20), *range(24, 29), 32, 33, 40, 42, 45, 46, 48, 52),
    *(56, 60, 65, 68, 70, 71, 73, 75, 79, *range(104, 109)),
)


@dataclasses.dataclass(frozen=True)
class Instruments:
    """The instruments to draw from.

    Attributes:
      soundfonts: paths of SF2 or SF3 files, each as likely as the others.
      virtual: probability of a virtual piano.
      piano: probability that a soundfont's instrument is a piano (of `PIANO_PROGRAMS`).
      detune_cents: standard deviation of the tuning of a take played from a soundfont.
    """

    soundfonts: tuple[str, ...] = ()
    virtual: float = 0.5
    piano: float = 0.9
    detune_cents: float = 9.0


class RenderedMidi(Sequence):
    """Takes of `seconds` s: `{"audio": int16 [samples], "sample_rate", <note columns>}`.

    Args:
      pieces: from which the music is taken.
      instruments: by which it is played.
      num_instruments: how many instruments are drawn.
      takes_per_instrument: consecutive takes that share an instrument (drawing one costs seconds).
      seconds: length of a take.
      random_pieces: probability of random notes in place of a piece.
      vary: False plays the pieces as they are (for evaluation).
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        instruments: Instruments,
        *,
        num_instruments: int,
        takes_per_instrument: int = 40,
        seconds: float = 20.0,
        sample_rate: int = 16000,
        seed: int = 0,
        random_pieces: float = 0.06,
        vary: bool = True,
    ):
        if not pieces:
            raise ValueError("RenderedMidi: no pieces to play")
        if instruments.virtual < 1 and not instruments.soundfonts:
            raise ValueError(
                "RenderedMidi: no soundfonts given, and not all instruments are virtual"
            )
        for path in instruments.soundfonts:
            if not Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such soundfont")
        self.pieces, self.instruments = pieces, instruments
        self.num_instruments, self.takes_per_instrument = num_instruments, takes_per_instrument
        self.seconds, self.sample_rate, self.seed = seconds, sample_rate, seed
        self.random_pieces, self.vary = random_pieces, vary
        self._virtual = functools.lru_cache(maxsize=2)(self._draw_virtual)

    def __len__(self) -> int:
        return self.num_instruments * self.takes_per_instrument

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"take {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, 1, index])
        notes = self._excerpt(rng)
        audio, program = self._play(notes, index // self.takes_per_instrument, rng)
        audio = normalize_peak(audio)
        notes["program"] = program
        return {
            "audio": np.round(audio * 32767).astype(np.int16),
            "sample_rate": np.int32(self.sample_rate),
            **{name: notes[name] for name in NOTE_FIELDS},
        }

    def _excerpt(self, rng: np.random.Generator) -> np.ndarray:
        """Return a take's notes."""
        for _ in range(50):
            if rng.random() < self.random_pieces:
                notes = random_notes(rng, 3 * self.seconds)
            else:
                notes = self.pieces[int(rng.integers(len(self.pieces)))].load()
            notes = notes[~notes["is_drum"]]
            if self.vary:
                notes = vary_notes(notes, rng)
            if not len(notes):
                continue
            notes["program"] = 0  # one instrument plays all, so that unisons are one note
            notes = cut_excerpt(notes, self.seconds, rng)
            if len(notes) > 5:
                return notes
        return empty_notes()

    def _play(self, notes: np.ndarray, number: int, rng: np.random.Generator):
        spec = self.instruments
        draw = np.random.default_rng([self.seed, 0, number])
        if draw.random() < spec.virtual:
            return self._virtual(number).render(notes, seconds=self.seconds), 0
        font = spec.soundfonts[draw.integers(len(spec.soundfonts))]
        programs = PIANO_PROGRAMS if draw.random() < spec.piano else OTHER_PROGRAMS
        program = programs[rng.integers(len(programs))]
        played = notes.copy()
        played["program"] = program
        audio = _synthesizer(font, self.sample_rate).render(
            played, seconds=self.seconds, detune_cents=rng.normal(0, spec.detune_cents)
        )
        return audio, program

    def _draw_virtual(self, number: int) -> VirtualPiano:
        return VirtualPiano(np.random.default_rng([self.seed, 2, number]), self.sample_rate)


@functools.lru_cache(maxsize=8)
def _synthesizer(path: str, sample_rate: int) -> Synthesizer:
    return Synthesizer(path, sample_rate)


def cut_excerpt(notes: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return notes that begin in a random window, times from its start, cut at its end."""
    start = rng.uniform(0, max(0.0, notes["onset"].max() - seconds))
    inside = (notes["onset"] >= start) & (notes["onset"] < start + seconds)
    notes = notes[inside].copy()
    notes["onset"] -= start
    notes["offset"] = np.minimum(notes["offset"] - start, seconds)
    notes = trim_overlapping_notes(sort_notes(notes))
    return sort_notes(notes[notes["offset"] - notes["onset"] > 0.012])


def take_notes(take: dict[str, np.ndarray]) -> np.ndarray:
    """Return the note table of a take."""
    return make_notes(*(take[name] for name in NOTE_FIELDS))


def vary_notes(notes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return another performance of the same music: key, tempo, loudness and articulation.

    Transposes by up to a fifth, sometimes by an octave or more; stretches time by 0.55 to 1.35;
    moves, scales and jitters velocities; sometimes lengthens (as the pedal does) or shortens notes;
    sometimes leaves notes out. Notes that leave the piano's range are dropped. Drums keep their
    pitch, which denotes the instrument.
    """
    notes = notes.copy()
    stretch = np.exp(rng.uniform(-0.6, 0.3))
    notes["onset"] *= stretch
    notes["offset"] *= stretch
    far = rng.random() < 0.15
    shift = rng.choice([-19, -12, 12, 19]) if far else rng.integers(-7, 8)
    notes["pitch"] += np.where(notes["is_drum"], 0, shift).astype(notes["pitch"].dtype)
    notes = notes[(notes["pitch"] >= LOWEST) & (notes["pitch"] <= HIGHEST)]
    if rng.random() < 0.3:
        notes = notes[rng.random(len(notes)) < rng.uniform(0.4, 1.0)]
    if not len(notes):
        return notes
    velocity = notes["velocity"] - notes["velocity"].mean()
    velocity = rng.uniform(35, 95) + rng.uniform(0.5, 1.5) * velocity
    velocity += rng.normal(0, rng.uniform(0, 10), len(notes))
    notes["velocity"] = np.clip(np.round(velocity), 8, 127)
    held = notes["offset"] - notes["onset"]
    articulation = rng.random()
    if articulation < 0.3:
        held = held * rng.uniform(1.0, 2.5)
    elif articulation < 0.45:
        held = np.maximum(0.05, held * rng.uniform(0.3, 1.0))
    notes["offset"] = notes["onset"] + held
    return notes


def random_notes(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Return random notes: 2 to 18 a second, any pitch, half of the time near a beat grid."""
    count = int(seconds * rng.uniform(2, 18))
    onset = np.sort(rng.uniform(0, seconds, count))
    if rng.random() < 0.5:
        beat = rng.uniform(0.08, 0.4)
        onset = np.abs(np.round(onset / beat) * beat + rng.normal(0, 0.006, count))
    held = np.exp(rng.uniform(np.log(0.06), np.log(2.5), count))
    pitch = np.round(rng.normal(rng.uniform(40, 85), rng.uniform(6, 24), count))
    velocity = np.clip(np.round(rng.normal(70, 20, count)), 5, 127)
    return make_notes(
        onset, onset + held, np.clip(pitch, LOWEST, HIGHEST).astype(int), velocity.astype(int)
    )
