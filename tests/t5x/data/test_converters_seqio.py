"""Converters against seqio's own, on random examples; skipped where seqio is not installed."""

import numpy as np
import pytest

from t5x import data

seqio = pytest.importorskip("seqio")

CONVERTERS = {
    "EncDecFeatureConverter": {"inputs": 7, "targets": 5},
    "LMFeatureConverter": {"targets": 9},
    "PrefixLMFeatureConverter": {"inputs": 6, "targets": 5},
    "PrefixSuffixLMFeatureConverter": {"inputs": 6, "targets": 5, "suffixes": 4},
    "DecoderFeatureConverter": {"inputs": 4, "targets": 7},
}


def _examples(rng, lengths, excess):
    """100 examples: of any length from 0, with zeros between tokens in every third."""

    def tokens(limit, smallest):
        size = rng.integers(0, limit + 1 + excess)
        return rng.integers(smallest, 9, size).astype(np.int32)

    return [{n: tokens(limit, i % 3 and 1) for n, limit in lengths.items()} for i in range(100)]


@pytest.mark.filterwarnings("ignore:feature .* has the padding id")
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", CONVERTERS)
def test_equals_seqio(name, pack):
    import tensorflow as tf

    lengths = CONVERTERS[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    signature = {n: tf.TensorSpec([None], tf.int32) for n in lengths}
    options = [{}, {"bos_id": 3}, {"apply_length_check": False}]
    if "LM" in name and name != "LMFeatureConverter":
        options.append({"loss_on_targets_only": False})
    for kwargs in options:
        theirs = getattr(seqio, name)(pack=pack, **kwargs)
        ours = getattr(data, name)(pack=pack, **kwargs)
        assert ours.get_model_feature_lengths(lengths) == theirs.get_model_feature_lengths(lengths)
        excess = 0 if kwargs.get("apply_length_check", True) else 3
        examples = _examples(rng, lengths, excess)
        dataset = tf.data.Dataset.from_generator(
            lambda examples=examples: iter(examples), output_signature=signature
        )
        expected = list(theirs(dataset, lengths).as_numpy_iterator())
        found = list(ours(examples, lengths))
        assert len(found) == len(expected)
        for row, reference in zip(found, expected):
            assert row.keys() == reference.keys()
            for feature, value in reference.items():
                np.testing.assert_array_equal(row[feature], value, err_msg=feature)
