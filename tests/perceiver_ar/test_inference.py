import json

import numpy as np
import pytest

from musax import pretrained
from musax.events.pieces import MULTITRACK
from musax.midi import load_midi
from musax.model_fields import ModelConfigError
from musax.notes import empty_notes, make_notes
from perceiver_ar.inference import Composer
from perceiver_ar.likelihood import score_sequences
from perceiver_ar.model_config import ModelConfig
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.music import EmptyPieceError, encode_piece
from perceiver_ar.network import PerceiverAR
from t5x.checkpoints import CheckpointError
from t5x.data.vocabularies import NUM_SPECIAL_IDS
from tests.tiny_perceiver import save_tiny_model, tiny_config, tiny_params

PROMPT = make_notes([2.0, 2.5, 3.0, 3.5], [2.4, 3.4, 3.6, 3.9], [60, 64, 67, 72], 80)


@pytest.fixture(scope="module")
def composer(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return pretrained.load(folder)


def test_a_seed_is_a_piece(composer):
    first = composer.compose(seconds=6, seed=1)
    np.testing.assert_array_equal(first.notes, composer.compose(seconds=6, seed=1).notes)
    assert not np.array_equal(first.notes, composer.compose(seconds=6, seed=2).notes)
    assert len(first.notes)
    assert first.prompt_seconds == 0
    assert first.notes["onset"].max() < 6
    assert first.notes["offset"].max() <= 6
    assert first.seconds == 6 or first.ended


def test_a_prompt_is_kept_and_continued(composer):
    piece = composer.compose(PROMPT, seconds=5)
    begin = piece.notes[piece.notes["onset"] < PROMPT["onset"][-1] + 0.01]
    np.testing.assert_array_equal(begin["pitch"], PROMPT["pitch"])
    np.testing.assert_allclose(begin["onset"], PROMPT["onset"])
    np.testing.assert_allclose(begin["offset"], PROMPT["offset"])
    assert piece.prompt_seconds == pytest.approx(3.9)
    assert len(piece.notes) > len(PROMPT)
    np.testing.assert_array_equal(piece.tokens[: len(encode_piece(PROMPT))], encode_piece(PROMPT))


def test_part_of_a_prompt(composer):
    piece = composer.compose(PROMPT, prompt_seconds=2.9, seconds=5)
    assert piece.prompt_seconds == pytest.approx(2.5)
    assert piece.notes["pitch"][0] == 60
    assert 64 in piece.notes["pitch"][np.isclose(piece.notes["onset"], 2.5)]
    # The second note sounds on at the end of the prompt: its end is not told.
    whole = encode_piece(PROMPT[:2])
    np.testing.assert_array_equal(piece.tokens[:6], whole[:6])
    with pytest.raises(EmptyPieceError):
        composer.compose(PROMPT, prompt_seconds=1.0)


def test_what_is_composed_makes_sense_even_of_a_model_that_knows_nothing(composer):
    # A note of the prompt still sounds when the model goes on: it may be ended, not struck again.
    for piece in composer.compose_many(3, PROMPT, prompt_seconds=2.9, seconds=4):
        events = piece.tokens[1 : -1 if piece.ended else None] - NUM_SPECIAL_IDS
        decoded = composer.config.encoding.decode(events)
        assert len(decoded.notes) > 2
        assert decoded.invalid_events == 0


def test_several_pieces_at_once_differ_and_progress_is_told(composer):
    told = []
    pieces = composer.compose_many(3, seconds=6, progress=lambda *at: told.append(at))
    assert len({piece.tokens.tobytes() for piece in pieces}) == 3
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (6.0, 6.0)


def test_a_multitrack_model_composes():
    config = tiny_config(MULTITRACK)
    piece = Composer(config, tiny_params(config)).compose(seconds=200, seed=3)
    assert set(piece.notes["program"]) - {0}


def test_greedy_needs_no_seed(composer):
    first, second = (composer.compose(seconds=2, temperature=0, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds=0: expected a positive"),
        ({"prompt_seconds": -1}, "prompt_seconds=-1"),
        ({"temperature": -1}, "temperature=-1: expected 0 or"),
        ({"topp": 0}, "topp=0: expected a probability"),
        ({"prompt": empty_notes()}, "no notes"),
        ({"prompt": make_notes(np.arange(3000) / 10, np.arange(3000) / 10 + 0.05, 60)}, "tokens"),
    ],
)
def test_arguments_out_of_range(composer, options, message):
    with pytest.raises(ValueError, match=message):
        composer.compose(**options)


def test_a_configuration_is_read_as_written():
    for config in (tiny_config(), tiny_config(MULTITRACK, attention_block=8)):
        values = json.loads(json.dumps(config.to_json()))
        assert ModelConfig.from_json(values) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": "mt3"}, "model.json: system 'mt3'"),
        ({"networks": {}}, "unknown field networks; did you mean 'network'"),
        ({"encoding": {"kind": "piano"}}, "encoding.kind='piano'"),
        ({"encoding": {"kind": "performance", "bins": 3}}, "unknown field encoding.bins"),
        ({"network": {"num_classes": 10}}, "model.json: network.num_classes=10, but"),
        ({"network": None}, "'network' is missing"),
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
    model = PerceiverARModel(PerceiverAR(composer.config.network), None, None)
    piece = load_midi("examples/rendering.mid")
    mirrored = piece.copy()
    mirrored["pitch"] = 120 - piece["pitch"]  # as loud, dense and long, but of no key and bass
    tokens = [{"tokens": encode_piece(notes)} for notes in (piece, mirrored)]
    real, wrong = (
        float(np.mean(scores.nats))
        for scores in score_sequences(model, composer.params, tokens, context=512, stride=512)
    )
    assert real < 2.7  # of other music than it has learned, which a 6-gram would find far harder
    assert real < wrong - 0.1
