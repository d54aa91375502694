"""Shared by the event tests: codecs, specs, golden readers, random notes."""

import json

import numpy as np
from hypothesis import strategies as st

from musax.events.codec import Codec, EventRange
from musax.events.spec import NOTES, NOTES_WITH_TIES, ONSETS, EncodingSpec
from musax.notes import apply_sustain, empty_notes, make_controls, make_notes
from tests.vectors import golden_dir


def make_codec(num_velocity_bins=127, max_shift_steps=1000, steps_per_second=100):
    return Codec(
        max_shift_steps,
        steps_per_second,
        [
            EventRange("pitch", 0, 127),
            EventRange("velocity", 0, num_velocity_bins),
            EventRange("tie", 0, 0),
            EventRange("program", 0, 127),
            EventRange("drum", 0, 127),
        ],
    )


# The three configurations of the reference vectors.
CONFIGS = {
    "ismir2021": (make_codec(127), EncodingSpec(granularity="flat")),
    "mt3": (make_codec(1), NOTES_WITH_TIES),
    "onsets": (make_codec(127), ONSETS),
}

CANONICAL_SPECS = [
    EncodingSpec(granularity=granularity, ties=ties, canonical=True, onsets_before_offsets=first)
    for granularity in ("flat", "midi_class", "full")
    for ties in (False, True)
    for first in (False, True)
] + [EncodingSpec(offsets=False, canonical=True)]

ALL_SPECS = [*CANONICAL_SPECS, NOTES, NOTES_WITH_TIES, ONSETS, EncodingSpec(granularity="flat")]


def spec_id(spec):
    names = [spec.granularity, *(n for n in ("ties", "canonical") if getattr(spec, n))]
    names += ["onsets_only"] * (not spec.offsets) + ["onsets_first"] * spec.onsets_before_offsets
    return "-".join(names)


def golden(name):
    return json.loads((golden_dir("mt3") / name).read_text())


def golden_notes(case, config):
    """(notes, frame times) of one entry of tokenize_cases.json."""
    notes = make_notes(*zip(*case["notes"])) if case["notes"] else empty_notes()
    if config != "onsets" and case["ccs"]:
        notes = apply_sustain(notes, make_controls(*zip(*case["ccs"])))
    samples = round(case["audio_seconds"] * 16000)
    return notes, np.arange((samples + 128 - samples % 128) // 128) / 125


@st.composite
def note_arrays(draw, max_size=30, seconds=6.0, programs=(0, 3, 8, 127)):
    """Notes with overlaps, repeated pitches at one time, zero lengths, drums, any velocity."""
    count = draw(st.integers(0, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    onset = rng.uniform(0, seconds, count)
    if draw(st.booleans()):
        onset = np.round(onset * 4) / 4
    length = rng.exponential(draw(st.sampled_from([0.02, 0.3, 3.0])), count)
    length[rng.random(count) < 0.15] = 0
    few = draw(st.booleans())
    return make_notes(
        onset,
        onset + length,
        rng.integers(60, 63, count) if few else rng.integers(0, 128, count),
        rng.integers(1, 128, count),
        rng.choice(programs, count),
        rng.random(count) < draw(st.sampled_from([0.0, 0.3])),
    )
