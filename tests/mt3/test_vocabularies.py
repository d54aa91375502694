import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt3.vocabularies import (
    PROGRAM_GRANULARITIES,
    VocabularyConfig,
    bin_to_velocity,
    build_codec,
    num_embeddings,
    num_velocity_bins_from_codec,
    velocity_to_bin,
    vocabulary_from_codec,
)
from tests.vectors import golden_dir

CASES = json.loads((golden_dir("mt3") / "codec.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_golden_vocabulary(name):
    case = CASES[name]
    config = VocabularyConfig(**case["kwargs"])
    codec = build_codec(config)
    vocabulary = vocabulary_from_codec(codec)
    assert config.abbrev_str == case["abbrev"]
    assert codec.num_classes == case["num_classes"]
    assert vocabulary.vocab_size == case["vocab_size"]
    assert num_embeddings(vocabulary) == case["num_embeddings"]
    assert {t: list(codec.event_type_range(t)) for t in codec.event_types} == case["ranges"]
    for index, event_type, value in case["events"]:
        event = codec.decode_event_index(index)
        assert (event.type, event.value) == (event_type, value)


@pytest.mark.parametrize("name", CASES)
def test_golden_decoding(name):
    case = CASES[name]
    vocabulary = vocabulary_from_codec(build_codec(VocabularyConfig(**case["kwargs"])))
    assert vocabulary.decode(case["decode_ids_in"]) == case["seqio_decode"]
    assert vocabulary.decode_array(case["decode_ids_in"]).tolist() == case["decode_tf"]
    # What each id means by itself.
    single = [vocabulary.decode([i])[0] for i in case["decode_ids_in"]]
    assert single == case["decode_py"]


@pytest.mark.parametrize("name", CASES)
def test_golden_velocities(name):
    case = CASES[name]
    bins = num_velocity_bins_from_codec(build_codec(VocabularyConfig(**case["kwargs"])))
    assert [velocity_to_bin(v, bins) for v in range(128)] == case["velocity_to_bin"]
    assert [bin_to_velocity(b, bins) for b in range(bins + 1)] == case["bin_to_velocity"]


def test_golden_program_maps():
    maps = json.loads((golden_dir("mt3") / "note_utils.json").read_text())
    programs = np.arange(128)
    for name in ("flat", "midi_class"):
        mapped = PROGRAM_GRANULARITIES[name].program_map_fn(programs)
        assert mapped.tolist() == maps[name]


@given(st.lists(st.integers(0, 1387), max_size=50))
def test_encode_and_decode_are_inverse(tokens):
    vocabulary = vocabulary_from_codec(build_codec(VocabularyConfig(num_velocity_bins=1)))
    ids = vocabulary.encode(tokens)
    assert vocabulary.decode(ids) == tokens
    assert vocabulary.decode([*ids, 1, 0, 0]) == [*tokens, -1]


@pytest.mark.parametrize("token", [-1, 1388])
def test_foreign_tokens_are_refused(token):
    vocabulary = vocabulary_from_codec(build_codec(VocabularyConfig(num_velocity_bins=1)))
    with pytest.raises(ValueError, match=str(token)):
        vocabulary.encode([3, token])


@pytest.mark.parametrize("name", PROGRAM_GRANULARITIES)
@given(tokens=st.lists(st.integers(0, 1387), max_size=50))
def test_granularities_are_idempotent(name, tokens):
    codec = build_codec(VocabularyConfig(num_velocity_bins=1))
    granularity = PROGRAM_GRANULARITIES[name]
    once = granularity.tokens_map_fn(np.array(tokens, np.int32), codec)
    assert granularity.tokens_map_fn(once, codec).tolist() == once.tolist()
    low, high = codec.event_type_range("program")
    programs = np.array([t - low for t in tokens if low <= t <= high], int)
    mapped = [t - low for t in once.tolist() if low <= t <= high]
    if name != "flat":
        assert mapped == granularity.program_map_fn(programs).tolist()
    else:
        assert mapped == []
