"""One note of a soundfont's region as samples: envelopes, low-frequency oscillators, filter.

After the synthesis model of the SoundFont 2.01 specification, with linear interpolation between
samples and linear velocity. Everything is computed for a whole note at once.
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
    volume = _Envelope.of(values, G.VOLUME_ENV, strike)
    length = min(strike.room, volume.length(strike))
    quick = round(_SHORTEST_RELEASE_SECONDS * strike.rate)
    if strike.choked is not None:
        length = min(length, strike.choked + quick)
    time = np.arange(length) / strike.rate
    level = volume.levels(time, strike)
    if strike.choked is not None:
        level[strike.choked :] *= np.exp(-_DECAY * np.arange(length - strike.choked) / quick)
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
    samples = _interpolated(region, strike, bend, length)
    level = level[: len(samples)] * strike.velocity / 127
    level *= 10 ** (-max(values[G.ATTENUATION], 0) / 200)
    if values[G.MOD_LFO_TO_VOLUME]:
        level *= 10 ** (values[G.MOD_LFO_TO_VOLUME] * mod_lfo[: len(samples)] / 200)
    cutoff = (
        values[G.FILTER_FC]
        + values[G.MOD_ENV_TO_FILTER] * mod_env[: len(samples)]
        + values[G.MOD_LFO_TO_FILTER] * mod_lfo[: len(samples)]
    )
    return (_low_pass(samples, cutoff, values[G.FILTER_Q], strike.rate) * level).astype(np.float32)


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

    def length(self, strike: Strike) -> int:
        """Return the samples until the note has died away."""
        released = strike.held + int(np.ceil(self.release * strike.rate)) + 1
        if self.sustain >= _INAUDIBLE:
            return released
        fall = self.decay * np.log(1 / _INAUDIBLE) / _DECAY
        return min(released, int((self.delay + self.attack + self.hold + fall) * strike.rate) + 1)

    def levels(self, time: np.ndarray, strike: Strike) -> np.ndarray:
        """Return the level at each of `time`, float64 [n], s from the strike."""
        level = self._held(time)
        off = min(strike.held, len(time))
        if off < len(time):
            at_release = self._held(np.array([strike.held / strike.rate]))[0]
            passed = (time[off:] - strike.held / strike.rate) / self.release
            fallen = np.exp(-_DECAY * passed) if self.exponential else 1 - passed
            level[off:] = at_release * np.maximum(fallen, 0.0)
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


def _interpolated(region: Region, strike: Strike, bend: np.ndarray, length: int) -> np.ndarray:
    """Return the region's samples at the note's pitch, up to the end of the sample.

    Args:
      bend: cents, [length], or [1] for none.
    """
    scale = region.generators[G.SCALE_TUNING] / 100
    semitones = (strike.key + strike.detune - region.root_key) * scale + region.tune
    ratio = region.rate / strike.rate * 2 ** (semitones / 12)
    if bend.any():
        steps = ratio * 2 ** (bend / 1200)
        position = np.concatenate([[0.0], np.cumsum(steps[:-1])])
    else:
        position = np.arange(length) * ratio
    begin, end = region.loop
    if end > begin:
        looped = position >= end
        if region.generators[G.SAMPLE_MODES] & 3 == 3:  # the rest is played after the release
            looped[strike.held :] = False
            if strike.held < length and position[strike.held] >= end:
                turns = (position[strike.held] - begin) // (end - begin)
                position[strike.held :] -= turns * (end - begin)
        position[looped] = begin + (position[looped] - begin) % (end - begin)
    else:
        looped = np.zeros(0, bool)
    samples = region.samples
    position = position[: np.searchsorted(position, len(samples))] if not looped.any() else position
    position = np.minimum(position, len(samples) - 1e-6)
    whole = position.astype(np.int64)
    following = whole + 1
    if end > begin:
        following[following == end] = begin
    following = np.minimum(following, len(samples) - 1)
    first = samples[whole]
    return first + (position - whole).astype(np.float32) * (samples[following] - first)


def _low_pass(audio: np.ndarray, cents: np.ndarray, q_cb: int, rate: int) -> np.ndarray:
    """Filter by two poles whose cutoff is fixed, [1], or changes, [n].

    Args:
      cents: cutoff above 8.176 Hz.
      q_cb: height of the resonance, cB.
    """
    resonance = 10 ** (-max(q_cb, 0) / 200)
    lowest = np.min(cents, initial=np.inf)
    if lowest > _FILTER_OFF_CENTS or _hertz(lowest) >= 0.499 * rate:
        return audio
    step = max(int(_FILTER_STEP_SECONDS * rate), 1)
    grid = _FILTER_STEP_CENTS if len(cents) > 1 else 1.0
    steps = np.round(np.minimum(cents[::step], _FILTER_OFF_CENTS) / grid)
    changes = np.flatnonzero(np.diff(steps)) + 1
    out, state = audio.copy(), np.zeros(2)
    for first, last in itertools.pairwise([0, *changes.tolist(), len(steps)]):
        part = slice(first * step, last * step if last < len(steps) else None)
        hertz = _hertz(steps[first] * grid)
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
