"""Small bands with exact notes: melody, bass, chords and drums, each on a separate instrument.

`RenderedEnsembles` is a random-access source like `RenderedMidi`: element i is one take, all from
`(seed, i)`. A band (a piece with several instruments) gives melody, bass and drums; a solo piece
gives chords; a take has one of them or both. Instruments are drawn per take from the General MIDI
families that play such a part.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from musax.audio import normalize_peak
from musax.datasets.pieces import Piece
from musax.datasets.rendered_midi import cut_excerpt, vary_notes
from musax.notes import NOTE_FIELDS, empty_notes, sort_notes
from musax.rendering.synthesizer import Synthesizer

BASS = range(32, 40)
# General MIDI programs by the part they play; effects and ethnic percussion are left out.
PROGRAMS = {
    "melody": (*range(32), *range(40, 47), *range(56, 88), *range(104, 112)),
    "bass": tuple(BASS),
    "chords": (*range(8), *range(16, 32), *range(44, 46), *range(48, 55), *range(88, 96)),
    "drums": (0,),
}
LEVEL_DB = {
    "melody": (-9.0, 0.0),
    "bass": (-9.0, 0.0),
    "chords": (-12.0, 0.0),
    "drums": (-9.0, 3.0),
}
_FAMILY = 8


class Part(NamedTuple):
    """The notes of one player and what kind of part it is (a key of `PROGRAMS`)."""

    kind: str
    notes: np.ndarray


class RenderedEnsembles(Sequence):
    """Takes of `seconds` s: `{"audio": int16 [samples], "sample_rate", <note columns>}`.

    Args:
      bands: pieces with programs and drums.
      solos: pieces for one instrument, which becomes the chords; may be empty.
      soundfonts: paths of SF2 or SF3 files; consecutive takes share one.
      num_takes: number of elements.
      takes_per_soundfont: how many consecutive takes share a soundfont.
      seconds: length of a take.
      sample_rate: Hz.
      seed: of everything.
      together: probability that a take has both, a band and a solo; else it has one of them.
      vary: False plays the pieces as they are (for evaluation); instruments are drawn in any case.

    Raises:
      ValueError: no bands or no soundfonts.
    """

    def __init__(
        self,
        bands: Sequence[Piece],
        solos: Sequence[Piece],
        soundfonts: Sequence[str],
        *,
        num_takes: int,
        takes_per_soundfont: int = 40,
        seconds: float = 20.0,
        sample_rate: int = 16000,
        seed: int = 0,
        together: float = 0.4,
        vary: bool = True,
    ):
        if not bands or not soundfonts:
            raise ValueError("RenderedEnsembles needs bands and soundfonts")
        self.bands, self.solos, self.soundfonts = bands, solos, tuple(soundfonts)
        self.num_takes, self.takes_per_soundfont = num_takes, takes_per_soundfont
        self.seconds, self.sample_rate, self.seed = seconds, sample_rate, seed
        self.together, self.vary = together, vary

    def __len__(self) -> int:
        return self.num_takes

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"take {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, 3, index])
        audio, notes = self._play(list(self._parts(rng)), index // self.takes_per_soundfont, rng)
        audio = normalize_peak(audio)
        return {
            "audio": np.round(audio * 32767).astype(np.int16),
            "sample_rate": np.int32(self.sample_rate),
            **{name: notes[name] for name in NOTE_FIELDS},
        }

    def _parts(self, rng: np.random.Generator) -> Iterator[Part]:
        both = bool(self.solos) and rng.random() < self.together
        band = both or not self.solos or rng.random() < 0.7
        if band:
            notes = self._excerpt(self.bands, rng)
            is_bass = ~notes["is_drum"] & np.isin(notes["program"], BASS)
            rest = ~notes["is_drum"] & ~is_bass
            for kind, mask in (("melody", rest), ("bass", is_bass), ("drums", notes["is_drum"])):
                if not self.vary or rng.random() < 0.85:
                    yield Part(kind, notes[mask].copy())
        if both or not band:
            notes = self._excerpt(self.solos, rng)
            yield Part("chords", notes[~notes["is_drum"]].copy())

    def _excerpt(self, pieces: Sequence[Piece], rng: np.random.Generator) -> np.ndarray:
        for _ in range(50):
            notes = pieces[int(rng.integers(len(pieces)))].load()
            if self.vary:
                notes = vary_notes(notes, rng)
            if len(notes):
                notes = cut_excerpt(notes, self.seconds, rng)
            if len(notes) > 5:
                return notes
        return empty_notes()

    def _play(
        self, parts: Sequence[Part], number: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mix, float32 [samples], and the notes of all parts with their instruments."""
        draw = np.random.default_rng([self.seed, 4, number])
        font = _synthesizer(self.soundfonts[draw.integers(len(self.soundfonts))], self.sample_rate)
        mix = np.zeros(round(self.seconds * self.sample_rate), np.float32)
        played, families = [empty_notes()], set()
        for kind, notes in parts:
            if not len(notes):
                continue
            notes["program"] = program = _draw_program(kind, font, families, rng)
            families.add(-1 if kind == "drums" else program // _FAMILY)
            stem = font.render(notes, seconds=self.seconds, detune_cents=rng.normal(0, 6))
            level = 10 ** (rng.uniform(*LEVEL_DB[kind]) / 20)
            mix += stem * np.float32(level / (_loudness(stem) + 1e-6))
            played.append(notes)
        return mix, sort_notes(np.concatenate(played))


def _draw_program(kind: str, font: Synthesizer, taken: set[int], rng: np.random.Generator) -> int:
    """Draw a program of the bank from a family that no other part has (families weigh the same)."""
    if kind == "drums":
        return 0
    held = set(font.programs)
    families: dict[int, list[int]] = {}
    for program in PROGRAMS[kind]:
        if program in held and program // _FAMILY not in taken:
            families.setdefault(program // _FAMILY, []).append(program)
    if not families:
        return 0
    family = families[list(families)[rng.integers(len(families))]]
    return int(family[rng.integers(len(family))])


def _loudness(audio: np.ndarray) -> float:
    """Return the root mean square of the parts that are not silent."""
    sounding = np.abs(audio) > 1e-3 * (np.abs(audio).max() + 1e-9)
    return float(np.sqrt(np.mean(np.square(audio[sounding])))) if sounding.any() else 0.0


@functools.lru_cache(maxsize=8)
def _synthesizer(path: str, sample_rate: int) -> Synthesizer:
    return Synthesizer(path, sample_rate)
