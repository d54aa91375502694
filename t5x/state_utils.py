"""Flatten, intersect, merge and rename state dicts: nested dicts with arrays at the leaves."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.legacy import is_tensorstore_spec

Tree = Any
AssignmentMap = Iterable[tuple[str, str | None]]


def tensorstore_leaf(_: Any, value: Any) -> bool:
    """Return whether `value` is a TensorStore spec, which counts as a leaf though it is a dict."""
    return is_tensorstore_spec(value)


def flatten_state_dict(
    state_dict: Mapping[str, Tree], keep_empty_nodes: bool = False
) -> dict[str, Any]:
    """Return {'/'-joined name: leaf}.

    Args:
      state_dict: nested dicts of arrays or TensorStore specs.
      keep_empty_nodes: whether empty dicts are leaves (`flax.traverse_util.empty_node`).
    """
    return flatten_dict(
        unfreeze(dict(state_dict)),
        keep_empty_nodes=keep_empty_nodes,
        is_leaf=tensorstore_leaf,
        sep="/",
    )


def get_name_tree(state_dict: Mapping[str, Tree], keep_empty_nodes: bool = False) -> dict[str, Any]:
    """Return `state_dict` with its '/'-joined name in place of each leaf."""
    flat = flatten_state_dict(state_dict, keep_empty_nodes)
    return unflatten_dict({name: name for name in flat}, sep="/")


def intersect_state(
    state_dict: Mapping[str, Tree], intersect_state_dict: Mapping[str, Tree]
) -> dict[str, Any]:
    """Return the leaves of `state_dict` whose names `intersect_state_dict` has, too."""
    kept = flatten_state_dict(intersect_state_dict, keep_empty_nodes=True)
    flat = flatten_state_dict(state_dict, keep_empty_nodes=True)
    return unflatten_dict({name: x for name, x in flat.items() if name in kept}, sep="/")


def merge_state(
    state_dict: Mapping[str, Tree], from_scratch_state: Mapping[str, Tree]
) -> dict[str, Any]:
    """Return `state_dict` with the leaves of `from_scratch_state` whose names it lacks."""
    flat = flatten_state_dict(from_scratch_state, keep_empty_nodes=True)
    return unflatten_dict(flat | flatten_state_dict(state_dict, keep_empty_nodes=True), sep="/")


def apply_assignment_map(
    ckpt_optimizer_state: Mapping[str, Tree],
    optimizer_state: Mapping[str, Tree],
    assignment_map: AssignmentMap,
    require_all_rules_match: bool = True,
    *,
    is_resuming: bool = False,
) -> dict[str, Any]:
    """Rename the leaves of a checkpoint to the names of a model, by the rules of `assign`.

    Args:
      ckpt_optimizer_state: state dict of the checkpoint.
      optimizer_state: state dict of the model; only its names count.
      assignment_map: (regular expression on the model's names, name in the checkpoint or None).
      require_all_rules_match: whether a rule that matches no name is an error.
      is_resuming: whether the checkpoint is the model's own, which needs no renaming.

    Returns:
      The checkpoint's leaves by the model's names; without those that a rule leaves out (None) or
      that the checkpoint lacks.

    Raises:
      CheckpointError: a rule matches nothing, or names a leaf that the checkpoint lacks.
    """
    if is_resuming:
        return unfreeze(dict(ckpt_optimizer_state))
    wanted = flatten_state_dict(optimizer_state)
    found = flatten_state_dict(ckpt_optimizer_state)
    chosen, _ = assign(wanted, found, assignment_map, require_all_rules_match)
    return unflatten_dict({name: x for name, x in chosen.items() if x is not None}, sep="/")


def assign(
    wanted: Mapping[str, Any],
    found: Mapping[str, Any],
    rules: AssignmentMap,
    require_all_rules_match: bool = True,
) -> tuple[dict[str, Any], set[str]]:
    """Choose an array of a checkpoint for every array of a state.

    The first rule (pattern, replacement) whose pattern matches the whole name in the state decides:
    the replacement, with the pattern's groups put in, is the name in the checkpoint; None means
    that the array is initialized. A name that no rule matches is the same in both.

    Args:
      wanted: '/'-joined names in the state, such as "target/decoder/logits_dense/kernel".
      found: '/'-joined names in the checkpoint -> arrays.
      rules: the pairs, in order.
      require_all_rules_match: whether a rule that matches no name is an error.

    Returns:
      (name in the state -> array, or None when there is none; names of `found` that were used).

    Raises:
      CheckpointError: a rule matches nothing, or names an array that the checkpoint lacks.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    matched: set[int] = set()
    chosen: dict[str, Any] = {}
    used: set[str] = set()
    for name in wanted:
        source: str | None = name
        for number, (pattern, replacement) in enumerate(compiled):
            match = pattern.fullmatch(name)
            if match:
                matched.add(number)
                source = None if replacement is None else match.expand(replacement)
                if source is not None and source not in found:
                    raise CheckpointError(
                        f"assignment_map takes {name} from {source}, which the checkpoint lacks."
                    )
                break
        chosen[name] = None
        if source is not None and source in found:
            chosen[name] = found[source]
            used.add(source)
    idle = [pattern.pattern for n, (pattern, _) in enumerate(compiled) if n not in matched]
    if idle and require_all_rules_match:
        raise CheckpointError(f"assignment_map rules that match no name of the model: {idle}")
    return chosen, used
