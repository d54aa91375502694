"""Synthesis of notes by a soundfont."""

import functools
import os
from pathlib import Path

import numpy as np

from musax.notes import check_length, validate_notes
from musax.rendering.soundfont_file import DRUM_BANK, Generator, Region, SoundfontFile
from musax.rendering.soundfonts import SoundfontError, find_soundfont
from musax.rendering.voices import Strike, render_voice

_LONGEST_HOURS = 2.0
_MAX_TAIL_SECONDS = 8.0
_DIED_AWAY = 1e-4  # -80 dB of full scale: where a rendering may end


@functools.lru_cache(maxsize=4)
def _load(path: Path, modified_ns: int, size: int) -> SoundfontFile:
    """Open a bank; once per process, so that samples are read once."""
    return SoundfontFile(path)


class Synthesizer:
    """Render notes with one soundfont.

    Deterministic: the same notes give the same samples. Events fall on exact samples. Every
    instrument (program, is_drum) is rendered separately and added to the mix, so any number can
    sound and a mix is the sum of its stems. The output is not limited to ±1: mixing or
    writing decides what to do with loud passages.
    """

    def __init__(self, soundfont: str | os.PathLike | None = None, sample_rate: int = 16000):
        """
        Args:
          soundfont: path or name of a bank, see `find_soundfont`; None for the default bank.
          sample_rate: Hz.

        Raises:
          SoundfontError: if the bank is missing or not a soundfont.
        """
        if sample_rate <= 0:
            raise ValueError(f"sample_rate={sample_rate}: must be positive (Hz)")
        self.path = find_soundfont(soundfont)
        self.sample_rate = int(sample_rate)
        state = self.path.stat()
        self._font = _load(self.path.resolve(), state.st_mtime_ns, state.st_size)

    @property
    def programs(self) -> list[int]:
        """General MIDI programs (0 to 127) that the bank holds."""
        return [program for bank, program in self._font.presets if bank == 0]

    @property
    def drum_kits(self) -> list[int]:
        """Programs of the bank's drum kits; others fall back to the first."""
        return [program for bank, program in self._font.presets if bank == DRUM_BANK]

    def render(
        self,
        notes: np.ndarray,
        *,
        seconds: float | None = None,
        detune_cents: float = 0.0,
        gain: float = 1.0,
        stereo: bool = False,
    ) -> np.ndarray:
        """Return audio of `notes`: float32 [samples], or [samples, 2] with `stereo`.

        Args:
          notes: NOTE_DTYPE [N], in any order.
          seconds: length of the result; None ends when the last note has died away (-80 dB, at
            most 8 s after its offset).
          detune_cents: tuning of every melodic instrument; drums stay.
          gain: linear factor. At 1.0 a loud single note peaks near 0.3.
          stereo: keep the bank's panning instead of its mono output.

        Raises:
          SoundfontError: if the bank lacks a program of `notes`.
          ValueError: if `notes` are not valid notes, last longer than 2 hours without `seconds`, or
            `seconds` is negative.
        """
        stems = self._stems(notes, seconds, detune_cents, stereo, mix=True)
        audio = next(iter(stems.values()), self._silence(seconds or 0.0, stereo))
        return _by_samples(audio) * np.float32(gain)

    def render_stems(
        self,
        notes: np.ndarray,
        *,
        seconds: float | None = None,
        detune_cents: float = 0.0,
        gain: float = 1.0,
        stereo: bool = False,
    ) -> dict[tuple[int, bool], np.ndarray]:
        """Render each instrument separately: {(program, is_drum): audio}, in ascending order.

        All stems have the same length; their sum is `render` of all the notes (to float32
        rounding).
        """
        stems = self._stems(notes, seconds, detune_cents, stereo, mix=False)
        return {
            instrument: _by_samples(audio) * np.float32(gain) for instrument, audio in stems.items()
        }

    def _stems(self, notes, seconds, detune_cents, stereo, mix: bool):
        """Return the audio [channels, samples] of each instrument; with `mix`, in one array."""
        validate_notes(notes, "Synthesizer.render")
        if seconds is not None and not 0 <= seconds < np.inf:
            raise ValueError(f"seconds={seconds}: must be finite and not negative")
        if seconds is None:
            check_length(notes, "Synthesizer.render", _LONGEST_HOURS)
        last = notes["offset"].max(initial=0.0)
        audio = self._silence(last + _MAX_TAIL_SECONDS if seconds is None else seconds, stereo)
        stems, end = {}, 0
        instruments = set(zip(notes["program"].tolist(), notes["is_drum"].tolist()))
        for program, is_drum in sorted(instruments):
            stem = audio if mix else np.zeros_like(audio)
            own = notes[(notes["program"] == program) & (notes["is_drum"] == is_drum)]
            detune = 0.0 if is_drum else detune_cents / 100
            self._play(self._regions(program, is_drum), own, detune, stem)
            stems[program, is_drum] = stem
        if seconds is not None:
            return stems
        for stem in stems.values():
            loud = np.flatnonzero((np.abs(stem) > _DIED_AWAY).any(axis=0))
            end = max(end, int(loud[-1]) + 1 if len(loud) else 0)
        return {instrument: stem[:, :end] for instrument, stem in stems.items()}

    def _silence(self, seconds: float, stereo: bool) -> np.ndarray:
        return np.zeros((2 if stereo else 1, round(seconds * self.sample_rate)), np.float32)

    def _regions(self, program: int, is_drum: bool) -> tuple[Region, ...]:
        """Return the regions of an instrument; of the first drum kit if it is missing."""
        bank = DRUM_BANK if is_drum else 0
        if (bank, program) not in self._font.presets:
            if not is_drum:
                raise SoundfontError(
                    f"{self.path}: no program {program}; it holds {self.programs or 'none'}: "
                    "choose another bank or map the notes' programs"
                )
            if not self.drum_kits:
                raise SoundfontError(f"{self.path}: no drum kit; choose another bank")
            program = self.drum_kits[0]
        return self._font.regions(bank, program)

    def _play(
        self, regions: tuple[Region, ...], notes: np.ndarray, detune: float, out: np.ndarray
    ) -> None:
        """Add the notes of one instrument to `out`, [channels, samples]."""
        notes = notes[np.lexsort((notes["velocity"], notes["pitch"], notes["onset"]))]
        onsets = np.rint(notes["onset"] * self.sample_rate).astype(np.int64)
        offsets = np.rint(notes["offset"] * self.sample_rate).astype(np.int64)
        struck = [
            [r for r in regions if _within(key, r.keys) and _within(velocity, r.velocities)]
            for key, velocity in zip(notes["pitch"].tolist(), notes["velocity"].tolist())
        ]
        chokes = _next_of_class(struck, onsets)
        for i, (note, onset) in enumerate(zip(notes, onsets.tolist())):
            room = out.shape[1] - onset
            for region in struck[i] if room > 0 else ():
                held = max(int(offsets[i]) - onset, 1)  # no note is lost
                choke = chokes.get((i, _exclusive_class(region)))
                strike = Strike(
                    int(note["pitch"]),
                    int(note["velocity"]),
                    held,
                    room,
                    self.sample_rate,
                    detune,
                    None if choke is None else choke - onset,
                )
                voice = render_voice(region, strike)
                gains = (1.0,)
                if len(out) == 2:
                    pan = np.clip(region.generators[Generator.PAN] / 1000, -0.5, 0.5)
                    gains = (np.sqrt(0.5 - pan), np.sqrt(0.5 + pan))
                for channel, gain in zip(out, gains):
                    channel[onset : onset + len(voice)] += np.float32(gain) * voice


def _by_samples(audio: np.ndarray) -> np.ndarray:
    """Transpose to samples first: [1, samples] -> [samples], [2, samples] -> [samples, 2]."""
    return audio[0] if len(audio) == 1 else np.ascontiguousarray(audio.T)


def _within(value: int, limits: tuple[int, int]) -> bool:
    return limits[0] <= value <= limits[1]


def _exclusive_class(region: Region) -> int:
    return int(region.generators[Generator.EXCLUSIVE_CLASS])


def _next_of_class(struck: list[list[Region]], onsets: np.ndarray) -> dict[tuple[int, int], int]:
    """Return {(note, exclusive class): the sample where a later note of the class silences it}."""
    chokes: dict[tuple[int, int], int] = {}
    following: dict[int, tuple[int, int]] = {}  # class -> (onset of the next note, of one later)
    for i in reversed(range(len(struck))):
        onset = int(onsets[i])
        for number in {_exclusive_class(region) for region in struck[i]} - {0}:
            near, later = following.get(number, (-1, -1))
            choke = near if near > onset else later
            if choke >= 0:
                chokes[i, number] = choke
            if near != onset:
                following[number] = (onset, near)
    return chokes
