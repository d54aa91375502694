"""Render drum notes on a `DrumKit`: velocity layers, round robin, choked hi-hats, exact onsets."""

import weakref

import numpy as np

from musax.audio import resample
from musax.drum_pitches import CLOSED_HATS, HAT_PEDAL, OPEN_HATS
from musax.notes import validate_notes
from musax.rendering.drum_pads import DrumKit

_VARIANTS = 5
_HATS = (*CLOSED_HATS, *OPEN_HATS, HAT_PEDAL)
_CHOKE_SECONDS = 0.02
# A drum that is struck again is damped by the stick; cymbals ring on.
_RESTRIKE_SECONDS = 0.08
_RINGING = frozenset((49, 52, 55, 57, 51, 53, 59))
_CACHE_BYTES = 400_000_000


def sounding_notes(notes: np.ndarray, kit: DrumKit) -> np.ndarray:
    """Return the drum notes that the kit plays, on their own pad or on a stand-in.

    An inaudible note must not be a label. Pitches stay as performed; a stand-in is of the same
    kind (`musax.drum_pitches.STAND_INS`). Notes that are not drums are left out.
    """
    return notes[notes["is_drum"] & np.isin(notes["pitch"], list(kit.playable))]


def render_drums(
    notes: np.ndarray,
    kit: DrumKit,
    *,
    seconds: float | None = None,
    rng: np.random.Generator | None = None,
    velocity_db: float = 1.0,
    detune_cents: float = 8.0,
    timing_s: float = 0.0,
) -> np.ndarray:
    """Return audio of drum notes: float32 [samples], mono, `kit.sample_rate`, not normalised.

    A hit begins at sample round(onset · rate) and sounds until it has died away, whatever the
    note's offset says, unless it is stopped: any hit of the hi-hat ends the one before, and other
    drums fade when they are struck again. Notes that the kit cannot play are silent.

    Args:
      notes: NOTE_DTYPE [N], in any order; only drums are played.
      seconds: length of the result; None ends when the last hit has died away.
      rng: draws takes, detuning, levels and timing; None plays takes in turn and nothing else
        varies. The same notes, kit and generator state give the same samples.
      velocity_db: standard deviation of the hits' levels.
      detune_cents: a hit is tuned at most this far up or down, in five steps.
      timing_s: standard deviation of the hits' times. Labels are then inexact.

    Raises:
      ValueError: invalid notes, or `seconds` negative.
    """
    validate_notes(notes, "render_drums")
    if seconds is not None and not 0 <= seconds < np.inf:
        raise ValueError(f"seconds={seconds}: must be finite and not negative")
    notes = sounding_notes(notes, kit)
    notes = notes[np.lexsort((notes["pitch"], notes["onset"]))]
    onset = notes["onset"].copy()
    if rng is None:
        jitter_db, variants = np.zeros(len(notes)), np.full(len(notes), _VARIANTS // 2)
    else:
        jitter_db = rng.normal(0, velocity_db, len(notes))
        variants = rng.integers(_VARIANTS, size=len(notes))
        onset = np.maximum(0.0, onset + rng.normal(0, timing_s, len(notes)))
    starts = np.rint(onset * kit.sample_rate).astype(np.int64)
    takes = _choose_takes(notes, kit, rng)
    hits = [
        _variant(kit, pitch, layer, take, variant, detune_cents)
        for (pitch, layer, take), variant in zip(takes, variants.tolist())
    ]
    gains = np.array(
        [
            float(kit.playable[pitch].amplitude(velocity))
            for pitch, velocity in zip(notes["pitch"].tolist(), notes["velocity"].tolist())
        ]
    ) * 10 ** (jitter_db / 20)
    last = max((s + len(hit) for s, hit in zip(starts.tolist(), hits)), default=0)
    out = np.zeros(last if seconds is None else round(seconds * kit.sample_rate), np.float32)
    stops = _stops(notes["pitch"], starts, kit.sample_rate)
    for hit, gain, start, (stop, fade) in zip(hits, gains.tolist(), starts.tolist(), stops):
        _add(out, hit, np.float32(gain), start, stop - start, fade)
    return out


def _choose_takes(notes, kit: DrumKit, rng) -> list[tuple[int, int, int]]:
    """Return (pitch, layer number, take number) per note; no repeated take where others exist."""
    last: dict[tuple[int, int], int] = {}
    chosen = []
    for pitch, velocity in zip(notes["pitch"].tolist(), notes["velocity"].tolist()):
        layers = kit.playable[pitch].layers
        number = next((i for i, x in enumerate(layers) if velocity <= x.high), len(layers) - 1)
        count, key = len(layers[number].takes), (pitch, number)
        step = 1 if rng is None or count < 3 else int(rng.integers(1, count))
        if key not in last:
            take = 0 if rng is None else int(rng.integers(count))
        else:
            take = (last[key] + step) % count
        last[key] = take
        chosen.append((pitch, number, take))
    return chosen


def _stops(pitch: np.ndarray, starts: np.ndarray, rate: int) -> list[tuple[int, int]]:
    """Return (sample where a hit begins to fade, length of the fade) per note, in playing order."""
    never = np.iinfo(np.int64).max
    stops: list[tuple[int, int]] = [(never, 0)] * len(pitch)
    sounding: dict[int, int] = {}
    for i, (key, start) in enumerate(zip(pitch.tolist(), starts.tolist())):
        if key in _RINGING:
            continue
        is_hat = key in _HATS
        voice = _HATS[0] if is_hat else key
        before = sounding.get(voice)
        if before is not None and start > starts[before]:
            fade = _CHOKE_SECONDS if is_hat else _RESTRIKE_SECONDS
            stops[before] = (start, round(fade * rate))
        sounding[voice] = i
    return stops


def _add(
    out: np.ndarray, hit: np.ndarray, gain: np.float32, start: int, held: int, fade: int
) -> None:
    """Add a hit to `out` at `start`; it fades linearly over `fade` samples after `held`."""
    length = min(len(hit), len(out) - start, held + fade)
    if length <= 0:
        return
    wave = hit[:length] * gain
    if held < length:
        wave[held:] *= np.linspace(1, 0, fade, endpoint=False, dtype=np.float32)[: length - held]
    out[start : start + length] += wave


class _VariantCache(dict):
    """Detuned takes of one kit; emptied when it grows too large."""

    nbytes = 0

    def keep(self, key, audio: np.ndarray) -> np.ndarray:
        if self.nbytes > _CACHE_BYTES:
            self.clear()
            self.nbytes = 0
        self[key] = audio
        self.nbytes += audio.nbytes
        return audio


_variants: weakref.WeakKeyDictionary[DrumKit, _VariantCache] = weakref.WeakKeyDictionary()


def _variant(
    kit: DrumKit, pitch: int, layer: int, take: int, variant: int, detune_cents: float
) -> np.ndarray:
    """Return a take, tuned by one of `_VARIANTS` steps between ±`detune_cents`."""
    original = kit.playable[pitch].layers[layer].takes[take]
    cents = detune_cents * (2 * variant / (_VARIANTS - 1) - 1)
    if not cents:
        return original
    cache = _variants.setdefault(kit, _VariantCache())
    key = (pitch, layer, take, cents)
    if key not in cache:
        detuned = resample(original, kit.sample_rate * 2 ** (cents / 1200), kit.sample_rate)
        return cache.keep(key, detuned)
    return cache[key]
