"""The training task on takes: what the network is given is what the recording holds."""

import numpy as np
import pytest

from mt3.rendered import vary_features
from mt3.segments import SegmentConfig
from mt3.tasks import rendered_midi_task
from mt3.vocabularies import VocabularyConfig, build_codec, vocabulary_from_codec
from musax.datasets.pieces import Piece
from musax.datasets.rendered_midi import Instruments, RenderedMidi
from musax.events.decode import decode_segments
from musax.events.spec import EncodingSpec
from musax.notes import make_notes
from musax.rendering.augment import AugmentConfig
from musax.spectrograms import SpectrogramConfig
from t5x.data import get_dataset
from t5x.data.records import write_array_record

SPECTROGRAM = SpectrogramConfig(hop_width=256, num_mel_bins=64, clamp=True, log_floor=1e-3)
SEGMENT = SegmentConfig(frames=64, context_frames=4, centred=True, offset=2.0, scale=0.5)
VOCABULARY = VocabularyConfig(100, 2, 1)
SPEC = EncodingSpec(granularity="flat", onsets_before_offsets=True)


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    onset = 0.15 * np.arange(40)
    piece = Piece("scale", lambda: make_notes(onset, onset + 0.1, 50 + np.arange(40) % 24))
    source = RenderedMidi(
        [piece], Instruments(virtual=1.0), num_instruments=1, takes_per_instrument=2,
        seconds=5.0, vary=False, random_pieces=0.0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("takes")
    written = [source[i] for i in range(2)]
    write_array_record(folder / "train-00000-of-00001.array_record", written)
    return folder, written


def make_task(folder, **kwargs):
    options = {
        "spectrogram_config": SPECTROGRAM,
        "vocab_config": VOCABULARY,
        "segment": SEGMENT,
        "spec": SPEC,
        "segments_per_take": 5,
    }
    return rendered_midi_task(str(folder), **options | kwargs)


def examples(task, **kwargs):
    lengths = {"inputs": SEGMENT.input_frames, "targets": 96}
    return list(get_dataset(task, lengths, "train", 1, num_epochs=1, seed=0, prefetch=0, **kwargs))


def test_a_take_becomes_segments_whose_tokens_are_its_notes(takes):
    folder, _ = takes
    vocabulary = vocabulary_from_codec(build_codec(VOCABULARY))
    found = examples(make_task(folder), shuffle=False)
    assert len(found) == 10
    for example in found:
        assert example["inputs"].shape == (1, SEGMENT.input_frames, 64)
        tokens = np.asarray(vocabulary.decode(example["targets"][0]))
        segment = (0.0, tokens[tokens != -1])
        notes, invalid, _ = decode_segments([segment], build_codec(VOCABULARY), SPEC)
        assert invalid <= 1  # the end of a note that began before the segment
        # Every 0.15 s, from the beginning to the end of the segment's 1.024 s.
        assert notes["onset"].min() < 0.161
        assert 1.024 - 0.161 < notes["onset"].max() < 1.024
        np.testing.assert_allclose(np.diff(notes["onset"]), 0.15, atol=0.011)
        assert set(np.diff(notes["pitch"])) <= {1, -23}


def test_own_recordings_may_be_floats(takes, tmp_path):
    folder, written = takes
    as_floats = [{**take, "audio": take["audio"] / np.float32(32768)} for take in written]
    write_array_record(tmp_path / "train-00000-of-00001.array_record", as_floats)
    for a, b in zip(*(examples(make_task(x), shuffle=False) for x in (folder, tmp_path))):
        np.testing.assert_array_equal(a["inputs"], b["inputs"])


def test_effects_change_what_is_heard_and_not_what_is_written(takes):
    folder, _ = takes
    dry = examples(make_task(folder), shuffle=False)
    wet = examples(
        make_task(folder, augment=AugmentConfig(), level_db=(-20, 0), colour_db=6), shuffle=False
    )
    assert len(dry) == len(wet) == 10
    for a, b in zip(dry, wet):
        np.testing.assert_array_equal(a["targets"], b["targets"])
        assert np.abs(a["inputs"] - b["inputs"]).max() > 0.1


def test_level_moves_the_log_spectrum_and_keeps_the_floor():
    floor = (np.log(1e-3) + 2.0) * 0.5
    inputs = np.array([[floor, floor + 3.0]], np.float32)
    example = {"inputs": inputs.copy(), "targets": np.zeros(0, np.int32)}
    rng = np.random.default_rng(0)
    lowered = vary_features(
        example, rng, segment=SEGMENT, spectrogram=SPECTROGRAM, level_db=(-20, -20), colour_db=0.0
    )["inputs"]
    assert lowered[0, 0] == pytest.approx(floor, abs=1e-6)
    assert lowered[0, 1] == pytest.approx(floor + 3.0 - 0.5 * np.log(10), abs=1e-5)


def test_missing_shards_and_wrong_rates_are_named(tmp_path, takes):
    with pytest.raises(FileNotFoundError, match=r"musax prepare"):
        make_task(tmp_path)
    task = make_task(takes[0], spectrogram_config=SpectrogramConfig(sample_rate=8000, hi_hz=4000))
    with pytest.raises(ValueError, match=r"16000 Hz.*8000 Hz"):
        examples(task, shuffle=False)
