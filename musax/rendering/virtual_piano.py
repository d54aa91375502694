"""Synthetic struck-string instruments: additive synthesis with random parameters.

A transcriber trained on a handful of sampled pianos learns those pianos. A `VirtualPiano` is drawn
from distributions around published values for struck strings (Fletcher & Rossing, "The Physics of
Musical Instruments", ch. 12): inharmonic partials f_n = n f0 sqrt(1 + B n^2), a striking-point
comb, a hammer low-pass that opens with velocity, partials that decay in two stages and faster when
higher, strings of one note a little out of tune with each other, a knock at the onset and a damper
at the end.
"""

from dataclasses import dataclass

import numpy as np

from musax.notes import validate_notes

LOWEST, HIGHEST = 21, 108


@dataclass(frozen=True)
class PianoParameters:
    """One instrument. Every field is drawn by `draw`; units in the comments."""

    tuning_cents: float  # of the whole instrument
    stretch_cents: float  # at the outermost octaves, grows with the distance from A4
    inharmonicity: float  # B at A4
    inharmonicity_slope: float  # d ln B per semitone
    strike_point: float  # fraction of the string
    slope: float  # partial amplitudes fall as n^-slope
    hammer_cutoff_hz: tuple[float, float]  # soft and hard strike
    decay_s: float  # time constant of the fundamental at A4
    decay_pitch_slope: float  # d ln decay per semitone (negative: treble dies sooner)
    decay_frequency: float  # extra damping per kHz of partial, relative
    second_stage: tuple[float, float]  # level and slowness of the after-sound
    string_detune_cents: float
    formant_db: float  # spread of the body's random resonances
    note_spread_db: float  # differences between neighbouring notes
    knock: tuple[float, float, float]  # level, centre Hz, time constant s
    attack_s: float
    release_s: float
    velocity_exponent: float
    sustained: bool  # organ-like: no decay before the release

    @classmethod
    def draw(cls, rng: np.random.Generator, sustained_probability: float = 0.08):
        soft = np.exp(rng.uniform(np.log(300), np.log(1200)))
        return cls(
            tuning_cents=rng.normal(0, 8),
            stretch_cents=rng.uniform(0, 15),
            inharmonicity=np.exp(rng.uniform(np.log(1e-4), np.log(8e-4))),
            inharmonicity_slope=rng.uniform(0.04, 0.1),
            strike_point=rng.uniform(0.08, 0.16),
            slope=rng.uniform(0.3, 1.4),
            hammer_cutoff_hz=(soft, soft * rng.uniform(1.5, 5.0)),
            decay_s=np.exp(rng.uniform(np.log(0.6), np.log(6.0))),
            decay_pitch_slope=-rng.uniform(0.015, 0.06),
            decay_frequency=rng.uniform(0.1, 0.8),
            second_stage=(rng.uniform(0.0, 0.4), rng.uniform(2.0, 6.0)),
            string_detune_cents=rng.uniform(0.0, 1.5),
            formant_db=rng.uniform(1.0, 5.0),
            note_spread_db=rng.uniform(0.5, 3.0),
            knock=(
                np.exp(rng.uniform(np.log(0.003), np.log(0.1))),
                np.exp(rng.uniform(np.log(80), np.log(2500))),
                rng.uniform(0.006, 0.04),
            ),
            attack_s=np.exp(rng.uniform(np.log(0.0007), np.log(0.005))),
            release_s=np.exp(rng.uniform(np.log(0.03), np.log(0.25))),
            velocity_exponent=rng.uniform(0.8, 2.2),
            sustained=bool(rng.random() < sustained_probability),
        )


class VirtualPiano:
    """A drawn instrument with its notes synthesised once and then mixed.

    Args:
      rng: draws the instrument and all its notes; the same generator state gives the same piano.
      sample_rate: Hz.
      parameters: the instrument; drawn when None.
      longest_s: samples are this long; a longer note falls silent after it.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        sample_rate: int = 16000,
        parameters: PianoParameters | None = None,
        longest_s: float = 5.0,
    ):
        self.sample_rate = sample_rate
        self.parameters = PianoParameters.draw(rng) if parameters is None else parameters
        self._length = int(longest_s * sample_rate)
        # Body resonances, as dB over log-frequency, shared by all notes.
        self._body_db = rng.normal(0, self.parameters.formant_db, 48)
        self._note_seeds = rng.integers(0, 2**63, size=128)
        self._samples: dict[int, np.ndarray] = {}

    def sample(self, pitch: int) -> np.ndarray:
        """Return float32 [2, samples]: the softest and the hardest strike of one key, undamped."""
        if pitch not in self._samples:
            self._samples[pitch] = self._synthesise(pitch)
        return self._samples[pitch]

    def _synthesise(self, pitch: int) -> np.ndarray:
        p, rate, n_samples = self.parameters, self.sample_rate, self._length
        rng = np.random.default_rng(int(self._note_seeds[pitch]))
        distance = pitch - 69
        cents = p.tuning_cents + p.stretch_cents * (distance / 39) * abs(distance / 39)
        f0 = 440.0 * 2 ** ((distance + cents / 100) / 12)
        b = p.inharmonicity * np.exp(p.inharmonicity_slope * distance)
        n = np.arange(1, 61)
        freq = n * f0 * np.sqrt(1 + b * n**2)
        keep = freq < 0.48 * rate
        n, freq = n[keep], freq[keep]

        comb = np.abs(np.sin(np.pi * n * p.strike_point)) + 0.05
        body = np.interp(np.log2(freq / 20), np.linspace(0, 9, 48), self._body_db)
        spread = rng.normal(0, p.note_spread_db, len(n))
        level = comb * n**-p.slope * 10 ** ((body + spread) / 20)
        hammer = [1 / (1 + (freq / max(c, 0.7 * f0)) ** 2) for c in p.hammer_cutoff_hz]

        tau = p.decay_s * np.exp(p.decay_pitch_slope * distance)
        tau = tau / (1 + p.decay_frequency * freq / 1000) * np.exp(rng.normal(0, 0.25, len(n)))
        rates = np.zeros(len(n)) if p.sustained else 1 / np.maximum(tau, 0.015)
        detune = 2 ** (rng.normal(0, p.string_detune_cents, len(n)) / 1200)
        after, slower = p.second_stage
        phase = rng.uniform(0, 2 * np.pi, (2, len(n)))
        layers = np.zeros((2, n_samples), np.float32)
        prompt = _damped_sines(freq, rates, phase[0], n_samples, rate)
        string2 = _damped_sines(freq * detune, rates / slower, phase[1], n_samples, rate)
        for layer in range(2):
            amplitude = (level * hammer[layer]).astype(np.float32)
            layers[layer] = amplitude @ prompt + (after * amplitude) @ string2
        layers += self._knock(rng, layers)
        t = np.arange(n_samples) / rate
        attack = p.attack_s * 2 ** (-distance / 24)
        layers *= np.minimum(1, t / attack).astype(np.float32)
        head = layers[:, : rate // 4]
        return layers / (np.sqrt(np.mean(head**2, axis=1, keepdims=True)) + 1e-9)

    def _knock(self, rng: np.random.Generator, layers: np.ndarray) -> np.ndarray:
        level, centre, tau = self.parameters.knock
        n = min(self._length, int(8 * tau * self.sample_rate))
        t = np.arange(n) / self.sample_rate
        noise = rng.standard_normal(n) * np.cos(2 * np.pi * centre * t) + 0.3 * rng.standard_normal(
            n
        )
        head = np.sqrt(np.mean(layers[:, : self.sample_rate // 4] ** 2, axis=1, keepdims=True))
        out = np.zeros_like(layers)
        out[:, :n] = level * head * (noise * np.exp(-t / tau)).astype(np.float32) * 4
        return out

    def render(self, notes: np.ndarray, *, seconds: float | None = None) -> np.ndarray:
        """Mix the notes (drums are left out, programs ignored).

        Args:
          notes: note table (`musax.notes.NOTE_DTYPE`), times in s.
          seconds: length of the result; None = until the last release has died away.

        Returns:
          float32 `[samples]`, not normalised: a note at velocity 127 has RMS about 0.1.
        """
        notes = validate_notes(notes)
        notes = notes[~notes["is_drum"] & (notes["pitch"] >= LOWEST) & (notes["pitch"] <= HIGHEST)]
        rate, p = self.sample_rate, self.parameters
        release = int(6 * p.release_s * rate)
        fade = np.exp(-np.arange(release) / (p.release_s * rate)).astype(np.float32)
        last = float(notes["offset"].max()) if len(notes) else 0.0
        total = round((last + 6 * p.release_s if seconds is None else seconds) * rate)
        out = np.zeros(total, np.float32)
        for note in notes:
            start = round(note["onset"] * rate)
            held = max(1, round((note["offset"] - note["onset"]) * rate))
            end = min(start + held + release, start + self._length, total)
            if start >= total or end <= start:
                continue
            soft, hard = self.sample(int(note["pitch"]))
            strength = note["velocity"] / 127
            gain = 0.1 * strength**p.velocity_exponent
            wave = (gain * (1 - strength)) * soft[: end - start]
            wave += (gain * strength) * hard[: end - start]
            tail = wave[held:]
            tail *= fade[: len(tail)]
            out[start:end] += wave
        return out


def _damped_sines(
    freq: np.ndarray, rates: np.ndarray, phase: np.ndarray, n_samples: int, sample_rate: int
) -> np.ndarray:
    """Return float32 [partials, samples], exp(-rate t) sin(2 pi f t + phase), by powers of a step.

    A complex exponential over a long time is the outer product of one over coarse steps and one
    over the samples inside a step, which is much cheaper than `n_samples` sines.
    """
    step = 256
    pole = (2j * np.pi * freq - rates) / sample_rate
    fine = np.exp(pole[:, None] * np.arange(step)).astype(np.complex64)
    n_coarse = -(-n_samples // step)
    coarse = np.exp(pole[:, None] * (step * np.arange(n_coarse)) + 1j * phase[:, None])
    coarse = coarse.astype(np.complex64)
    # Im(a b) without forming the complex product.
    out = coarse.real[:, :, None] * fine.imag[:, None, :]
    out += coarse.imag[:, :, None] * fine.real[:, None, :]
    return out.reshape(len(freq), -1)[:, :n_samples]
