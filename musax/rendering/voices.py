"""One note of a soundfont's region as samples: envelopes, low-frequency oscillators, filter.

After the synthesis model of the SoundFont 2.01 specification, with linear interpolation between
samples and linear velocity. A note is computed as a whole.
"""

import dataclasses
import itertools

import numpy as np
from scipy import signal

from musax.rendering.soundfont_file import Generator as G
from musax.rendering.soundfont_file import Region

_DECAY = np.log(1e4)  # an envelope's decay and release times are those of falling by 80 dB
_SHORTEST_RELEASE_SECONDS = 0.01
_FILTER_OFF_CENTS = 13500
_FILTER_STEP_SECONDS, _FILTER_STEP_CENTS = 0.004, 20.0  # in which a moving cutoff is followed
_CONTROL_SECONDS = 0.001
_INAUDIBLE = 1e-5


@dataclasses.dataclass(frozen=True)
class Strike:
    """How a note is played.

    Attributes:
      key: MIDI.
      velocity: 1 to 127.
      held: samples until it is released.
      room: the most samples that are wanted.
      rate: of the result, Hz.
      detune: semitones.
      choked: samples until a note of its exclusive class silences it; None for never.
    """

    key: int
    velocity: int
    held: int
    room: int
    rate: int
    detune: float = 0.0
    choked: int | None = None


def render_voice(region: Region, strike: Strike) -> np.ndarray:
    """Return float32 [n] samples, n <= strike.room: the note until it has died away."""
    values = region.generators
    loudness = strike.velocity / 127 * 10 ** (-max(values[G.ATTENUATION], 0) / 200)
    volume = _Envelope.of(values, G.VOLUME_ENV, strike)
    length = min(strike.room, volume.length(strike, loudness))
    quick = round(_SHORTEST_RELEASE_SECONDS * strike.rate)
    if strike.choked is not None:
        length = min(length, strike.choked + quick)
    step = max(round(_CONTROL_SECONDS * strike.rate), 1)
    # Envelopes and oscillators are computed every `step` samples, with lines in between.
    time = np.arange(-(-length // step) + 1) * (step / strike.rate)
    level = loudness * volume.levels(time, strike)
    mod_env = mod_lfo = vib_lfo = np.zeros(1)
    if values[G.MOD_ENV_TO_PITCH] or values[G.MOD_ENV_TO_FILTER]:
        mod_env = _Envelope.of(values, G.MOD_ENV, strike).levels(time, strike)
    if values[[G.MOD_LFO_TO_PITCH, G.MOD_LFO_TO_FILTER, G.MOD_LFO_TO_VOLUME]].any():
        mod_lfo = _triangle(time, values[G.MOD_LFO_DELAY], values[G.MOD_LFO_FREQUENCY])
    if values[G.VIB_LFO_TO_PITCH]:
        vib_lfo = _triangle(time, values[G.VIB_LFO_DELAY], values[G.VIB_LFO_FREQUENCY])
    bend = (
        values[G.MOD_ENV_TO_PITCH] * mod_env
        + values[G.MOD_LFO_TO_PITCH] * mod_lfo
        + values[G.VIB_LFO_TO_PITCH] * vib_lfo
    )
    if values[G.MOD_LFO_TO_VOLUME]:
        level = level * 10 ** (values[G.MOD_LFO_TO_VOLUME] * mod_lfo / 200)
    cutoff = (
        values[G.FILTER_FC]
        + values[G.MOD_ENV_TO_FILTER] * mod_env
        + values[G.MOD_LFO_TO_FILTER] * mod_lfo
    )
    audio = _interpolated(region, strike, bend, step, length)
    audio = _low_pass(audio, cutoff, step, values[G.FILTER_Q], strike.rate)
    audio = audio * _lines(level, step, len(audio))
    if strike.choked is not None and strike.choked < len(audio):
        falling = np.exp(-_DECAY * np.arange(len(audio) - strike.choked) / quick)
        audio[strike.choked :] *= falling.astype(np.float32)
    return audio


def _lines(points: np.ndarray, step: int, length: int) -> np.ndarray:
    """Return float32 [length]: lines between points that are `step` samples apart."""
    points = points.astype(np.float32)
    rising = np.arange(step, dtype=np.float32) / step
    lines = points[:-1, None] + np.diff(points)[:, None] * rising
    return lines.reshape(-1)[:length]


def _seconds(timecents: float) -> float:
    return 0.0 if timecents <= -12000 else float(2 ** (timecents / 1200))


@dataclasses.dataclass(frozen=True)
class _Envelope:
    """Delay, attack (linear), hold, decay, sustain, release; times in s.

    The volume falls exponentially, the modulation linearly.
    """

    delay: float
    attack: float
    hold: float
    decay: float
    sustain: float
    release: float
    exponential: bool

    @classmethod
    def of(cls, values: np.ndarray, first: int, strike: Strike) -> "_Envelope":
        delay, attack, hold, decay, sustain, release, key_hold, key_decay = values[
            first : first + 8
        ].tolist()
        below = 60 - strike.key
        exponential = first == G.VOLUME_ENV
        return cls(
            _seconds(delay),
            _seconds(attack) * (1.0 if exponential else (145 - strike.velocity) / 144),
            _seconds(hold + key_hold * below if hold > -12000 else hold),
            _seconds(decay + key_decay * below if decay > -12000 else decay),
            10 ** (-max(sustain, 0) / 200)
            if exponential
            else 1 - min(max(sustain, 0), 1000) / 1000,
            max(_seconds(release), _SHORTEST_RELEASE_SECONDS),
            exponential,
        )

    def length(self, strike: Strike, loudness: float) -> int:
        """Return the samples until the note has died away; `loudness` is that of level 1."""
        at_release = loudness * self._held(np.array([strike.held / strike.rate]))[0]
        fall = np.log(max(at_release / _INAUDIBLE, 1.0)) / _DECAY * self.release
        released = strike.held + int(np.ceil(min(fall, self.release) * strike.rate)) + 1
        if self.sustain >= _INAUDIBLE:
            return released
        fall = self.decay * np.log(1 / _INAUDIBLE) / _DECAY
        return min(released, int((self.delay + self.attack + self.hold + fall) * strike.rate) + 1)

    def levels(self, time: np.ndarray, strike: Strike) -> np.ndarray:
        """Return the level at each of `time`, float64 [n], s from the strike."""
        level = self._held(time)
        released = time > strike.held / strike.rate
        if released.any():
            at_release = self._held(np.array([strike.held / strike.rate]))[0]
            passed = (time[released] - strike.held / strike.rate) / self.release
            fallen = np.exp(-_DECAY * passed) if self.exponential else 1 - passed
            level[released] = at_release * np.maximum(fallen, 0.0)
        return level

    def _held(self, time: np.ndarray) -> np.ndarray:
        decays = self.delay + self.attack + self.hold
        passed = np.maximum(time - decays, 0.0) / max(self.decay, 1e-6)
        fallen = np.exp(-_DECAY * passed) if self.exponential else 1 - passed
        level = np.maximum(fallen, self.sustain)
        if self.delay or self.attack:
            rising = (time - self.delay) / max(self.attack, 1e-9)
            level *= np.clip(rising, 0.0, 1.0)
        return level


def _triangle(time: np.ndarray, delay: int, frequency: int) -> np.ndarray:
    """Return a triangle wave between -1 and 1 that begins at 0 and rises after its delay."""
    phase = np.maximum(time - _seconds(delay), 0.0) * _hertz(frequency) + 0.75
    return 4 * np.abs(phase - np.floor(phase) - 0.5) - 1


def _interpolated(
    region: Region, strike: Strike, bend: np.ndarray, step: int, length: int
) -> np.ndarray:
    """Return the region's samples at the note's pitch, up to the end of the sample.

    Args:
      bend: cents, every `step` samples; or [1], for none.
    """
    scale = region.generators[G.SCALE_TUNING] / 100
    semitones = (strike.key + strike.detune - region.root_key) * scale + region.tune
    ratio = region.rate / strike.rate * 2 ** (semitones / 12)
    if bend.any():
        steps = np.repeat(ratio * 2 ** (bend / 1200), step)[: length - 1]
        position = np.concatenate([[0.0], np.cumsum(steps)])
    else:
        position = np.arange(length) * ratio
    released = position[strike.held] if strike.held < length else np.inf
    samples = _unrolled(region, position[-1], released)
    if position[-1] >= len(samples) - 1:
        position = position[: np.searchsorted(position, len(samples) - 1)]
    whole = position.astype(np.int64)
    first = samples[whole]
    return first + (position - whole).astype(np.float32) * (samples[1:][whole] - first)


def _unrolled(region: Region, last: float, released: float) -> np.ndarray:
    """Return the samples with the loop written out as long as it is played.

    Args:
      last: position that is read at the end.
      released: position where the note is released; a loop may end there.
    """
    begin, end = region.loop
    if end <= begin or last < end - 1:
        return region.samples
    ends = region.generators[G.SAMPLE_MODES] & 3 == 3  # the rest is played after the release
    turns = int(max((released if ends and released < last else last) - end, 0) // (end - begin)) + 1
    parts = [region.samples[:end], np.tile(region.samples[begin:end], turns)]
    if ends and released < last:
        parts.append(region.samples[end:])
    else:
        parts.append(region.samples[begin : begin + 2])
    return np.concatenate(parts)


def _low_pass(audio: np.ndarray, cents: np.ndarray, step: int, q_cb: int, rate: int) -> np.ndarray:
    """Filter by two poles.

    Args:
      cents: cutoff above 8.176 Hz, every `step` samples; or [1], if it does not move.
      q_cb: height of the resonance, cB.
    """
    resonance = 10 ** (-max(q_cb, 0) / 200)
    lowest = cents.min()
    if lowest > _FILTER_OFF_CENTS or _hertz(lowest) >= 0.499 * rate:
        return audio
    if len(cents) == 1:
        return np.asarray(signal.lfilter(*_coefficients(_hertz(lowest), resonance, rate), audio))
    every = max(round(_FILTER_STEP_SECONDS / _CONTROL_SECONDS), 1)
    grid = np.round(np.minimum(cents[::every], _FILTER_OFF_CENTS) / _FILTER_STEP_CENTS)
    grid = grid[: -(-len(audio) // (every * step))]
    changes = np.flatnonzero(np.diff(grid)) + 1
    out, state = audio.copy(), np.zeros(2, np.float32)
    for first, last in itertools.pairwise([0, *changes.tolist(), len(grid)]):
        part = slice(first * every * step, last * every * step)
        hertz = _hertz(grid[first] * _FILTER_STEP_CENTS)
        if hertz < 0.499 * rate:
            poles = _coefficients(hertz, resonance, rate)
            out[part], state = signal.lfilter(*poles, audio[part], zi=state)
    return out


def _hertz(cents: float) -> float:
    return 8.176 * 2 ** (cents / 1200)


def _coefficients(hertz: float, resonance: float, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numerator and denominator of a two-pole low-pass by the bilinear transform."""
    k = np.tan(np.pi * hertz / rate)
    norm = 1 / (1 + k * resonance + k * k)
    numerator = np.array([1.0, 2.0, 1.0]) * (k * k * norm)
    denominator = np.array([1.0, 2 * (k * k - 1) * norm, (1 - k * resonance + k * k) * norm])
    return numerator, denominator
