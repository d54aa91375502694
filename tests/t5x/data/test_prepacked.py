"""Rows that are packed already give what packing gives."""

import numpy as np
import pytest

from t5x.data import (
    EncDecFeatureConverter,
    LMFeatureConverter,
    PrefixLMFeatureConverter,
    PrePackedEncDecFeatureConverter,
    PrePackedLMFeatureConverter,
    PrePackedPrefixLMFeatureConverter,
)
from t5x.data.packing import pack_batch, pack_rows

LENGTHS = {"inputs": 7, "targets": 9}


def _examples(count=12):
    rng = np.random.default_rng(0)
    sizes = [{name: int(rng.integers(1, n)) for name, n in LENGTHS.items()} for _ in range(count)]
    return [{k: rng.integers(2, 9, n).astype(np.int32) for k, n in each.items()} for each in sizes]


def _same(ours, expected):
    ours, expected = list(ours), list(expected)
    assert len(ours) == len(expected) > 2
    for got, wanted in zip(ours, expected):
        assert set(got) == set(wanted)
        for name in wanted:
            np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)


def test_encoder_decoder_rows():
    rows = [pack_batch([row], LENGTHS) for row in pack_rows(_examples(), LENGTHS)]
    packed = [{name: value[0] for name, value in row.items()} for row in rows]
    converter = PrePackedEncDecFeatureConverter()
    expected = EncDecFeatureConverter(pack=True)
    _same(converter(packed, LENGTHS), expected(_examples(), LENGTHS))
    assert converter.get_model_feature_lengths(LENGTHS) == expected.get_model_feature_lengths(
        LENGTHS
    )
    with pytest.raises(ValueError, match="cannot pack"):
        PrePackedEncDecFeatureConverter(pack=True)


@pytest.mark.parametrize(
    ("plain", "converter"),
    [
        (LMFeatureConverter, PrePackedLMFeatureConverter),
        (PrefixLMFeatureConverter, PrePackedPrefixLMFeatureConverter),
    ],
)
def test_language_model_rows(plain, converter):
    lengths = LENGTHS if plain is PrefixLMFeatureConverter else {"targets": LENGTHS["targets"]}
    rows = list(plain(pack=True)(_examples(), lengths))
    _same(converter()([{**row, "other": 1} for row in rows], lengths), rows)
    with pytest.raises(ValueError, match="missing the feature 'decoder_"):
        next(converter()([{"other": 1}], lengths))
    short = {name: value[:-1] for name, value in rows[0].items()}
    with pytest.raises(ValueError, match="expected packed rows of length"):
        next(converter()([short], lengths))
