import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3 import mixing, preprocessors
from mt3.vocabularies import VocabularyConfig, build_codec, vocabulary_from_codec
from musax.events.decode import decode_segments, segment_start_time
from musax.events.spec import NOTES_WITH_TIES, ONSETS, EncodingSpec
from musax.notes import apply_sustain, empty_notes, make_controls, make_notes
from musax.spectrograms import SpectrogramConfig
from t5x.data.features import ContinuousFeature, Feature
from t5x.data.preprocessors import PreprocessorChain
from tests.vectors import golden_dir

CONFIG = SpectrogramConfig()
CONFIGS = {
    "ismir2021": (VocabularyConfig(), EncodingSpec(granularity="flat")),
    "mt3": (VocabularyConfig(num_velocity_bins=1), NOTES_WITH_TIES),
    "onsets": (VocabularyConfig(), ONSETS),
}
LENGTHS = {"inputs": 256, "targets": 1024}
CASES = json.loads((golden_dir("mt3") / "tokenize_cases.json").read_text())


def features_of(codec):
    targets = Feature(vocabulary_from_codec(codec))
    return {"inputs": ContinuousFeature(), "targets": targets}


def recording(seconds=4.0, seed=0, count=30):
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0, seconds - 1, count)
    return {
        "audio": rng.uniform(-0.5, 0.5, int(seconds * 16000)).astype(np.float32),
        "sample_rate": 16000,
        "notes": make_notes(onset, onset + 0.5, rng.integers(40, 80, count), 100, 5),
    }


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CASES)
def test_golden_targets(name, config):
    case, (vocabulary, spec) = CASES[name], CONFIGS[config]
    codec = build_codec(vocabulary)
    notes = make_notes(*zip(*case["notes"])) if case["notes"] else empty_notes()
    if config != "onsets" and case["ccs"]:
        notes = apply_sustain(notes, make_controls(*zip(*case["ccs"])))
    audio = np.zeros(round(case["audio_seconds"] * 16000), np.float32)
    whole = preprocessors.tokenize(
        {"audio": audio, "sample_rate": 16000, "notes": notes},
        spectrogram_config=CONFIG,
        codec=codec,
        spec=spec,
    )
    if config not in case["out"]:
        pytest.skip("this set has no such configuration")
    expected = case["out"][config]
    assert len(whole["inputs"]) == expected["num_frames"]
    for segment in expected["segments"]:
        bounds = segment["start_frame"], segment["end_frame"]
        part = preprocessors._slice_frames(whole, *bounds)
        part = preprocessors.extract_target_sequence_with_indices(part, codec=codec, spec=spec)
        part = preprocessors.map_midi_programs(
            part, codec=codec, granularity_type=segment["granularity"]
        )
        part = preprocessors.run_length_encode_shifts(part, codec=codec)
        assert part["targets"].tolist() == segment["rle_tokens"]
        part = preprocessors.remove_redundant_state_changes(part, codec=codec)
        part = preprocessors.tokenize_and_append_eos(part, features_of(codec))
        assert part["targets"].tolist() == segment["target_ids"]
        assert len(part["inputs"]) == bounds[1] - bounds[0]


def training_chain(codec, spec, granularity="full"):
    use = functools.partial
    p = preprocessors
    return [
        use(p.tokenize, spectrogram_config=CONFIG, codec=codec, spec=spec),
        p.split_tokens,
        p.select_random_chunk,
        use(p.extract_target_sequence_with_indices, codec=codec, spec=spec),
        use(p.map_midi_programs, codec=codec, granularity_type=granularity),
        use(p.run_length_encode_shifts, codec=codec),
        use(p.remove_redundant_state_changes, codec=codec),
        use(p.compute_spectrograms, spectrogram_config=CONFIG),
        p.handle_too_long,
        p.tokenize_and_append_eos,
    ]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_training_chain_makes_features(config):
    vocabulary, spec = CONFIGS[config]
    codec = build_codec(vocabulary)
    chain = PreprocessorChain(training_chain(codec, spec), features_of(codec), LENGTHS, seed=3)
    (example,) = chain(recording(), epoch=0, index=0)
    assert example["inputs"].dtype == np.float32
    assert example["inputs"].shape[1] == 512
    assert 0 < len(example["inputs"]) <= 256
    assert example["targets"].dtype == np.int32
    assert example["targets"][-1] == 1
    (again,) = chain(recording(), epoch=0, index=0)
    np.testing.assert_array_equal(again["targets"], example["targets"])


def test_a_long_recording_becomes_chunks():
    codec = build_codec(VocabularyConfig())
    chain = PreprocessorChain(
        training_chain(codec, NOTES_WITH_TIES)[:3], features_of(codec), LENGTHS, seed=3
    )
    chunks = chain(recording(seconds=34.0), epoch=0, index=0)
    assert len(chunks) == 3
    assert [len(chunk["notes"]) > 0 for chunk in chunks] == [True, False, False]
    assert chunks[1]["input_times"][0] > 2000 / 125 - 1e-3


def test_evaluation_segments_cover_the_recording():
    codec = build_codec(VocabularyConfig())
    whole = preprocessors.tokenize(
        recording(seconds=5.0), spectrogram_config=CONFIG, codec=codec, spec=NOTES_WITH_TIES
    )
    parts = list(preprocessors.split_tokens_to_inputs_length(whole, LENGTHS))
    frames = np.concatenate([part["inputs"] for part in parts])
    np.testing.assert_array_equal(frames, whole["inputs"])
    assert [len(part["inputs"]) for part in parts] == [256, 256, 114]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from(["mt3", "ismir2021", "onsets"]))
def test_the_short_way_draws_what_the_chain_draws(seed, config):
    vocabulary, spec = CONFIGS[config]
    codec, example = build_codec(vocabulary), recording(seed=seed % 7)
    p = preprocessors
    short = p.random_segment(
        example,
        np.random.default_rng(seed),
        LENGTHS,
        spectrogram_config=CONFIG,
        codec=codec,
        spec=spec,
    )
    whole = p.tokenize(example, spectrogram_config=CONFIG, codec=codec, spec=spec)
    part = p.select_random_chunk(whole, np.random.default_rng(seed), LENGTHS)
    part = p.extract_target_sequence_with_indices(part, codec=codec, spec=spec)
    part = p.map_midi_programs(part, codec=codec, granularity_type=spec.granularity)
    part = p.run_length_encode_shifts(part, codec=codec)
    np.testing.assert_array_equal(short["inputs"], part["inputs"])
    np.testing.assert_array_equal(short["input_times"], part["input_times"])
    if not spec.ties or part["input_times"][0] <= example["notes"]["offset"].max() - 0.01:
        assert short["targets"].tolist() == part["targets"].tolist()


def test_features_decode_to_the_notes():
    codec = build_codec(VocabularyConfig())
    example = recording()
    whole = preprocessors.tokenize(
        example, spectrogram_config=CONFIG, codec=codec, spec=NOTES_WITH_TIES
    )
    segments = []
    for part in preprocessors.split_tokens_to_inputs_length(whole, LENGTHS):
        start = segment_start_time(float(part["input_times"][0]), 100)
        part = preprocessors.extract_target_sequence_with_indices(
            part, codec=codec, spec=NOTES_WITH_TIES
        )
        part = preprocessors.run_length_encode_shifts(part, codec=codec)
        segments.append((start, part["targets"]))
    notes, _, dropped = decode_segments(segments, codec, NOTES_WITH_TIES)
    assert dropped == 0
    # Some of the random notes share a pitch while they sound; those merge.
    assert len(notes) >= len(example["notes"]) - 6
    for note in notes:
        nearest = np.abs(example["notes"]["onset"] - note["onset"]).min()
        assert nearest <= 0.0051


def test_audio_at_another_rate_is_resampled():
    codec = build_codec(VocabularyConfig())
    example = {**recording(), "sample_rate": 8000}
    whole = preprocessors.tokenize(
        example, spectrogram_config=CONFIG, codec=codec, spec=NOTES_WITH_TIES
    )
    assert len(whole["inputs"]) == 8 * 125 + 1


def test_too_long_targets():
    features = features_of(build_codec(VocabularyConfig()))
    example = {"inputs": np.zeros((256, 512), np.float32), "targets": np.zeros(10, np.int32)}
    lengths = {"inputs": 256, "targets": 11}
    assert preprocessors.handle_too_long(example, features, lengths).keys() == example.keys()
    lengths["targets"] = 10
    assert preprocessors.handle_too_long(example, features, lengths, skip=True) is None
    with pytest.raises(ValueError, match="'targets' has length 10, but only 9 fit"):
        preprocessors.handle_too_long(example, features, lengths)


def test_bad_input_is_named():
    codec = build_codec(VocabularyConfig())
    kwargs = {"spectrogram_config": CONFIG, "codec": codec, "spec": NOTES_WITH_TIES}
    example = recording()
    with pytest.raises(ValueError, match="expected mono"):
        preprocessors.tokenize({**example, "audio": np.zeros((5, 2), np.float32)}, **kwargs)
    example["notes"]["pitch"][3] = 200
    with pytest.raises(ValueError, match="take-7: note 3"):
        preprocessors.tokenize({**example, "id": "take-7"}, **kwargs)
    with pytest.raises(ValueError, match="granularity_type 'fine'"):
        preprocessors.map_midi_programs(
            {"targets": np.zeros(0)}, codec=codec, granularity_type="fine"
        )


def test_small_steps():
    numbered = list(preprocessors.add_unique_id([{"a": 1}, {"a": 2}]))
    assert [example["unique_id"].tolist() for example in numbered] == [[0], [1]]
    assert preprocessors.add_dummy_targets({})["targets"].dtype == np.int32
    notes = recording()["notes"]
    columns = {name: notes[name] for name in notes.dtype.names}
    np.testing.assert_array_equal(preprocessors.notes_from_columns(columns)["notes"], notes)


def part_of(seed, ties=True):
    codec = build_codec(VocabularyConfig(num_velocity_bins=1))
    spec = EncodingSpec(ties=ties)
    return preprocessors.random_segment(
        recording(seed=seed),
        np.random.default_rng(seed),
        LENGTHS,
        spectrogram_config=CONFIG,
        codec=codec,
        spec=spec,
    )


def test_mixing_adds_audio_and_merges_targets():
    codec = build_codec(VocabularyConfig(num_velocity_bins=1))
    parts = [part_of(seed) for seed in range(3)]
    mixed = mixing.mix_examples(parts, codec=codec)
    total = np.zeros_like(mixed["inputs"])
    for part in parts:
        total[: len(part["inputs"])] += part["inputs"]
    np.testing.assert_allclose(mixed["inputs"], total / np.abs(total).max(), rtol=1e-6)
    tie = codec.event_type_range("tie")[0]
    assert (mixed["targets"] == tie).sum() == 1
    events = sorted(t for p in parts for t in p["targets"].tolist() if t > 1000 and t != tie)
    assert sorted(t for t in mixed["targets"].tolist() if t > 1000 and t != tie) == events
    each = mixing.mix_examples(parts, codec=codec, join_ties=False)
    assert (each["targets"] == tie).sum() == 3


def test_mixing_respects_the_target_length():
    codec = build_codec(VocabularyConfig(num_velocity_bins=1))
    parts = [part_of(seed) for seed in range(3)]
    alone = mixing.mix_examples(parts[:1], codec=codec)
    mixed = mixing.mix_examples(parts, codec=codec, max_tokens=len(alone["targets"]))
    assert mixed["targets"].tolist() == alone["targets"].tolist()


def test_silence_stays_silent():
    silent = mixing.mix_audio([np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32)])
    np.testing.assert_array_equal(silent, np.zeros((3, 4)))


def mix(example, rng, **kwargs):
    codec = build_codec(VocabularyConfig(num_velocity_bins=1))
    prepare = functools.partial(
        preprocessors.random_segment, spectrogram_config=CONFIG, codec=codec, spec=EncodingSpec()
    )
    raw = [recording(seed=seed) for seed in range(4)]
    return mixing.mix_transcription_examples(
        example, rng, LENGTHS, others=lambda: raw, prepare=prepare, codec=codec, **kwargs
    )


def test_without_a_maximum_nothing_is_mixed():
    part = part_of(0, ties=False)
    for maximum in (None, 1):
        alone = mix(part, np.random.default_rng(0), max_examples_per_mix=maximum)
        np.testing.assert_array_equal(alone["targets"], part["targets"])


def test_mixtures_have_one_to_the_maximum_and_are_reproducible():
    part = part_of(0, ties=False)
    mixed = [mix(part, np.random.default_rng(s), max_examples_per_mix=3) for s in range(12)]
    lengths = [len(m["targets"]) for m in mixed]
    assert min(lengths) == len(part["targets"])
    assert len(set(lengths)) > 2
    again = mix(part, np.random.default_rng(7), max_examples_per_mix=3)
    np.testing.assert_array_equal(again["inputs"], mixed[7]["inputs"])
