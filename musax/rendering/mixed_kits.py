"""New drum kits from existing ones, so that a model generalises to unseen kits.

Every group of instruments comes from a different kit and is tuned, equalised, damped and levelled
at random, so that fifteen kits yield any number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from musax.audio import resample
from musax.drum_pitches import GROUPS
from musax.rendering.augment import convolve, minimum_phase
from musax.rendering.drum_pads import DrumKit, Pad, map_takes

#: Pitches that a kit must play to lend a whole group, by group.
_NEEDED = {
    "kick": (36,),
    "snare": (38,),
    "hi-hat": (42, 46),
    "toms": (43, 48),
    "crash": (49,),
    "ride": (51,),
}
_FILTER_TAPS = 512
#: Level (`Pad.gain`) of the leading pad of a group in dB, about the median of recorded kits; a
#: pad of the percussion is its own leader. Kits differ too much to be mixed at their own levels.
_LEVEL_DB = {
    "kick": -10.0,
    "snare": -12.0,
    "hi-hat": -22.0,
    "toms": -11.0,
    "crash": -20.0,
    "ride": -25.0,
    "percussion": -18.0,
}


def mix_drum_kits(
    kits: Sequence[DrumKit],
    rng: np.random.Generator,
    *,
    semitones: float = 3.0,
    gain_db: float = 2.5,
    equalizer_db: float = 4.0,
    damping: float = 0.4,
    name: str = "mixed",
) -> DrumKit:
    """Return a kit whose groups (`musax.drum_pitches.GROUPS`) come from randomly drawn kits.

    Pads that the drawn kit lacks (a bell, a cross-stick, any percussion) come from others. The
    pads of a group are changed alike, but for small differences.

    Args:
      kits: at least one, all of one sample rate.
      semitones: tuning of a group, up or down at most.
      gain_db: level of a group, up or down at most, from what is usual in recorded kits.
      equalizer_db: tilt and bell of a group's colour, up or down at most.
      damping: probability that a group is damped (decays faster).

    Raises:
      ValueError: no kits, or kits of several sample rates.
    """
    if not kits or len({kit.sample_rate for kit in kits}) != 1:
        raise ValueError("mix_drum_kits: needs at least one kit, and all of one sample rate")
    rate = kits[0].sample_rate
    pads: dict[int, Pad] = {}
    for group, pitches in GROUPS.items():
        chosen = _choose(kits, group, rng)
        drawn = {pitch: _pad_of(chosen, kits, pitch, rng) for pitch in pitches}
        found = {pitch: pad for pitch, pad in drawn.items() if pad is not None}
        together = [found] if group != "percussion" else [{p: pad} for p, pad in found.items()]
        for parts in together:
            change = _draw_change(rng, semitones, equalizer_db, damping)
            leader = next((p for p in _NEEDED.get(group, ()) if p in parts), next(iter(parts), 0))
            level = _LEVEL_DB[group] + rng.uniform(-gain_db, gain_db)
            for pitch, pad in parts.items():
                # What comes from another kit has its own reference, itself.
                own = pad.gain if chosen is None or pitch not in chosen.pads else parts[leader].gain
                pads[pitch] = _changed(pad, change, rate, 10 ** (level / 20) / own)
    return DrumKit(name, rate, pads)


def _choose(kits: Sequence[DrumKit], group: str, rng: np.random.Generator) -> DrumKit | None:
    able = [kit for kit in kits if group in _NEEDED and kit.has(*_NEEDED[group])]
    return able[int(rng.integers(len(able)))] if able else None


def _pad_of(
    kit: DrumKit | None, kits: Sequence[DrumKit], pitch: int, rng: np.random.Generator
) -> Pad | None:
    """Return the drawn kit's pad, sometimes its alternate; another kit's if it has none."""
    if kit is not None and pitch in kit.playable and pitch not in kit.pads:
        return None  # the mixed kit finds the same stand-in by itself
    if kit is None or pitch not in kit.pads:
        others = [other for other in kits if pitch in other.pads]
        if not others:
            return None
        kit = others[int(rng.integers(len(others)))]
    choices = (kit.pads[pitch], *kit.alternates.get(pitch, ()))
    return choices[int(rng.integers(len(choices)))]


class _Change(NamedTuple):
    """Random changes of the takes of one group; every number drawn once."""

    ratio: float  # of pitch
    taps: np.ndarray  # colour
    decay_s: float | None  # extra damping


def _draw_change(rng, semitones, equalizer_db, damping) -> _Change:
    tilt, bell = rng.uniform(-equalizer_db, equalizer_db, 2)
    centre, width = rng.uniform(0.02, 0.9), rng.uniform(0.05, 0.3)
    position = np.linspace(0.0, 1.0, _FILTER_TAPS // 2 + 1)
    position = np.log2(1 + 255 * position) / 8  # about octaves, from 90 Hz to half the rate
    curve = tilt * (position - 0.5) + bell * np.exp(-0.5 * ((position - centre) / width) ** 2)
    decay = float(np.exp(rng.uniform(np.log(0.08), np.log(0.8))))
    return _Change(
        ratio=float(2 ** (rng.uniform(-semitones, semitones) / 12)),
        taps=minimum_phase(curve),
        decay_s=decay if rng.random() < damping else None,
    )


def _changed(pad: Pad, change: _Change, rate: int, gain: float) -> Pad:
    def function(take: np.ndarray) -> np.ndarray:
        take = resample(take, rate * change.ratio, rate)
        take = convolve(take, change.taps)
        if change.decay_s is not None:
            length = min(len(take), round(7 * change.decay_s * rate))
            seconds = np.arange(length, dtype=np.float32) / np.float32(rate)
            take = take[:length] * np.exp(-seconds / np.float32(change.decay_s))
        return take

    return map_takes(pad, function, rate, gain)
