"""Feature converters: seqio's recorded conversions, and what must hold for any examples."""

import json

import numpy as np
import pytest

from t5x.data import converters
from tests.vectors import golden_dir

CASES = json.loads((golden_dir("t5x") / "converters.json").read_text())["cases"]


def _to_arrays(example):
    return {name: np.asarray(value, np.int32) for name, value in example.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['converter']}-{c['kwargs']}")
def test_matches_seqio(case):
    converter = getattr(converters, case["converter"])(**case["kwargs"])
    examples = [_to_arrays(example) for example in case["examples"]]
    lengths = case["task_feature_lengths"]
    assert converter.get_model_feature_lengths(lengths) == case["model_feature_lengths"]
    if "raises" in case:
        with pytest.raises(ValueError, match="length"):
            list(converter(examples, lengths))
        return
    outputs = list(converter(examples, lengths))
    assert len(outputs) == len(case["outputs"])
    for got, expected in zip(outputs, case["outputs"]):
        assert set(got) == set(expected)
        for name, value in expected.items():
            assert got[name].dtype == np.int32
            np.testing.assert_array_equal(got[name], value, err_msg=name)
