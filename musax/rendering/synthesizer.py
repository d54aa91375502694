"""Notes to audio through a soundfont, by TinySoundFont (the `render` extra)."""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np

from musax.notes import validate_notes
from musax.rendering.soundfonts import SoundfontError, find_soundfont

_CHANNEL = 0
_DRUM_BANK = 128
_MAX_VOICES = 512
_BLOCK_SECONDS = 0.25
_MAX_TAIL_SECONDS = 8.0
_DIED_AWAY = 1e-4  # -80 dB of full scale: where a rendering may end
_SILENT = 1e-6  # -120 dB: where a pause need not be computed


def _backend():
    try:
        from tinysoundfont import _tinysoundfont  # its Synth class cannot clone a loaded bank
    except ImportError as error:
        raise ImportError(
            "rendering needs TinySoundFont: pip install 'musax[render]' "
            "(where PortAudio's headers are missing: pip install --no-deps tinysoundfont)"
        ) from error
    return _tinysoundfont


@functools.lru_cache(maxsize=4)
def _load(path: Path, modified_ns: int, size: int):
    """The bank decoded into memory; once per process, because large ones take seconds."""
    backend = _backend()
    with open(path, "rb") as file:
        header = file.read(12)
    if header[:4] != b"RIFF" or header[8:12] != b"sfbk":
        raise SoundfontError(f"{path}: not a soundfont (expected a RIFF file of type sfbk)")
    try:
        return backend.SoundFont(os.fspath(path))
    except RuntimeError as error:
        raise SoundfontError(
            f"{path}: damaged or unsupported soundfont ({error}); fetch it again"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Events:
    """Note events of one instrument in playing order; equal samples: ends before beginnings."""

    sample: np.ndarray  # int64 [2N]
    starts: np.ndarray  # bool [2N]
    pitch: np.ndarray  # int [2N]
    velocity: np.ndarray  # int [2N]


class Synthesizer:
    """Plays notes through one soundfont.

    Deterministic: the same notes give the same samples. Events fall on exact samples. Every
    instrument (program, is_drum) plays apart and the results are added, so any number of them can
    sound and a mix is the sum of its stems. The output is not limited to ±1: mixing or
    writing decides what to do with loud passages.
    """

    def __init__(self, soundfont: str | os.PathLike | None = None, sample_rate: int = 16000):
        """
        Args:
          soundfont: path or name of a bank, see `find_soundfont`; None for the default bank.
          sample_rate: Hz.

        Raises:
          ImportError: if TinySoundFont is not installed.
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
        return [i for i in range(128) if self._font.get_preset_index(0, i) >= 0]

    @property
    def drum_kits(self) -> list[int]:
        """Programs of the bank's drum kits; others fall back to the first."""
        return [i for i in range(128) if self._font.get_preset_index(_DRUM_BANK, i) >= 0]

    def render(
        self,
        notes: np.ndarray,
        *,
        seconds: float | None = None,
        detune_cents: float = 0.0,
        gain: float = 1.0,
        stereo: bool = False,
    ) -> np.ndarray:
        """Audio of `notes`: float32 [samples], or [samples, 2] with `stereo`.

        Args:
          notes: NOTE_DTYPE [N], in any order.
          seconds: length of the result; None ends when the last note has died away (-80 dB, at
            most 8 s after its offset).
          detune_cents: tuning of every melodic instrument; drums stay.
          gain: linear factor. At 1.0 a loud single note peaks near 0.3.
          stereo: keep the bank's panning instead of its mono output.

        Raises:
          SoundfontError: if the bank lacks a program of `notes`.
          ValueError: if `notes` are not valid notes or `seconds` is negative.
        """
        stems = self._stems(notes, seconds, detune_cents, stereo, mix=True)
        return next(iter(stems.values()), self._silence(seconds or 0.0, stereo)) * np.float32(gain)

    def render_stems(
        self,
        notes: np.ndarray,
        *,
        seconds: float | None = None,
        detune_cents: float = 0.0,
        gain: float = 1.0,
        stereo: bool = False,
    ) -> dict[tuple[int, bool], np.ndarray]:
        """`render` of each instrument apart: {(program, is_drum): audio}, in ascending order.

        All stems have the same length; their sum is `render` of all the notes (to float32
        rounding).
        """
        stems = self._stems(notes, seconds, detune_cents, stereo, mix=False)
        return {instrument: audio * np.float32(gain) for instrument, audio in stems.items()}

    def _stems(self, notes, seconds, detune_cents, stereo, mix: bool):
        """Audio of each instrument; with `mix`, all share one array."""
        validate_notes(notes, "Synthesizer.render")
        if seconds is not None and not 0 <= seconds < np.inf:
            raise ValueError(f"seconds={seconds}: must be finite and not negative")
        last = notes["offset"].max(initial=0.0)
        audio = self._silence(last + _MAX_TAIL_SECONDS if seconds is None else seconds, stereo)
        instruments = set(zip(notes["program"].tolist(), notes["is_drum"].tolist()))
        stems, end = {}, 0
        for program, is_drum in sorted(instruments):
            stem = audio if mix else np.zeros_like(audio)
            player = self._player(program, is_drum, detune_cents, stereo)
            own = notes[(notes["program"] == program) & (notes["is_drum"] == is_drum)]
            end = max(end, self._play(player, _events(own, self.sample_rate), stem))
            stems[program, is_drum] = stem
        if seconds is not None:
            return stems
        return {instrument: stem[:end] for instrument, stem in stems.items()}

    def _silence(self, seconds: float, stereo: bool) -> np.ndarray:
        samples = round(seconds * self.sample_rate)
        return np.zeros((samples, 2) if stereo else samples, np.float32)

    def _player(self, program: int, is_drum: bool, detune_cents: float, stereo: bool):
        """A fresh copy of the bank (its samples are shared) set to one instrument."""
        if not is_drum and self._font.get_preset_index(0, program) < 0:
            raise SoundfontError(
                f"{self.path}: no program {program}; it holds {self.programs or 'none'}: "
                "choose another bank or map the notes' programs"
            )
        backend = _backend()
        player = backend.SoundFont(self._font)
        modes = backend.OutputMode
        mode = modes.StereoInterleaved if stereo else modes.Mono
        player.set_output(mode, self.sample_rate, 0.0)
        player.set_max_voices(_MAX_VOICES)
        try:
            player.channel_set_bank(_CHANNEL, 0)
            player.channel_set_preset_number(_CHANNEL, program, is_drum)
        except RuntimeError as error:
            raise SoundfontError(f"{self.path}: no drum kit; choose another bank") from error
        if not is_drum:
            player.channel_set_tuning(_CHANNEL, detune_cents / 100.0)
        return player

    def _play(self, player, events: _Events, out: np.ndarray) -> int:
        """Adds what `player` makes of the events to `out`; the sample where it has died away."""
        scratch = np.zeros((round(_BLOCK_SECONDS * self.sample_rate), *out.shape[1:]), np.float32)
        position, held = 0, 0
        audible = False

        def advance(end: int, floor: float) -> None:
            """Renders up to sample `end`, or until a released sound falls below `floor`."""
            nonlocal position, audible
            end = min(end, len(out))
            while position < end and (held or audible):
                block = scratch[: min(len(scratch), end - position)]
                player.render(memoryview(block).cast("B"), False)
                out[position : position + len(block)] += block
                position += len(block)
                # Short blocks tell little: the sound may be at a zero crossing.
                audible = len(block) < len(scratch) or float(np.abs(block).max()) > floor
            if end < len(out):
                position = end

        columns = (events.sample, events.starts, events.pitch, events.velocity)
        for sample, starts, pitch, velocity in zip(*(column.tolist() for column in columns)):
            if sample >= len(out):
                break
            advance(sample, _SILENT)
            if starts:
                player.channel_note_on(_CHANNEL, pitch, velocity / 127.0)
                held, audible = held + 1, True
            else:
                player.channel_note_off(_CHANNEL, pitch)
                held -= 1
        advance(len(out), _DIED_AWAY)
        return position


def _events(notes: np.ndarray, sample_rate: int) -> _Events:
    onset = np.rint(notes["onset"] * sample_rate).astype(np.int64)
    # At least one sample, or the end would come before the beginning and the note would stick.
    offset = np.maximum(np.rint(notes["offset"] * sample_rate).astype(np.int64), onset + 1)
    sample = np.concatenate([offset, onset])
    starts = np.repeat([False, True], len(notes))
    pitch, velocity = np.tile(notes["pitch"], 2), np.tile(notes["velocity"], 2)
    order = np.lexsort((velocity, pitch, starts, sample))
    return _Events(sample[order], starts[order], pitch[order], velocity[order])
