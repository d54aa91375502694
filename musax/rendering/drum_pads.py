"""Parts of a drum kit: pads, velocity layers, takes; and their construction from recorded hits.

A recorded hit is cut so that sample 0 is its onset and brought to level 1; how loud a hit of some
velocity is, is the pad's business. So level is a smooth rising function of velocity on every pad,
whatever the recordings' levels were, and layers differ in timbre alone.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from musax.drum_pitches import HAT_PEDAL, STAND_INS

LEVEL_SECONDS = 0.1
LONGEST_SECONDS = 5.0
# A single recording played at all velocities spans a drummer's dynamics with this exponent.
SINGLE_LAYER_EXPONENT = 1.7
_EXPONENTS = (1.3, 2.3)
_SOFTEST = 8.0
_SILENCE = 1e-4
_FADE_IN_SECONDS = 0.0008
_CHICK_SECONDS = 0.035
_CHICK_GAIN = 0.5


class DrumKitError(ValueError):
    """A drum kit is missing, unreadable, or has nothing to play."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Recordings of hits of similar strength.

    Attributes:
      low, high: MIDI velocities, both included.
      takes: float32 [samples] each, level 1 (`hit_level`), onset at sample 0.
    """

    low: int
    high: int
    takes: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Pad:
    """A drum, cymbal or zone of one.

    Attributes:
      layers: by rising velocity, without gaps from 1 to 127.
      gain: `hit_level` of a hit of velocity 127.
      exponent: level rises as ((velocity + 8) / 135)^exponent.
      name: its name in the kit.
    """

    layers: tuple[Layer, ...]
    gain: float
    exponent: float
    name: str = ""

    def layer(self, velocity: int) -> Layer:
        """Return the layer of a velocity (1 to 127)."""
        return next((x for x in self.layers if velocity <= x.high), self.layers[-1])

    def amplitude(self, velocity):
        """Return the gain of a take for hits of the given velocity (number or array)."""
        # The offset keeps ghost notes within 35 dB of the loudest, as drummers do.
        soft = (np.asarray(velocity) + _SOFTEST) / (127.0 + _SOFTEST)
        return self.gain * soft**self.exponent


@dataclasses.dataclass(frozen=True, eq=False)
class DrumKit:
    """Pads by MIDI pitch (`musax.drum_pitches`).

    Attributes:
      name: of the kit.
      sample_rate: of all takes, Hz.
      pads: the kit's own; see `playable` for those it can stand in for.
      alternates: further instruments of the same pitch (a second kick), for mixing kits.
    """

    name: str
    sample_rate: int
    pads: Mapping[int, Pad]
    alternates: Mapping[int, tuple[Pad, ...]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def playable(self) -> dict[int, Pad]:
        """Pitch -> the pad that sounds: the kit's own, or one that may stand in for it."""
        found = dict(self.pads)
        for pitch, others in STAND_INS.items():
            stand_in = next((self.pads[other] for other in others if other in self.pads), None)
            if pitch not in found and stand_in is not None:
                is_chick = pitch == HAT_PEDAL
                found[pitch] = _damped(stand_in, self.sample_rate) if is_chick else stand_in
        return found

    def has(self, *pitches: int) -> bool:
        """Return whether all pitches sound, directly or through a stand-in."""
        return all(pitch in self.playable for pitch in pitches)


def hit_level(audio: np.ndarray, rate: int) -> float:
    """Return the root mean square of a hit's first 100 ms (shorter hits end in silence)."""
    head = audio[: round(LEVEL_SECONDS * rate)].astype(np.float64)
    return float(np.sqrt(np.sum(head**2) / (LEVEL_SECONDS * rate)))


def trim_hit(audio: np.ndarray, rate: int) -> np.ndarray:
    """Return one hit from its onset until it has died away.

    The onset is the first sample within 20 dB of the peak of the attack, which is the first 60 ms
    after the sound comes within 40 dB of its highest peak: cymbals may swell long after the strike.
    What comes up to 0.8 ms earlier fades in. A constant offset is taken away first. The tail ends
    where blocks of 10 ms stay 60 dB below the peak, or fades out before `LONGEST_SECONDS`.

    Args:
      audio: float32 [samples].

    Returns:
      float32 [samples]; empty for silence.
    """
    # The median, because a kick's mean is not zero.
    audio = audio - np.float32(np.median(audio) if len(audio) else 0.0)
    size = np.abs(audio)
    peak = float(size.max(initial=0.0))
    if peak < _SILENCE:
        return np.zeros(0, np.float32)
    first = int(np.argmax(size > 0.01 * peak))
    attack = size[first : first + round(0.06 * rate)]
    onset = first + int(np.argmax(attack > 0.1 * attack.max()))
    begin = max(0, onset - round(_FADE_IN_SECONDS * rate))
    block = round(0.01 * rate)
    blocks = np.pad(size[begin:], (0, -(len(size) - begin) % block)).reshape(-1, block)
    loud = np.flatnonzero(np.sqrt(np.mean(blocks**2, axis=1)) > 0.001 * peak)
    length = block * (int(loud[-1]) + 1 if len(loud) else 1)
    longest = round(LONGEST_SECONDS * rate)
    fade_out = block if length <= longest else round(0.2 * longest)
    hit = audio[begin : begin + min(length, longest)].astype(np.float32)
    hit[: onset - begin] *= np.linspace(0, 1, onset - begin, endpoint=False, dtype=np.float32)
    fade_out = min(fade_out, len(hit) // 2)
    hit[len(hit) - fade_out :] *= np.linspace(1, 0, fade_out, dtype=np.float32)
    return hit


def make_pad(
    layers: Sequence[tuple[float, Sequence[np.ndarray]]],
    rate: int,
    *,
    extra_exponent: float = 1.0,
    name: str = "",
) -> Pad | None:
    """Return a pad built from recordings.

    The recordings' levels determine how steeply the pad's level rises with velocity, in addition to
    the velocity gain of the kits' usual player.

    Args:
      layers: (highest velocity, recordings float32 [samples] with their gains applied), rising.
      extra_exponent: exponent of the velocity gain of the kit's usual player (Hydrogen 1).

    Returns:
      The pad, None where all recordings are silent.
    """
    kept: list[tuple[float, float, tuple[np.ndarray, ...]]] = []
    for high, recordings in layers:
        hits = [hit for hit in (trim_hit(x, rate) for x in recordings) if len(hit)]
        levels = [hit_level(hit, rate) for hit in hits]
        if hits:
            takes = tuple(hit / np.float32(level) for hit, level in zip(hits, levels))
            kept.append((high, float(np.mean(levels)), takes))
    if not kept:
        return None
    pad_layers, low = [], 1
    for i, (high, _, takes) in enumerate(kept):
        top = 127 if i + 1 == len(kept) else max(low, round(high))
        pad_layers.append(Layer(low, top, takes))
        low = min(127, top + 1)
    exponent = SINGLE_LAYER_EXPONENT
    if len(kept) > 1:
        centres = np.array([(x.low + x.high) / 2 for x in pad_layers])
        slope = np.polyfit(np.log(centres + _SOFTEST), np.log([level for _, level, _ in kept]), 1)[
            0
        ]
        exponent = float(np.clip(extra_exponent + slope, *_EXPONENTS))
    return Pad(tuple(pad_layers), kept[-1][1], exponent, name)


def map_takes(pad: Pad, function, rate: int, gain: float = 1.0) -> Pad:
    """Return the pad with `function(take)` for its takes, at its old level times `gain`."""

    def changed(take: np.ndarray) -> np.ndarray:
        new = function(take).astype(np.float32)
        return new / np.float32(max(hit_level(new, rate), 1e-9))

    layers = tuple(
        dataclasses.replace(layer, takes=tuple(map(changed, layer.takes))) for layer in pad.layers
    )
    return dataclasses.replace(pad, layers=layers, gain=pad.gain * gain)


def _damped(pad: Pad, rate: int) -> Pad:
    """Return a pedal chick from a closed hi-hat."""

    def damp(take: np.ndarray) -> np.ndarray:
        seconds = np.arange(min(len(take), round(6 * _CHICK_SECONDS * rate))) / rate
        return take[: len(seconds)] * np.exp(-seconds / _CHICK_SECONDS).astype(np.float32)

    return map_takes(pad, damp, rate, _CHICK_GAIN)
