import json
import warnings

import numpy as np
import pytest
import soundfile

from drums.inference import Transcriber
from drums.listening import Listener
from drums.model_config import ModelConfig, ModelConfigError
from drums.picking import Frames
from musax import pretrained
from musax.audio import AudioError, save_audio
from musax.notes import shift_notes
from t5x.checkpoints import CheckpointError, save_safetensors
from tests import tiny_drum_model as tiny

THRESHOLD = 0.05


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_transcriber()


@pytest.fixture(scope="module")
def audio():
    return tiny.clicks(4.0)


def transcribe(model, audio, rate=tiny.RATE, **options):
    return model.transcribe(audio, rate, level="9", threshold=THRESHOLD, **options).notes


def close(a, b, tolerance=1e-4):
    """The same hits, to rounding."""
    assert len(a) == len(b) > 5
    a, b = (x[np.lexsort((x["pitch"], np.round(x["onset"], 3)))] for x in (a, b))
    np.testing.assert_allclose(a["onset"], b["onset"], atol=tolerance)
    np.testing.assert_array_equal(a["pitch"], b["pitch"])
    assert np.abs(a["velocity"] - b["velocity"]).max() <= 1


def test_pieces_make_no_difference(model, audio):
    whole = model.outputs(audio, tiny.RATE)
    peak = np.abs(audio).max()
    for piece, step in ((37, 1000), (100, 7919), (1000, 50)):
        listener = Listener(model._predict, piece)
        parts = [listener.push(x / peak) for x in np.array_split(audio, -(-len(audio) // step))]
        parts = [p for p in [*parts, listener.flush()] if p is not None]
        for found, expected in zip(Frames.join(parts), whole):
            np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(whole.onsets) == 1 + len(audio) // 110


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_gain_changes_nothing(model, audio, gain):
    close(transcribe(model, audio), transcribe(model, audio * np.float32(gain)))


def test_a_shift_by_a_hop_moves_hits_by_a_frame(model, audio):
    later = np.concatenate([np.zeros(110, np.float32), audio])
    shifted = transcribe(model, later)
    expected = shift_notes(transcribe(model, audio), 110 / tiny.RATE)
    # What is before the recording is silence either way.
    close(shifted[shifted["onset"] > 0.05], expected[expected["onset"] > 0.05])


def test_files_are_heard_as_samples_are(model, audio, tmp_path):
    soundfile.write(tmp_path / "clicks.wav", audio, tiny.RATE, subtype="FLOAT")
    heard = model.transcribe_file(tmp_path / "clicks.wav", level="9", threshold=THRESHOLD)
    close(heard.notes, transcribe(model, audio))
    assert heard.seconds == pytest.approx(4.0, abs=0.01)
    assert not heard.silent


def test_streams_are_heard_as_recordings_once_the_peak_is_known(model, audio):
    audio = np.concatenate([audio[:0], audio])
    audio[600] = 1.0  # the loudest comes first, so every gain is the recording's
    whole = transcribe(model, audio)
    stream = model.stream(piece_seconds=0.05, level="9", threshold=THRESHOLD)
    assert 0.02 < stream.latency_seconds < 0.5
    parts, told = [], []
    for i in range(0, len(audio), 256):
        notes = stream.push(audio[i : i + 256])
        parts.append(notes)
        told += [(i + 256) / tiny.RATE - onset for onset in notes["onset"]]
    found = np.concatenate([*parts, stream.flush()])
    late = whole["onset"] > 0.3
    close(found[found["onset"] > 0.3], whole[late])
    assert max(told) <= stream.latency_seconds + 256 / tiny.RATE + 0.02


def test_silence_has_no_hits(model, tmp_path):
    result = model.transcribe(np.zeros(tiny.RATE, np.float32), tiny.RATE)
    assert result.silent
    assert len(result.notes) == 0
    save_audio(tmp_path / "silence.wav", np.zeros(tiny.RATE, np.float32), tiny.RATE)
    assert model.transcribe_file(tmp_path / "silence.wav").silent


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [(48000, 2, "PCM_24"), (44100, 1, "PCM_16"), (8000, 6, "FLOAT")],
)
def test_other_formats(model, tmp_path, rate, channels, subtype):
    audio = np.tile(tiny.clicks(1.0, rate=rate)[:, None], channels)
    soundfile.write(tmp_path / "x.wav", audio, rate, subtype=subtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.transcribe_file(tmp_path / "x.wav").seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("samples", [1, 50, 109])
def test_less_than_a_frame(model, samples):
    audio = np.full(samples, 0.3, np.float32)
    assert model.transcribe(audio, tiny.RATE).seconds == samples / tiny.RATE


def test_oaf_drums_runs(audio):
    config = ModelConfig(tiny.OAF, tiny.OAF_FEATURES)
    model = tiny.tiny_transcriber(config)
    notes = model.transcribe(audio, tiny.RATE, level="8-hit", threshold=0.3).notes
    assert set(notes["pitch"]) <= {36, 38, 46, 48, 49, 51, 53, 75}
    frames = model.outputs(audio, tiny.RATE)
    assert len(frames.onsets) == 1 + len(audio) // 128


def test_progress(model, audio):
    seen = []
    model.transcribe(audio, tiny.RATE, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4.0, 4.0)


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.array([0.0, np.nan], np.float32), "not a finite number"),
        (np.zeros(10, np.int16), "expected float samples"),
    ],
)
def test_bad_samples(model, audio, message):
    with pytest.raises(ValueError, match=message):
        model.transcribe(audio, tiny.RATE)


def test_bad_files(model, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"not audio at all")
    with pytest.raises(AudioError, match=r"x\.wav"):
        model.transcribe_file(tmp_path / "x.wav")


def test_a_stream_wants_one_channel_of_numbers(model):
    with pytest.raises(ValueError, match="expected float"):
        model.stream().push(np.zeros((10, 2), np.float32))
    with pytest.raises(ValueError, match="finite"):
        model.stream().push(np.array([np.inf], np.float32))


# -------------------------------------------------------------------------------------- models


def test_a_saved_model_is_the_same(model, audio, tmp_path):
    tiny.save_tiny_model(tmp_path / "tiny-drums")
    loaded = Transcriber.from_pretrained(tmp_path / "tiny-drums")
    close(transcribe(loaded, audio), transcribe(model, audio))
    assert isinstance(pretrained.load(tmp_path / "tiny-drums"), Transcriber)
    assert loaded.config == model.config


def test_missing_arrays_are_named(tmp_path):
    folder = tiny.save_tiny_model(tmp_path / "tiny")
    variables = tiny.tiny_variables(tiny.tiny_config())
    del variables["params"]["temporal_0"]
    save_safetensors(folder / "model.safetensors", variables)
    with pytest.raises(CheckpointError, match="missing: params/temporal_0"):
        Transcriber.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": "7"}, "config.json: level='7': expected one of"),
        ({"network": {"kind": "rnn"}}, "network.kind='rnn'"),
        ({"features": {"hops": 3}}, "unknown field features.hops"),
        ({"features": {"hop_width": -1}}, "hop_width=-1"),
        ({"picking": 3}, "picking=3: expected an object"),
        ({"system": "mt3"}, "\"system\" is 'mt3', expected 'drums'"),
        (
            {"picking": {"thresholds": {"5": [0.5, "a"]}}},
            r"picking.thresholds=.*expected an object",
        ),
        ({"features": {"padding": "left"}}, "features.padding='left': expected one of 'refl"),
        ({"features": {"top_db": "80"}}, "features.top_db='80': expected a finite number or null"),
        ({"network": {"kind": "conv", "channels": [[1]]}}, "expected a list of whole numbers"),
    ],
)
def test_wrong_configurations(change, message):
    values = json.loads(json.dumps(tiny.tiny_config().to_json())) | change
    with pytest.raises(ModelConfigError, match=message):
        ModelConfig.from_json(values, "config.json")
