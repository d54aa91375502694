"""Drum recordings with exact notes: Groove's performances rendered on any number of kits.

`RenderedDrums` is a random-access source: element i is one take, drawn from the performances,
varied (`musax.datasets.drum_variations`) and played on the kit of its block, all from `(seed, i)`.
A kit is one of those given, a mixture of them, or synthetic.
"""

import functools
from collections.abc import Sequence

import numpy as np

from musax.audio import normalize_peak
from musax.datasets.drum_variations import cut_drums, random_hits, vary_drums
from musax.datasets.groove import DrumPerformance
from musax.notes import NOTE_FIELDS, empty_notes, shift_notes, sort_notes
from musax.rendering.drum_kits import (
    DrumKit,
    load_drum_kit,
    mix_drum_kits,
    virtual_drum_kit,
)
from musax.rendering.drum_sampler import render_drums, sounding_notes

#: Pitches that a kit must play to be used unmixed: kick, snare, closed hi-hat.
_NEEDED = (36, 38, 42)
_KITS_MIXED = 6
_RANDOM_HITS = 0.12
_GAP_SECONDS = (0.1, 0.8)


class RenderedDrums(Sequence):
    """Takes: `{"audio": int16 [samples], "sample_rate", "kit": str, <note columns>}`.

    Velocities are those that were played: the level of a hit within a take follows them, by a
    function that is the kit's. Audio is dry, its peak at 0.9.

    Args:
      performances: whose notes are played.
      kits: names or paths for `load_drum_kit`; those without kick, snare and hi-hat serve in
        mixtures only. May be empty where all kits are virtual.
      num_takes: number of elements.
      seconds: length of a take.
      sample_rate: Hz.
      seed: of everything.
      vary: False plays excerpts as they were performed, on unmixed kits (for evaluation).
      virtual, mixed: shares of the kits; the rest are the kits given. Ignored without `vary`.
      takes_per_kit: consecutive takes that share a kit.

    Raises:
      ValueError: no performances, no kit that can be used, or shares that are not probabilities.
      DrumKitError: a kit is missing or unreadable.
    """

    def __init__(
        self,
        performances: Sequence[DrumPerformance],
        kits: Sequence[str],
        *,
        num_takes: int,
        seconds: float = 12.0,
        sample_rate: int = 44100,
        seed: int = 0,
        vary: bool = True,
        virtual: float = 0.2,
        mixed: float = 0.5,
        takes_per_kit: int = 40,
    ):
        if not performances:
            raise ValueError("RenderedDrums: no performances to play")
        if min(virtual, mixed) < 0 or virtual + mixed > 1:
            raise ValueError(
                f"RenderedDrums: virtual={virtual} and mixed={mixed} are shares, at most 1 together"
            )
        self.virtual, self.mixed = (virtual, mixed) if vary else (0.0, 0.0)
        self.performances, self.kits = list(performances), tuple(kits)
        self.num_takes, self.takes_per_kit = num_takes, takes_per_kit
        self.seconds, self.sample_rate, self.seed = seconds, sample_rate, seed
        self.vary = vary
        self._whole = tuple(k for k in self.kits if load_drum_kit(k, sample_rate).has(*_NEEDED))
        if self.virtual < 1 and not self._whole:
            raise ValueError(
                "RenderedDrums: give at least one kit with kick, snare and hi-hat (got "
                f"{', '.join(self.kits) or 'none'}), or virtual=1"
            )
        self._kit = functools.lru_cache(maxsize=2)(self._draw_kit)

    def __len__(self) -> int:
        return self.num_takes

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"take {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, 5, index])
        kit = self._kit(index // self.takes_per_kit)
        notes = sounding_notes(self._excerpt(rng), kit)
        audio = render_drums(notes, kit, seconds=self.seconds, rng=rng)
        audio = normalize_peak(audio)
        return {
            "audio": np.round(audio * 32767).astype(np.int16),
            "sample_rate": np.int32(self.sample_rate),
            "kit": kit.name,
            **{name: notes[name] for name in NOTE_FIELDS},
        }

    def _draw_kit(self, number: int) -> DrumKit:
        draw = np.random.default_rng([self.seed, 6, number])
        kind = draw.random()
        if kind < self.virtual:
            return virtual_drum_kit(draw, self.sample_rate)
        if kind < self.virtual + self.mixed:
            # A few kits for each mixture: all of them would have to be kept in memory.
            chosen = draw.permutation(self.kits)[:_KITS_MIXED].tolist()
            chosen.append(self._whole[int(draw.integers(len(self._whole)))])
            kits = [load_drum_kit(name, self.sample_rate) for name in chosen]
            return mix_drum_kits(kits, draw)
        # Without `vary` the kits take turns, so that few blocks cover them all.
        turn = int(draw.integers(len(self._whole))) if self.vary else number % len(self._whole)
        return load_drum_kit(self._whole[turn], self.sample_rate)

    def _excerpt(self, rng: np.random.Generator) -> np.ndarray:
        """Return a take's notes, sorted: one performance, or several short ones in sequence."""
        if self.vary and rng.random() < _RANDOM_HITS:
            return random_hits(rng, self.seconds)
        parts, begin = [empty_notes()], 0.0
        for _ in range(50):
            notes = self.performances[int(rng.integers(len(self.performances)))].load()
            if self.vary:
                notes = vary_drums(notes, rng)
            if not len(notes):
                continue
            room = self.seconds - begin
            first, last = notes["onset"].min(), notes["onset"].max()
            start = rng.uniform(first, max(first, last - room)) - rng.uniform(0, 0.3)
            notes = cut_drums(notes, start, room)
            parts.append(shift_notes(notes, begin))
            begin += float(notes["onset"].max(initial=0.0)) + rng.uniform(*_GAP_SECONDS)
            if not self.vary or begin > self.seconds - 1.0:
                break
        return sort_notes(np.concatenate(parts))
