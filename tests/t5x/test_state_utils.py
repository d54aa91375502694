"""State dicts by name: flattening, merging and renaming."""

import pytest

from t5x import state_utils
from t5x.checkpoints import CheckpointError

SPEC = {"driver": "zarr", "kvstore": {"driver": "file"}, "metadata": {}}
STATE = {"target": {"a": 1, "b": {"c": 2}, "none": {}}, "state": {"step": 3}}


def test_names_join_with_slashes_down_to_arrays_or_specs():
    assert state_utils.flatten_state_dict(STATE) == {
        "target/a": 1,
        "target/b/c": 2,
        "state/step": 3,
    }
    assert state_utils.flatten_state_dict({"x": {"y": SPEC}}) == {"x/y": SPEC}
    assert "target/none" in state_utils.flatten_state_dict(STATE, keep_empty_nodes=True)
    assert state_utils.tensorstore_leaf((), SPEC)
    assert not state_utils.tensorstore_leaf((), {"driver": "zarr"})
    assert state_utils.get_name_tree(STATE) == {
        "target": {"a": "target/a", "b": {"c": "target/b/c"}},
        "state": {"step": "state/step"},
    }


def test_intersection_keeps_values_and_merging_fills_gaps():
    other = {"target": {"a": 10, "d": 11, "none": {}}}
    assert state_utils.intersect_state(STATE, other) == {"target": {"a": 1, "none": {}}}
    assert state_utils.merge_state(STATE, other) == {
        "target": {"a": 1, "b": {"c": 2}, "d": 11, "none": {}},
        "state": {"step": 3},
    }


def test_assignment_map_renames_leaves_out_and_keeps():
    model = {"target": {"new": {"a": 0}, "fresh": 0, "same": 0, "absent": 0}}
    stored = {"target": {"old": {"a": 1}, "fresh": 2, "same": 3, "unused": 4}}
    rules = [(r"target/new/(.*)", r"target/old/\1"), ("target/fresh", None)]
    renamed = state_utils.apply_assignment_map(stored, model, rules)
    assert renamed == {"target": {"new": {"a": 1}, "same": 3}}
    assert state_utils.apply_assignment_map(stored, model, rules, is_resuming=True) == stored
    idle = [*rules, ("target/nothing", None)]
    with pytest.raises(CheckpointError, match=r"match no name of the model: .*target/nothing"):
        state_utils.apply_assignment_map(stored, model, idle)
    assert state_utils.apply_assignment_map(stored, model, idle, False) == renamed
    with pytest.raises(CheckpointError, match="takes target/same from target/lost"):
        state_utils.apply_assignment_map(stored, model, [("target/same", "target/lost")])
