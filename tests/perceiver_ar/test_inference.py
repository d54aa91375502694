import json

import numpy as np
import pytest

from musax import pretrained
from musax.events.pieces import MULTITRACK
from musax.midi import load_midi
from musax.model_config import ModelConfigError
from musax.notes import empty_notes, make_notes
from perceiver_ar import inference
from perceiver_ar.inference import Composer
from perceiver_ar.model_config import ModelConfig
from perceiver_ar.music import EmptyPieceError, encode_piece
from perceiver_ar.network import PerceiverAR
from t5x.checkpoints import CheckpointError
from t5x.data.vocabularies import NUM_SPECIAL_IDS
from tests.perceiver_ar.reference import logits_of
from tests.tiny_perceiver import save_tiny_model, tiny_config, tiny_params

#: Of 9 to 16 tokens up to the third note and as a whole, so that one program continues both.
PROMPT = make_notes([2.0, 2.5, 3.0, 3.5], [2.4, 3.4, 3.9, 3.9], [60, 64, 67, 72], 80)


@pytest.fixture(scope="module")
def composer(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return pretrained.load(folder)


def test_a_seed_is_a_piece_and_several_at_once_differ(composer):
    told = []
    runs = [
        composer.compose(count=3, seconds=6, seed=seed, progress=lambda *at: told.append(at))
        for seed in (1, 1, 2)
    ]
    first, same, other = (pieces[0] for pieces in runs)
    np.testing.assert_array_equal(first.notes, same.notes)
    assert not np.array_equal(first.notes, other.notes)
    assert len(first.notes)
    assert first.prompt_seconds == 0
    assert first.notes["onset"].max() < 6
    assert first.notes["offset"].max() <= 6
    assert first.seconds == 6 or first.ended
    assert len({piece.tokens.tobytes() for piece in runs[0]}) == 3
    ends = [i for i, at in enumerate(told, 1) if at == (6.0, 6.0)]
    done = [done for done, _ in told[: ends[0]]]
    assert done == sorted(done)
    assert told[-1] == (6.0, 6.0)


def test_a_prompt_is_kept_and_continued(composer):
    (piece,) = composer.compose(PROMPT, seconds=5)
    begin = piece.notes[piece.notes["onset"] < PROMPT["onset"][-1] + 0.01]
    np.testing.assert_array_equal(begin["pitch"], PROMPT["pitch"])
    np.testing.assert_allclose(begin["onset"], PROMPT["onset"])
    np.testing.assert_allclose(begin["offset"], PROMPT["offset"])
    assert piece.prompt_seconds == pytest.approx(3.9)
    assert len(piece.notes) > len(PROMPT)
    np.testing.assert_array_equal(piece.tokens[: len(encode_piece(PROMPT))], encode_piece(PROMPT))


def test_drums_before_the_piano_do_not_move_it(composer):
    drums = make_notes([0.0, 0.5], [0.1, 0.6], [36, 38], 80, 0, True)
    (piece,) = composer.compose(np.concatenate([drums, PROMPT]), seconds=5)
    begin = piece.notes[: len(PROMPT)]
    np.testing.assert_allclose(begin["onset"], PROMPT["onset"])
    assert piece.prompt_seconds == pytest.approx(3.9)


def test_a_prompt_that_leaves_little_room_is_told(composer, monkeypatch):
    prompt = make_notes(np.arange(1020) / 10, np.arange(1020) / 10 + 0.05, 60)
    used = len(encode_piece(prompt))

    def fill(sampler, params, prompts, **options):
        last = np.tile(prompts[:, -2:], (1, 20))  # no end of the piece
        return np.concatenate([prompts, last], axis=1)[:, None, :4096], None

    monkeypatch.setattr(inference, "generate", fill)
    with pytest.warns(UserWarning, match=rf"4096 positions were full .*; the prompt takes {used}"):
        (piece,) = composer.compose(prompt, seconds=20)
    assert not piece.ended


def test_part_of_a_prompt(composer):
    (piece,) = composer.compose(PROMPT, prompt_seconds=3.2, seconds=5)
    assert piece.prompt_seconds == pytest.approx(3.0)
    assert piece.notes["pitch"][0] == 60
    assert 67 in piece.notes["pitch"][np.isclose(piece.notes["onset"], 3.0)]
    # Two notes sound on at the end of the prompt: their ends are not told.
    np.testing.assert_array_equal(piece.tokens[:9], encode_piece(PROMPT)[:9])
    with pytest.raises(EmptyPieceError):
        composer.compose(PROMPT, prompt_seconds=1.0)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_composed_makes_sense_even_of_a_model_that_knows_nothing(composer, seed):
    # Notes of the prompt still sound when the model goes on: they may be ended, not struck again.
    (piece,) = composer.compose(PROMPT, prompt_seconds=3.2, seconds=4, seed=seed)
    events = piece.tokens[1 : -1 if piece.ended else None] - NUM_SPECIAL_IDS
    decoded = composer.config.encoding.decode(events)
    assert len(decoded.notes) > 3
    assert decoded.invalid_events == 0


@pytest.mark.slow
def test_a_multitrack_model_composes():
    config = tiny_config(MULTITRACK)
    (piece,) = Composer(config, tiny_params(config)).compose(seconds=200, seed=3)
    assert set(piece.notes["program"]) - {0}


@pytest.mark.slow
def test_greedy_needs_no_seed(composer):
    first, second = (composer.compose(seconds=2, temperature=0, seed=seed)[0] for seed in (1, 2))
    np.testing.assert_array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds=0: expected a positive"),
        ({"count": 0}, "count=0: expected 1 or more"),
        ({"prompt_seconds": -1}, "prompt_seconds=-1"),
        ({"temperature": -1}, "temperature=-1: expected 0 or"),
        ({"top_p": 0}, "top_p=0: expected a probability"),
        ({"prompt": empty_notes()}, "no notes"),
        (
            {"prompt": make_notes(np.arange(3000) / 10, np.arange(3000) / 10 + 0.05, 60)},
            r"tokens, and the model has positions for 4096: use less .*\(--prompt-seconds\)",
        ),
        (
            {"prompt": PROMPT, "prompt_seconds": 1.5},
            r"no notes in its first 1\.5 s, the first begins at 2\.00 s: .*--prompt-seconds",
        ),
    ],
)
def test_arguments_out_of_range(composer, options, message):
    with pytest.raises(ValueError, match=message):
        composer.compose(**options)


def test_a_score_is_the_likelihood_of_every_event(composer):
    short = PROMPT[:2]
    tokens = encode_piece(short)
    network, length = PerceiverAR(composer.config.network), len(tokens) - 1
    inputs = np.pad(tokens[:-1], (0, 16 - length), constant_values=5)  # at least the latents
    logits = logits_of(network, composer.params, inputs[None])[0, :length].astype(np.float64)
    nats = np.logaddexp.reduce(logits, axis=-1) - logits[np.arange(length), tokens[1:]]
    found = composer.score(short)
    assert found.nats == pytest.approx(nats.sum(), rel=1e-5)
    assert (found.tokens, found.estimate) == (length, "exact")
    with pytest.raises(EmptyPieceError, match="no notes"):
        composer.score(empty_notes())
    long = make_notes(np.arange(40) / 4, np.arange(40) / 4 + 0.2, 60 + np.arange(40) % 7)
    assert composer.score(long).tokens > composer.config.network.max_context_length


def test_a_configuration_is_read_as_written():
    for config in (tiny_config(), tiny_config(MULTITRACK, attention_block=8)):
        values = json.loads(json.dumps(config.to_json()))
        assert ModelConfig.from_json(values) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": "mt3"}, "model.json: \"system\" is 'mt3', expected 'perceiver_ar'"),
        ({"networks": {}}, "unknown field networks; did you mean 'network'"),
        ({"encoding": {"kind": "piano"}}, "encoding.kind='piano'"),
        ({"encoding": {"kind": "performance", "bins": 3}}, "unknown field encoding.bins"),
        ({"network": {"num_classes": 10}}, "model.json: network.num_classes=10: expected"),
        ({"network": {"num_classes": "400"}}, "network.num_classes='400': expected a whole number"),
        ({"network": {"num_classes": 400, "scan_layers": 0}}, "scan_layers=0: expected true or"),
        ({"network": {"num_classes": 400, "dtype": "float33"}}, "dtype='float33': expected a type"),
        ({"network": {"num_classes": 400, "input_idx_size": 3}}, "=3: expected a list of whole"),
        ({"encoding": {"kind": []}}, r"encoding.kind=\[\]: expected one of performance"),
        ({"encoding": []}, r"encoding=\[\]: expected an object"),
        ({"network": None}, "model.json: network=None: expected an object"),
    ],
)
def test_wrong_configurations(change, message):
    values = tiny_config().to_json() | change
    with pytest.raises(ModelConfigError, match=message):
        ModelConfig.from_json(values, "model.json")


def test_parameters_of_another_network():
    params = tiny_params(tiny_config())
    with pytest.raises(CheckpointError, match="token_embed"):
        Composer(tiny_config(MULTITRACK), params, "folder")


def test_the_shipped_model_knows_piano_music():
    composer = pretrained.load("perceiver_ar-pop909")
    piece = load_midi("examples/rendering.mid")
    mirrored = piece.copy()
    mirrored["pitch"] = 120 - piece["pitch"]  # as loud, dense and long, but of no key and bass
    real, wrong = (composer.score(notes).nats_per_token for notes in (piece, mirrored))
    assert real < 2.7  # of other music than it has learned, which a 6-gram would find far harder
    assert real < wrong - 0.1
