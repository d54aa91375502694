"""Feature converters: seqio's recorded conversions, and what must hold for any examples."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x import data
from t5x.data.converters import (
    ContinuousInputsEncDecFeatureConverter,
    DecoderFeatureConverter,
    EncDecFeatureConverter,
    EncoderFeatureConverter,
    FeatureSpec,
    LMFeatureConverter,
    PassThroughFeatureConverter,
    PrefixLMFeatureConverter,
    autoregressive_inputs,
)
from tests.vectors import golden_dir

CASES = [
    case
    for path in sorted(golden_dir("t5x").glob("converters*.json"))
    for case in json.loads(path.read_text())["cases"]
]

tokens = st.lists(st.integers(1, 50), max_size=8)
seq2seq = st.lists(st.fixed_dictionaries({"inputs": tokens, "targets": tokens}), max_size=30)


def _to_arrays(example):
    return {name: np.asarray(value, np.int32) for name, value in example.items()}


@pytest.mark.filterwarnings("ignore:feature .* has the padding id")
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['converter']}-{c['kwargs']}")
def test_matches_seqio(case):
    converter = getattr(data, case["converter"])(**case["kwargs"])
    examples = [_to_arrays(example) for example in case["examples"]]
    lengths = case["task_feature_lengths"]
    if "model_feature_lengths" in case:
        assert converter.get_model_feature_lengths(lengths) == case["model_feature_lengths"]
    if "raises" in case:
        with pytest.raises(ValueError):
            list(converter(examples, lengths))
        return
    outputs = list(converter(examples, lengths))
    assert len(outputs) == len(case["outputs"])
    for got, expected in zip(outputs, case["outputs"]):
        assert set(got) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_batch_conversion_equals_conversion_of_each_example():
    rng = np.random.default_rng(0)
    lengths = {"inputs": 9, "targets": 7}
    examples = [
        {n: rng.integers(1, 9, rng.integers(1, limit + 1)) for n, limit in lengths.items()}
        for _ in range(6)
    ]
    for converter in (
        EncDecFeatureConverter(pack=False),
        PrefixLMFeatureConverter(pack=False),
        DecoderFeatureConverter(pack=False),
        EncoderFeatureConverter(mask_id=3, pack=False),
    ):
        prepared = [converter.prepare(e, lengths) for e in examples]
        batch = converter.convert(converter.collate(prepared, converter.prepared_lengths(lengths)))
        for i, row in enumerate(converter(examples, lengths)):
            for name, value in row.items():
                assert value.dtype == np.int32
                np.testing.assert_array_equal(batch[name][i], value)


@settings(max_examples=60, deadline=None)
@given(seq2seq, st.integers(8, 20), st.integers(8, 20))
def test_packing_keeps_every_token_once_and_in_order(examples, inputs_length, targets_length):
    converter = EncDecFeatureConverter(pack=True)
    rows = list(converter(examples, {"inputs": inputs_length, "targets": targets_length}))
    for side, feature, name in (
        ("encoder", "inputs", "encoder_input_tokens"),
        ("decoder", "targets", "decoder_target_tokens"),
    ):
        packed = [row[name][row[f"{side}_segment_ids"] > 0] for row in rows]
        flat = [token for example in examples for token in example[feature]]
        assert np.concatenate([*packed, []]).tolist() == flat
        for row in rows:
            segments, positions = row[f"{side}_segment_ids"], row[f"{side}_positions"]
            assert ((row[name] != 0) == (segments > 0)).all()
            assert positions[segments == 0].sum() == 0
            for segment in np.unique(segments[segments > 0]):
                count = (segments == segment).sum()
                assert positions[segments == segment].tolist() == list(range(count))


@settings(max_examples=60, deadline=None)
@given(seq2seq)
def test_packed_decoder_inputs_equal_those_of_single_examples(examples):
    examples = [e for e in examples if e["targets"]]
    lengths = {"inputs": 12, "targets": 12}
    singles = iter(list(EncDecFeatureConverter(pack=False)(examples, lengths)))
    for row in EncDecFeatureConverter(pack=True)(examples, lengths):
        segments = row["decoder_segment_ids"]
        for segment in range(1, segments.max() + 1):
            single = next(singles)
            mine = row["decoder_input_tokens"][segments == segment]
            assert mine.tolist() == single["decoder_input_tokens"][: len(mine)].tolist()
    assert next(singles, None) is None


@settings(max_examples=60, deadline=None)
@given(seq2seq, st.booleans())
def test_prefix_lm_loss_is_on_the_targets(examples, pack):
    examples = [e for e in examples if e["targets"]]
    rows = PrefixLMFeatureConverter(pack=pack)(examples, {"inputs": 8, "targets": 8})
    kept = [row["decoder_target_tokens"][row["decoder_loss_weights"] > 0] for row in rows]
    assert np.concatenate([*kept, []]).tolist() == [t for e in examples for t in e["targets"]]


def test_rows_end_after_as_many_examples_as_the_longest_length():
    examples = [{"targets": [5]} for _ in range(7)]
    lengths = {"targets": 3}
    rows = list(LMFeatureConverter(pack=True)(examples, lengths))
    assert [row["decoder_target_tokens"].tolist() for row in rows] == [
        [5, 5, 5],
        [5, 5, 5],
        [5, 0, 0],
    ]
    examples = [{"targets": [5]}, {"targets": []}, {"targets": []}, {"targets": [6]}]
    rows = list(LMFeatureConverter(pack=True)(examples, lengths))
    assert [row["decoder_target_tokens"].tolist() for row in rows] == [[5, 0, 0], [6, 0, 0]]


def test_empty_features_have_no_segment_as_in_seqio():
    examples = [{"inputs": [], "targets": [4, 1]}, {"inputs": [7, 1], "targets": [5, 1]}]
    lengths = {"inputs": 5, "targets": 5}
    (row,) = EncDecFeatureConverter(pack=True)(examples, lengths)
    assert row["encoder_segment_ids"].tolist() == [1, 1, 0, 0, 0]
    assert row["decoder_segment_ids"].tolist() == [1, 1, 2, 2, 0]
    (row,) = PrefixLMFeatureConverter(pack=True)(examples, lengths)
    assert row["decoder_loss_weights"].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    # The target of nothing, a padding token, counts in the widths but not in the row.
    examples = [{"inputs": [3], "targets": []}, {"inputs": [], "targets": [4, 5]}]
    (row,) = PrefixLMFeatureConverter(pack=True)(examples, lengths)
    assert row["decoder_target_tokens"].tolist() == [3, 4, 5, 0, 0, 0, 0, 0, 0, 0]
    assert row["decoder_loss_weights"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_suffixes_have_weights_of_their_own():
    examples = [
        {"inputs": [9, 4, 6], "targets": [3, 9], "suffixes": [2, 1]},
        {"inputs": [3, 2], "targets": [4], "suffixes": []},
    ]
    lengths = {"inputs": 5, "targets": 4, "suffixes": 3}
    for converter in (
        data.PrefixSuffixLMFeatureConverter(pack=True),
        DecoderFeatureConverter(pack=True),
    ):
        assert set(converter.get_model_feature_lengths(lengths).values()) == {12}
        (row,) = converter(examples, lengths)
        assert row["decoder_target_tokens"].tolist() == [9, 4, 6, 3, 9, 2, 1, 3, 2, 4, 0, 0]
        assert row["decoder_loss_weights"].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0]
        assert row["target_suffix_weights"].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0]
        assert row["decoder_causal_attention"].tolist() == [1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0]


def test_continuous_inputs():
    frames = np.arange(12, dtype=np.float32).reshape(4, 3)
    examples = [{"inputs": frames, "targets": [5, 1]}]
    converter = ContinuousInputsEncDecFeatureConverter()
    (row,) = converter(examples, {"inputs": 6, "targets": 4})
    assert row["encoder_input_tokens"].dtype == np.float32
    np.testing.assert_array_equal(row["encoder_input_tokens"], np.pad(frames, ((0, 2), (0, 0))))
    assert row["decoder_input_tokens"].tolist() == [0, 5, 1, 0]
    with pytest.raises(ValueError, match="cannot pack"):
        ContinuousInputsEncDecFeatureConverter(pack=True)


def test_bos_id_starts_every_segment():
    targets = np.array([3, 8, 1, 9, 1, 5, 4, 1, 0, 0])
    segments = np.array([1, 1, 1, 2, 2, 3, 3, 3, 0, 0])
    got = autoregressive_inputs(targets, segments, bos_id=50)
    assert got.tolist() == [50, 3, 8, 50, 9, 50, 5, 4, 50, 0]


def test_passthrough_features_travel_along():
    converter = EncDecFeatureConverter(
        pack=False, passthrough_features={"weight": FeatureSpec(np.float32, 1)}
    )
    lengths = {"inputs": 3, "targets": 3, "weight": 4}
    (row,) = converter([{"inputs": [4], "targets": [5], "weight": [0.5, 1.0]}], lengths)
    assert row["weight"].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert converter.get_model_feature_lengths(lengths)["weight"] == 4
    with pytest.raises(ValueError, match="incompatible"):
        EncDecFeatureConverter(pack=True, passthrough_features={"weight": FeatureSpec()})


def test_pass_through_changes_nothing_and_stacks():
    converter = PassThroughFeatureConverter(pack=True, bos_id=3)
    examples = [{"x": np.ones((2, 3)), "id": "a"}, {"x": np.ones((1, 3)), "id": "b"}]
    assert list(converter(examples, {})) == examples
    batch = converter.collate(examples, {"x": 2})
    assert batch["x"].shape == (2, 2, 3)
    assert batch["x"][1, 1].tolist() == [0, 0, 0]
    assert batch["id"].tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="'x' has shapes"):
        converter.collate(examples, {})


@pytest.mark.parametrize(
    ("lengths", "example", "message"),
    [
        ({"inputs": 3}, {}, "missing features"),
        ({"inputs": 3, "targets": 3, "more": 3}, {}, "extra features"),
        ({"inputs": 3, "targets": 3}, {"inputs": [1]}, "missing the feature 'targets'"),
        ({"inputs": 3, "targets": 3}, {"inputs": [1.5], "targets": [1]}, "incorrect type"),
        ({"inputs": 3, "targets": 3}, {"inputs": [[1]], "targets": [1]}, "rank 2"),
        ({"inputs": 3, "targets": 3}, {"inputs": [1] * 4, "targets": [1]}, "more than the task"),
    ],
)
def test_bad_examples_are_named(lengths, example, message):
    with pytest.raises(ValueError, match=message):
        list(EncDecFeatureConverter(pack=False)([example], lengths))


def test_padding_between_tokens_costs_a_token_when_packed():
    examples = [{"targets": [3, 0, 4]}, {"targets": [5, 0]}]
    with pytest.warns(UserWarning, match="'targets' has the padding id 0 between tokens"):
        (row,) = LMFeatureConverter(pack=True)(examples, {"targets": 5})
    assert row["decoder_target_tokens"].tolist() == [3, 0, 5, 0, 0]
    assert row["decoder_segment_ids"].tolist() == [1, 0, 2, 0, 0]
    assert row["decoder_positions"].tolist() == [0, 1, 0, 0, 0]
    assert row["decoder_loss_weights"].tolist() == [1, 0, 1, 0, 0]


def test_length_check_can_be_off():
    (row,) = LMFeatureConverter(pack=False, apply_length_check=False)(
        [{"targets": [1, 2, 3, 4]}], {"targets": 2}
    )
    assert row["decoder_target_tokens"].tolist() == [1, 2]
