import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drums import vocabularies as v
from musax.notes import make_notes
from tests.vectors import golden_dir

MAPS = json.loads((golden_dir("drums") / "hit_maps.json").read_text())
LABELS = np.load(golden_dir("drums") / "labels.npz")


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_the_references(name):
    level, table = v.get_level(name), v.pitch_table(name, reference=True)
    ours = {int(p): set(np.flatnonzero(table == i).tolist()) for i, p in enumerate(level.pitches)}
    assert ours == {group[0]: set(group) for group in MAPS[name]}


@pytest.mark.parametrize("key", [k for k in LABELS.files if k.endswith("-hit")])
def test_rolls_are_mapped_as_the_reference_maps_them(key):
    rate, kind, name = key.split("_")
    raw = [LABELS[f"{rate}_{x}"] for x in ("onsets", "velocities")]
    mapped = v.map_rolls(*raw, name)
    np.testing.assert_array_equal(mapped[kind == "velocities"], LABELS[key])


def test_every_pitch_has_one_class_and_every_class_one_group():
    pitches = [p for c in v.CLASSES for p in c.pitches]
    assert len(pitches) == len(set(pitches))
    assert len(v.CLASSES) == v.get_level("18").size == 18
    for name in v.LEVELS:
        level = v.get_level(name)
        assert (level.members.sum(axis=1) == 1).all()
        assert len(set(level.names)) == len(set(level.pitches.tolist())) == level.size
    assert [v.get_level(n).size for n in ("3-hit", "5", "8-hit", "9")] == [3, 5, 8, 9]


@given(st.lists(st.integers(0, 127), max_size=40), st.sampled_from(v.LEVELS))
def test_mapping_again_changes_nothing(pitches, name):
    notes = make_notes(np.arange(len(pitches)) * 0.1, 9.0, pitches, 64, 0, True)
    once = v.map_notes(notes, name)
    np.testing.assert_array_equal(v.map_notes(once, name), once)
    known = v.pitch_table(name)[pitches] >= 0 if pitches else np.zeros(0, bool)
    assert len(once) == known.sum()


@given(st.integers(0, 127))
def test_coarser_levels_follow_from_the_finest(pitch):
    finest = v.pitch_table("18")[pitch]
    for name in v.LEVELS:
        group = v.pitch_table(name)[pitch]
        assert (group < 0) == (finest < 0)
        if finest >= 0:
            assert v.get_level(name).members[finest, group] == 1


def test_unknown_level():
    with pytest.raises(ValueError, match=r"no drum classes called '7'; choose from 3-hit, 5"):
        v.get_level("7")
