"""Synthetic drum kits with random parameters, from drum machine to near acoustic.

Based on the acoustics of drums (Fletcher & Rossing, ch. 18-20) and on drum machines: a membrane is
a few damped sines whose pitch falls after the strike, snares and stick are filtered noise, metal
is a dense inharmonic spectrum. Harder strikes are brighter: the level of high parts (click, snares,
upper partials) rises faster than that of the fundamental.
"""

import dataclasses

import numpy as np
import scipy.fft

from musax.rendering.drum_pads import DrumKit, Pad, make_pad

_STRENGTHS = (0.25, 0.5, 0.75, 1.0)
_TAKES = 2
# Modes of an ideal membrane, relative to the lowest.
_MEMBRANE = np.array([1.0, 1.59, 2.14, 2.30, 2.65, 2.92, 3.50])
# Square-wave oscillators of the TR-808's cymbals and hi-hats, Hz.
_METAL = np.array([205.3, 304.4, 369.6, 522.7, 540.0, 800.0])


@dataclasses.dataclass(frozen=True)
class _Body:
    """A membrane or a resonator: damped sines with a falling pitch."""

    hz: float
    ratios: np.ndarray
    levels: np.ndarray
    decay_s: float
    bend: float  # by what factor the pitch starts higher
    bend_s: float


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def virtual_drum_kit(rng: np.random.Generator, sample_rate: int = 44100) -> DrumKit:
    """Return a random synthetic kit; the same generator state gives the same kit.

    Every pad has four velocity layers of two takes.
    """
    synth = _Synth(sample_rate, rng, acoustic=rng.random())
    pads = synth.kick() | synth.snare() | synth.toms() | synth.hats() | synth.cymbals()
    pads |= synth.percussion()
    return DrumKit("virtual", sample_rate, pads)


class _Synth:
    """Draws instruments; `acoustic` from 0 (drum machine) to 1 sets how rich they are."""

    def __init__(self, rate: int, rng: np.random.Generator, acoustic: float):
        self.rate, self.rng, self.acoustic = rate, rng, acoustic
        self.exponent = rng.uniform(1.3, 2.2)

    # ------------------------------------------------------------------------------- instruments

    def kick(self) -> dict[int, Pad]:
        rng = self.rng
        body = self._body(_log_uniform(rng, 42, 75), _log_uniform(rng, 0.06, 0.35), bend=(1.5, 6.0))
        click = (_log_uniform(rng, 800, 6000), _log_uniform(rng, 0.002, 0.012))
        level = _log_uniform(rng, 0.03, 0.5)

        def strike(strength: float) -> np.ndarray:
            snap = self._noise(*click, width=2.0) * level * strength**0.8
            return _add(self._tone(body, strength), snap)

        return {36: self._pad(strike, 1.0, "kick")}

    def snare(self) -> dict[int, Pad]:
        rng = self.rng
        body = self._body(_log_uniform(rng, 150, 260), _log_uniform(rng, 0.04, 0.16))
        wires = (_log_uniform(rng, 2200, 6000), _log_uniform(rng, 0.05, 0.2))
        wire_level, wire_width = _log_uniform(rng, 0.4, 2.5), rng.uniform(1.5, 3.5)
        rim = self._body(
            _log_uniform(rng, 380, 900), _log_uniform(rng, 0.02, 0.07), bend=(1.0, 1.1)
        )

        def head(strength: float) -> np.ndarray:
            noise = self._noise(*wires, width=wire_width) * wire_level * strength**0.4
            return _add(self._tone(body, strength), noise)

        stick = self._body(_log_uniform(rng, 400, 1800), _log_uniform(rng, 0.008, 0.035))
        stick_click = _log_uniform(rng, 0.1, 0.8)

        def cross(strength: float) -> np.ndarray:
            click = self._noise(_log_uniform(rng, 2500, 5000), 0.006, width=2.0)
            return _add(self._tone(stick, strength), click * stick_click * strength**0.5)

        return {
            38: self._pad(head, 0.8, "snare"),
            40: self._pad(lambda s: _add(head(s), 0.7 * self._tone(rim, s)), 0.9, "snare rim"),
            37: self._pad(cross, 0.5, "cross-stick"),
        }

    def toms(self) -> dict[int, Pad]:
        rng = self.rng
        lowest, spread = _log_uniform(rng, 65, 110), rng.uniform(1.2, 1.5)
        decay, skin = _log_uniform(rng, 0.1, 0.5), _log_uniform(rng, 0.02, 0.3)
        body = self._body(lowest, decay, bend=(1.05, 1.9))

        def tom(step: int):
            drum = dataclasses.replace(body, hz=lowest * spread**step, decay_s=decay * 0.85**step)

            def strike(strength: float) -> np.ndarray:
                attack = self._noise(1500.0, 0.015, width=3.0) * skin * strength**0.7
                return _add(self._tone(drum, strength), attack)

            return strike

        return {
            pitch: self._pad(tom(step), 0.8, f"tom {3 - step}")
            for step, pitch in enumerate((43, 45, 48))
        }

    def hats(self) -> dict[int, Pad]:
        rng = self.rng
        centre, width = _log_uniform(rng, 6000, 11000), rng.uniform(0.6, 1.6)
        metal = self._metal_source(rng.uniform(0.8, 2.2))
        closed, opened = _log_uniform(rng, 0.02, 0.08), _log_uniform(rng, 0.25, 1.0)
        pedal_centre = centre * rng.uniform(0.4, 0.8)

        def hat(decay: float, at: float):
            return lambda s: self._noise(at * s**0.15, decay * s**0.2, width=width, source=metal)

        return {
            42: self._pad(hat(closed, centre), 0.35, "closed hi-hat"),
            46: self._pad(hat(opened, centre * 0.95), 0.4, "open hi-hat"),
            44: self._pad(hat(closed * 0.8, pedal_centre), 0.2, "hi-hat pedal"),
        }

    def cymbals(self) -> dict[int, Pad]:
        rng = self.rng
        pads = {}
        for pitch, name, level in ((49, "crash 1", 0.6), (57, "crash 2", 0.6), (55, "splash", 0.5)):
            metal = self._metal_source(rng.uniform(1.0, 3.0))
            centre = _log_uniform(rng, 3000, 8000) * (1.4 if pitch == 55 else 1.0)
            decay = _log_uniform(rng, 0.4, 1.4) * (0.5 if pitch == 55 else 1.0)

            def crash(s: float, metal=metal, centre=centre, decay=decay) -> np.ndarray:
                return self._noise(centre * s**0.25, decay * s**0.3, width=2.5, source=metal)

            pads[pitch] = self._pad(crash, level, name)
        metal, centre = self._metal_source(rng.uniform(1.5, 3.5)), _log_uniform(rng, 4000, 8000)
        wash, ping_level = _log_uniform(rng, 0.4, 1.5), _log_uniform(rng, 0.2, 1.5)
        ping = self._bell(_log_uniform(rng, 2200, 4200), _log_uniform(rng, 0.05, 0.3))
        bell = self._bell(_log_uniform(rng, 700, 1600), _log_uniform(rng, 0.3, 0.9))

        def ride(strength: float) -> np.ndarray:
            noise = self._noise(centre, wash * strength**0.3, width=1.8, source=metal)
            return _add(noise, self._tone(ping, strength) * ping_level)

        def dome(strength: float) -> np.ndarray:
            return _add(self._tone(bell, strength), 0.25 * ride(strength))

        return pads | {51: self._pad(ride, 0.35, "ride"), 53: self._pad(dome, 0.5, "ride bell")}

    def percussion(self) -> dict[int, Pad]:
        rng = self.rng
        cow = _log_uniform(rng, 450, 700)
        cowbell = _Body(cow, np.array([1.0, 1.48]), np.array([1.0, 0.8]), 0.12, 1.0, 0.01)
        conga = self._body(_log_uniform(rng, 160, 260), _log_uniform(rng, 0.08, 0.25))
        clave = self._body(_log_uniform(rng, 1800, 2800), _log_uniform(rng, 0.015, 0.05))
        clap_hz, clap_s = _log_uniform(rng, 900, 2000), _log_uniform(rng, 0.04, 0.15)
        gaps = rng.uniform(0.007, 0.013, 3)

        def clap(strength: float) -> np.ndarray:
            starts = np.round(np.cumsum([0.0, *gaps]) * self.rate).astype(int)
            out = np.zeros(0, np.float32)
            for i, start in enumerate(starts):
                burst = self._noise(clap_hz, clap_s if i == 3 else 0.006, width=1.0)
                out = _add(out, np.pad(burst * strength**0.1, (start, 0)))
            return out

        def shaker(centre: float, decay: float):
            return lambda s: self._noise(centre, decay * s**0.2, width=0.8, attack_s=0.002)

        jingle = self._metal_source(4.0)
        return {
            39: self._pad(clap, 0.6, "clap"),
            54: self._pad(
                lambda s: self._noise(9000.0, 0.09, width=0.8, source=jingle), 0.35, "tambourine"
            ),
            56: self._pad(lambda s: self._tone(cowbell, s), 0.5, "cowbell"),
            64: self._pad(lambda s: self._tone(conga, s), 0.6, "low conga"),
            70: self._pad(shaker(_log_uniform(rng, 5000, 9000), 0.03), 0.25, "maracas"),
            75: self._pad(lambda s: self._tone(clave, s), 0.5, "claves"),
        }

    # ----------------------------------------------------------------------------- building blocks

    def _body(self, hz: float, decay_s: float, bend: tuple[float, float] = (1.0, 1.3)) -> _Body:
        spread = self.rng.normal(1.0, 0.04, len(_MEMBRANE))
        levels = _MEMBRANE ** -self.rng.uniform(1.5, 3.5) * self.acoustic
        levels[0] = 1.0
        bend_s = _log_uniform(self.rng, 0.01, 0.06)
        return _Body(hz, _MEMBRANE * spread, levels, decay_s, self.rng.uniform(*bend), bend_s)

    def _bell(self, hz: float, decay_s: float) -> _Body:
        ratios = np.sort(self.rng.uniform(1.0, 5.0, 7))
        return _Body(hz, ratios / ratios[0], self.rng.uniform(0.2, 1.0, 7), decay_s, 1.0, 0.01)

    def _tone(self, body: _Body, strength: float) -> np.ndarray:
        """Return float32 [samples]: upper partials and the bend grow with strength, 0 to 1."""
        seconds = np.arange(round(min(7 * body.decay_s, 3.0) * self.rate)) / self.rate
        extra = (body.bend - 1) * (0.4 + 0.6 * strength)
        cycles = body.hz * (seconds - extra * body.bend_s * np.expm1(-seconds / body.bend_s))
        out = np.zeros(len(seconds))
        for ratio, level in zip(body.ratios, body.levels * strength ** (0.5 * (body.ratios - 1))):
            if body.hz * body.bend * ratio < 0.45 * self.rate:
                phase = 2 * np.pi * (ratio * cycles + 0.1 * self.rng.random())
                out += level * np.exp(-seconds * ratio**0.5 / body.decay_s) * np.sin(phase)
        return out.astype(np.float32)

    def _metal_source(self, scale: float) -> np.ndarray:
        """Return float32 [n], 0.7 s: six squares and noise, whose share depends on the kit."""
        seconds = np.arange(round(0.7 * self.rate)) / self.rate
        hz = _METAL * scale * self.rng.uniform(0.9, 1.1, len(_METAL))
        squares = np.sign(np.sin(2 * np.pi * hz[:, None] * seconds)).sum(axis=0) / np.sqrt(6)
        share = 0.3 + 0.7 * self.acoustic
        return (share * self.rng.standard_normal(len(seconds)) + (1 - share) * squares).astype("f4")

    def _noise(
        self,
        centre_hz: float,
        decay_s: float,
        *,
        width: float,
        source: np.ndarray | None = None,
        attack_s: float = 0.0003,
    ) -> np.ndarray:
        """Return float32 [samples]: decaying band of noise (or `source`), `width` octaves wide."""
        samples = round(min(7 * decay_s, 3.5) * self.rate)
        if source is None:
            raw = self.rng.standard_normal(samples, dtype=np.float32)
        else:
            start = int(self.rng.integers(len(source)))
            raw = np.resize(np.roll(source, -start), samples)
        size = scipy.fft.next_fast_len(samples, real=True)
        octaves = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1 / self.rate), 1.0) / centre_hz)
        # Steeper below than above, as the high-pass filters of drum machines.
        slope = np.where(octaves < 0, 1.6, 1.0) * octaves / width
        spectrum = np.asarray(scipy.fft.rfft(raw, size)) * np.exp(-(slope**2))
        band = np.asarray(scipy.fft.irfft(spectrum, size))[:samples]
        seconds = np.arange(samples) / self.rate
        band *= np.minimum(1.0, (seconds + 1 / self.rate) / attack_s) * np.exp(-seconds / decay_s)
        return (band / (np.sqrt(np.mean(band[: max(1, samples // 7)] ** 2)) + 1e-9)).astype("f4")

    def _pad(self, strike, level: float, name: str) -> Pad:
        layers = [
            (127 * strength, [strike(strength) for _ in range(_TAKES)]) for strength in _STRENGTHS
        ]
        pad = make_pad(layers, self.rate, name=name)
        assert pad is not None
        gain = 0.2 * level * _log_uniform(self.rng, 0.6, 1.6)
        return dataclasses.replace(pad, gain=gain, exponent=self.exponent)


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the sum of two signals of different lengths."""
    out = np.zeros(max(len(a), len(b)), np.float32)
    out[: len(a)] += a
    out[: len(b)] += b
    return out
