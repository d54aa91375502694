"""Transcription: scripted predictors give back true notes, tiny networks the right tokens."""

import json

import flax.serialization
import jax
import numpy as np
import pytest
from flax import traverse_util

from mt3 import inference
from mt3.inference import Transcriber
from mt3.model_config import ModelConfig, ModelConfigError
from mt3.network import T5Config
from mt3.prediction import DECODES, Predictor, bucket_size
from mt3.segments import SegmentConfig, segment_features
from mt3.streaming import segment_stride, stream_segments
from mt3.vocabularies import build_codec, vocabulary_from_codec
from musax.audio import save_audio
from musax.events.decode import NoteDecoder
from musax.events.spec import EncodingSpec
from musax.events.tokenize import notes_to_tokens
from musax.notes import make_notes, notes_equal, sort_notes
from musax.spectrograms import SpectrogramConfig
from t5x.checkpoints import CheckpointError, CheckpointManager
from tests.mt3.test_model_config import small_release
from tests.tiny_mt3 import EOS, PIANO, Mute, Script, scripted, tiny_config, tiny_params, write_model
from tests.vectors import golden_dir

OWN = SegmentConfig(frames=50)  # 0.4 s
CENTRED = SegmentConfig(frames=41, context_frames=2, centred=True)
RATE = 16000

SETTINGS = {
    "ours": tiny_config(PIANO, CENTRED, velocity_bins=127, targets_length=300),
    "ismir2021": tiny_config(
        EncodingSpec(granularity="flat"), OWN, velocity_bins=127, targets_length=300
    ),
    "mt3": tiny_config(EncodingSpec(ties=True), OWN, velocity_bins=127, targets_length=300),
    "onsets": tiny_config(EncodingSpec(offsets=False), OWN, velocity_bins=127, targets_length=300),
}


def true_notes(config, seconds=5.0, voices=12, seed=0):
    """Random notes on the grid of tokens; those of one voice do not touch."""
    rng = np.random.default_rng(seed)
    rate = config.vocabulary.steps_per_second
    rows = []
    for voice in range(voices):
        program, pitch = (voice % 3) * 40 if config.spec.programs else 0, 40 + voice
        step = int(rng.integers(1, 40))
        while step < seconds * rate - 2:
            length = int(rng.integers(1, 60)) if config.spec.offsets else 1
            end = min(step + length, int(seconds * rate) - 1)
            rows.append((step / rate, end / rate, pitch, int(rng.integers(1, 128)), program))
            step = end + int(rng.integers(1, 40))
    return sort_notes(make_notes(*zip(*rows)))


def script(config, notes, seconds):
    """A predictor that says the true tokens of every segment."""
    codec = build_codec(config.vocabulary)
    vocabulary = vocabulary_from_codec(codec)
    audio = np.ones(round(seconds * RATE), np.float32)
    pieces = list(
        stream_segments([audio], config.segment, config.spectrogram, codec.steps_per_second)
    )
    rows = []
    for i, piece in enumerate(pieces):
        start = piece.start_time
        end = pieces[i + 1].start_time if i + 1 < len(pieces) else None
        align = "segment" if config.segment.centred else "file"
        # The middle of the step, where rounding cannot fall into a neighbour.
        middle = 0.5 / codec.steps_per_second if align == "file" else 0.0
        tokens = notes_to_tokens(
            notes, start + middle, end and end + middle, codec, config.spec, align=align
        )
        rows.append(np.append(vocabulary.encode_array(tokens), EOS))
    return Script(rows, config.targets_length)


@pytest.mark.parametrize("name", SETTINGS)
def test_true_tokens_give_the_true_notes_whatever_the_batches_and_pieces(
    name, tmp_path, monkeypatch
):
    config, seconds = SETTINGS[name], 5.03
    notes = true_notes(config)
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)
    path = tmp_path / "noise.wav"
    save_audio(path, audio, RATE)
    found = []
    for batch_size in (1, 3, 64):
        predict = script(config, notes, seconds)
        found.append(scripted(config, predict).transcribe(audio, RATE, batch_size=batch_size))
        assert max(predict.batches) == min(batch_size, sum(predict.batches))
    for chunk_seconds in (0.01, 0.7):
        monkeypatch.setattr(inference, "_CHUNK_SECONDS", chunk_seconds)
        transcriber = scripted(config, script(config, notes, seconds))
        found.append(transcriber.transcribe_file(path, batch_size=4))
    for result in found:
        assert (result.invalid_events, result.dropped_events, result.unmatched_events) == (0, 0, 0)
        assert result.seconds == pytest.approx(seconds)
        assert not result.silent
        np.testing.assert_array_equal(result.notes, found[0].notes)
    if config.spec.offsets:
        expected = notes
    else:
        onset = notes["onset"]
        expected = make_notes(onset, onset + 0.01, notes["pitch"], 80)
    assert notes_equal(found[0].notes, expected, tolerance=1e-6)


def test_the_recording_is_read_batch_by_batch():
    config = SETTINGS["ours"]
    piece, batch_size, pulled, heard = 1000, 5, 0, 0
    stride = segment_stride(config.segment, config.spectrogram, 50)

    def chunks():
        nonlocal pulled
        for _ in range(2000):
            pulled += piece
            yield np.ones(piece, np.float32)

    class Listener(Mute):
        def __call__(self, features, decode, batch_size):
            nonlocal heard
            heard += len(features)
            ahead = config.segment.samples(config.spectrogram) - stride
            ahead += sum(config.segment.margins(config.spectrogram))
            assert pulled - heard * stride <= piece + ahead
            return super().__call__(features, decode, batch_size)

    transcriber = scripted(config, Listener())
    result = transcriber._transcribe(chunks(), 125.0, "greedy", batch_size, None, None)
    assert result.seconds == 125.0
    assert heard == -(-2000 * piece // stride)


def test_silent_segments_are_not_transcribed():
    config = SETTINGS["mt3"]
    audio = np.zeros(RATE, np.float32)
    predict = Script([], 4)
    result = scripted(config, predict).transcribe(audio, RATE)
    assert result.silent
    assert predict.batches == []
    assert len(result.notes) == 0
    assert result.seconds == 1.0


def test_silence_ends_tied_notes():
    config = SETTINGS["mt3"]
    vocabulary = vocabulary_from_codec(build_codec(config.vocabulary))
    tokens = np.array([build_codec(config.vocabulary).event_type_range("tie")[0]])
    notes = make_notes(0.1, 0.2, 60, 127)
    onset = notes_to_tokens(notes, 0.0, 0.15, build_codec(config.vocabulary), config.spec)
    assert onset[0] == tokens[0]
    row = np.append(vocabulary.encode_array(onset), EOS)
    audio = np.zeros(RATE, np.float32)
    audio[:100] = 0.1
    result = scripted(config, Script([row], 300)).transcribe(audio, RATE)
    assert result.notes["offset"].tolist() == [0.4]


def held_notes(config, limit):
    """A note that is struck again after 3 s, and one that never ends; audio of 6 s."""
    codec = build_codec(config.vocabulary)
    vocabulary = vocabulary_from_codec(codec)
    notes = make_notes([0.1, 3.0, 0.2], [99.0, 3.5, 99.0], [60, 60, 64])
    rows = []
    length = segment_stride(config.segment, config.spectrogram, 50) / RATE
    for start in np.arange(0, 6.2, length):
        end = start + length
        tokens = notes_to_tokens(notes, start, end, codec, config.spec)
        rows.append(np.append(vocabulary.encode_array(tokens), EOS))
    transcriber = scripted(config, Script(rows, 300))
    audio = np.ones(6 * RATE, np.float32)
    return transcriber.transcribe(audio, RATE, max_dangling_seconds=limit).notes


def test_notes_without_an_end_are_shortened_only_if_asked():
    ends = {limit: held_notes(SETTINGS["ours"], limit)["offset"].tolist() for limit in (None, 2.0)}
    assert ends[None] == [3.0, 3.5, 3.5]
    assert ends[2.0] == [2.1, 2.2, 3.5]


def test_progress_reaches_the_end():
    seen = []
    transcriber = scripted(SETTINGS["ours"], Mute())
    transcriber.transcribe(
        np.ones(RATE, np.float32), RATE, progress=lambda *done: seen.append(done)
    )
    assert seen == sorted(seen)
    assert seen[-1] == (1.0, 1.0)


def test_channels_are_averaged_and_rates_converted():
    class Recorder(Mute):
        def __call__(self, features, decode, batch_size):
            self.features = features
            return super().__call__(features, decode, batch_size)

    heard = []
    tone = np.sin(2 * np.pi * 440 * np.arange(4000) / 8000).astype(np.float32)
    for audio in (tone, np.stack([tone, tone], axis=1), tone.astype(np.float64)):
        recorder = Recorder()
        result = scripted(SETTINGS["ours"], recorder).transcribe(audio, 8000)
        assert result.seconds == 0.5
        heard.append(recorder.features)
    np.testing.assert_allclose(heard[0], heard[1], atol=1e-4)
    np.testing.assert_array_equal(heard[0], heard[2])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(100, np.int16), "int16"),
        (np.zeros((1, 1, 5)), "float samples"),
        (np.zeros(0), "no samples"),
        (np.zeros((2, 100)), "transpose"),
        (np.where(np.arange(32000) == 16000, np.nan, 0.0), "1.000 s"),
        (np.where(np.arange(32000) == 8000, np.inf, 0.0), "0.500 s"),
    ],
)
def test_bad_samples_are_described(audio, message):
    with pytest.raises(ValueError, match=message):
        scripted(SETTINGS["ours"], Mute()).transcribe(audio, RATE)


def test_bad_options():
    transcriber = scripted(SETTINGS["ours"], Mute())
    with pytest.raises(ValueError, match="greedy, constrained, t5x_beam1"):
        transcriber.transcribe(np.ones(100), RATE, decode="beam")
    with pytest.raises(ValueError, match="batch_size=0"):
        transcriber.transcribe(np.ones(100), RATE, batch_size=0)


# -------------------------------------------------------------------------------- with a network


def test_batches_are_padded_to_few_sizes():
    assert [bucket_size(n, 16) for n in (1, 2, 4, 5, 16)] == [1, 4, 4, 16, 16]
    assert {bucket_size(n, 6) for n in range(1, 7)} == {1, 2, 6}
    assert bucket_size(1, 1) == 1


@pytest.fixture(scope="module")
def networks():
    """Transcribers with random parameters, by the name of their setting."""
    built = {}
    for name, spec in {"ours": PIANO, "mt3": EncodingSpec(ties=True)}.items():
        config = tiny_config(spec, targets_length=40)
        built[name] = Transcriber(config, tiny_params(config))
    return built


def noise(seconds):
    return np.random.default_rng(3).standard_normal(round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("decode", DECODES)
def test_batch_size_does_not_change_the_notes(networks, decode):
    results = [
        networks["ours"].transcribe(noise(1.4), RATE, decode=decode, batch_size=n) for n in (1, 4)
    ]
    np.testing.assert_array_equal(results[0].notes, results[1].notes)


@pytest.mark.parametrize("name", ["ours", "mt3"])
def test_constrained_tokens_are_valid_whatever_sounds_before(networks, name):
    transcriber = networks[name]
    config = transcriber.config
    codec = build_codec(config.vocabulary)
    segments = stream_segments([noise(0.48)], config.segment, config.spectrogram, 50)
    features = np.stack(
        [segment_features(s.audio, config.segment, config.spectrogram) for s in segments]
    )
    rows = np.asarray(transcriber._predict(features, "constrained", 4))
    first_program = codec.event_type_range("program")[0]
    low, high = codec.event_type_range("pitch")
    on = codec.event_type_range("velocity")[0] + 1
    everything = [[on, *range(low, high + 1)]]
    if config.spec.programs:
        everything = [[first_program + p, on, *range(low, high + 1)] for p in range(128)]
    for row in rows:
        state = NoteDecoder(codec, EncodingSpec(granularity="full"))
        state.decode_segment(np.concatenate(everything), 0.0)
        state.spec = config.spec
        end = config.segment.seconds(config.spectrogram)
        state.decode_segment(transcriber._codec_ids(row), 1.0, 1.0 + end)
        assert (state.invalid_events, state.dropped_events) == (0, 0)
    result = transcriber.transcribe(noise(0.48), RATE, decode="constrained", batch_size=4)
    assert (result.invalid_events, result.dropped_events) == (0, 0)


def reference_networks():
    return sorted(path.stem for path in golden_dir("mt3").glob("network_*.npz"))


@pytest.mark.parametrize("case", reference_networks())
def test_greedy_tokens_are_the_references(case):
    config = json.loads((golden_dir("mt3") / f"{case}.json").read_text())["config"]
    with np.load(golden_dir("mt3") / f"{case}.npz") as z:
        arrays = {key: z[key] for key in z.files}
    flat = {k.removeprefix("param:"): v for k, v in arrays.items() if k.startswith("param:")}
    expected, inputs = arrays["greedy_tokens_no_stop"], arrays["encoder_input_tokens"]
    model = ModelConfig(
        network=T5Config(
            **{k: tuple(v) if k == "mlp_activations" else v for k, v in config.items()}
        ),
        spectrogram=SpectrogramConfig(num_mel_bins=inputs.shape[2]),
        segment=SegmentConfig(frames=inputs.shape[1]),
        targets_length=expected.shape[1],
    )
    predictor = Predictor(model, traverse_util.unflatten_dict(flat, sep="/"))
    tokens = np.asarray(predictor(inputs, "greedy", len(inputs)))
    ended = np.cumsum(expected == EOS, axis=1) - (expected == EOS) > 0
    np.testing.assert_array_equal(tokens, np.where(ended, 0, expected))


# ---------------------------------------------------------------------------------------- loading


def test_a_model_folder_gives_the_same_model(tmp_path, networks):
    config = networks["ours"].config
    for dtype in (np.float32, np.float16):
        stored = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), tiny_params(config))
        folder = write_model(tmp_path / "model", config, stored)
        loaded = Transcriber.from_pretrained(folder)
        assert loaded.config == config
        expected = jax.tree.map(lambda x: x.astype(np.float32), stored)
        jax.tree.map(np.testing.assert_array_equal, loaded.params, expected)
        assert all(x.dtype == np.float32 for x in jax.tree.leaves(loaded.params))


def release(rows):
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in small_release(rows).items()}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("rows", "frames", "ties"), [(1664, 512, False), (1536, 256, True)])
def test_released_checkpoints_are_recognised(rows, frames, ties, nested, tmp_path):
    params = traverse_util.unflatten_dict(release(rows), sep="/")
    folder = tmp_path / "checkpoint_1000" if nested else tmp_path
    folder.mkdir(exist_ok=True)
    tree = {"version": 3, "optimizer": {"target": params, "state": {"step": np.int32(1000)}}}
    (folder / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(tree))
    loaded = Transcriber.from_pretrained(tmp_path)
    assert (loaded.config.segment.frames, loaded.config.spec.ties) == (frames, ties)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_checkpoints_of_a_run(tmp_path):
    config = tiny_config()
    params = tiny_params(config)
    manager = CheckpointManager(tmp_path)
    manager.save(5, {"target": params, "state": {"step": np.int32(5)}})
    manager.wait()
    manager.close()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Transcriber.from_pretrained(tmp_path)
    for given in (config, config.to_json()):
        assert Transcriber.from_pretrained(tmp_path, config=given).config == config
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    for folder in (tmp_path, tmp_path / "checkpoint_5"):
        loaded = Transcriber.from_pretrained(folder)
        assert loaded.config == config
        jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    with pytest.raises(ModelConfigError, match=r"other\.json"):
        Transcriber.from_pretrained(tmp_path, config=tmp_path / "other.json")


def test_missing_arrays_are_named(tmp_path):
    config = tiny_config()
    params = tiny_params(config)
    del params["decoder"]["logits_dense"], params["encoder"]["encoder_norm"]
    folder = write_model(tmp_path / "model", config, params)
    with pytest.raises(CheckpointError) as error:
        Transcriber.from_pretrained(folder)
    for name in ("model", "decoder/logits_dense/kernel", "encoder/encoder_norm/scale"):
        assert name in str(error.value)


def short_notes(velocity_bins, steps_per_second, **options):
    """Transcribe notes of one, two, three and ten steps, and a drum, as the tokens tell them."""
    config = tiny_config(
        EncodingSpec(ties=True), velocity_bins=velocity_bins, steps_per_second=steps_per_second
    )
    step = 1 / steps_per_second
    onset = np.array([1, 2, 3, 4]) * step
    notes = make_notes(onset, onset + np.array([1, 2, 3, 10]) * step, [60, 62, 64, 65], 100)
    drum = make_notes(2 * step, 2 * step + 0.01, 36, 100, 0, True)
    codec = build_codec(config.vocabulary)
    tokens = notes_to_tokens(np.concatenate([notes, drum]), 0.0, 0.3, codec, config.spec)
    row = np.append(vocabulary_from_codec(codec).encode_array(tokens), EOS)
    transcriber = scripted(config, Script([row], 300))
    audio = np.ones(round(RATE * 0.2), np.float32)
    return transcriber.transcribe(audio, RATE, **options).notes


def test_notes_too_short_for_the_models_steps_are_left_out_if_asked():
    assert len(short_notes(1, 100)) == 5
    kept = short_notes(1, 100, min_note_seconds=None)
    assert kept["pitch"][~kept["is_drum"]].tolist() == [64, 65]
    assert kept["is_drum"].sum() == 1
    assert len(short_notes(1, 125, min_note_seconds=None)) == 5
    assert short_notes(1, 100, min_note_seconds=0.05)["pitch"].tolist() == [36, 65]
    with pytest.raises(ValueError, match="min_note_seconds=-1"):
        short_notes(1, 100, min_note_seconds=-1)


def test_a_velocity_is_that_of_models_that_tell_none():
    assert set(short_notes(1, 100)["velocity"]) == {80}
    assert set(short_notes(1, 100, velocity=64)["velocity"]) == {64}
    assert set(short_notes(1, 100, velocity=None)["velocity"]) == {127}
    assert set(short_notes(127, 100)["velocity"]) == {100}
    assert set(short_notes(127, 100, velocity=64)["velocity"]) == {100}
    with pytest.raises(ValueError, match="velocity=0: expected 1 to 127"):
        short_notes(1, 100, velocity=0)
    assert "velocity" in Transcriber.options("transcribe", tiny_config(velocity_bins=1))
    assert "velocity" not in Transcriber.options("transcribe", tiny_config(velocity_bins=127))
