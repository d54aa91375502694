import numpy as np
import pytest

from musax.datasets.pieces import Piece
from musax.events.pieces import MULTITRACK, PERFORMANCE
from musax.midi import load_midi
from musax.notes import empty_notes, make_notes
from perceiver_ar import music
from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from t5x.data import get_dataset

SPLITS = {"train": 3, "valid": 2, "test": 1}


def piece(number):
    rng = np.random.default_rng(number)
    onset = np.sort(rng.uniform(1, 20, 50))
    return make_notes(onset, onset + 0.3, rng.integers(40, 80, 50), rng.integers(1, 128, 50))


def reader(directory, split):
    count = SPLITS[split]
    first = {"train": 0, "valid": 10, "test": 20}[split]
    return [Piece(f"{directory}{first + i}", lambda i=i: piece(first + i)) for i in range(count)]


def test_far_notes_are_named_before_they_are_encoded():
    far = make_notes([0.0, 1e7], [1.0, 1e7 + 1], 60)
    with pytest.raises(ValueError, match=r"note 1 .* at most 6 are possible"):
        music.encode_piece(far)


@pytest.mark.parametrize("encoding", [PERFORMANCE, MULTITRACK])
def test_evaluation_goes_through_each_piece_once(encoding):
    source = music.piece_source(reader, "x")
    task = music.music_task(source, encoding, num_latents=8, purpose="evaluate")
    batches = get_dataset(
        task,
        {"inputs": 32, "targets": 32},
        split="validation",
        batch_size=1,
        shuffle=False,
        num_epochs=1,
        seed=0,
        feature_converter=PerceiverARFeatureConverter,
    )
    scored = [b["decoder_target_tokens"][b["decoder_loss_weights"] == 1] for b in batches]
    wanted = [np.append(music.encode_piece(piece(10 + i), encoding)[1:], 1) for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(scored), np.concatenate(wanted))


def test_training_crops_are_of_varied_pieces_and_the_same_again():
    source = music.piece_source(reader, "x")
    task = music.music_task(source, num_latents=8)

    def crops():
        batches = get_dataset(
            task,
            {"inputs": 32, "targets": 32},
            batch_size=3,
            shuffle=True,
            seed=4,
            feature_converter=PerceiverARFeatureConverter,
            prefetch=0,
        )
        return [next(batches)["decoder_target_tokens"] for _ in range(3)]

    first = crops()
    np.testing.assert_array_equal(first, crops())
    assert not np.array_equal(np.sort(first[0], axis=0), np.sort(first[1], axis=0))


def test_varied_notes_stay_on_the_piano():
    notes = make_notes([0.0, 1.0], [1.0, 2.0], [22, 107], 90)
    drums = make_notes([0.0], [0.1], [36], 90, is_drum=True)
    shifts, stretches = set(), []
    for seed in range(100):
        example = {"notes": np.concatenate([notes, drums])}
        varied = music.vary_notes(example, np.random.default_rng(seed))["notes"]
        shifts.add(int(varied["pitch"][0] - 22))
        stretches.append(varied["offset"][1] / 2)
        assert varied["pitch"][1] - varied["pitch"][0] == 85
        assert varied["pitch"][2] == 36
    assert shifts == {-1, 0, 1}
    assert 0.95 <= min(stretches) < 0.96
    assert 1.04 < max(stretches) <= 1.05


def test_silence_before_the_first_note_is_left_out():
    notes = make_notes([5.0], [6.0], [60], 127)
    tokens = music.encode_piece(notes)
    assert tokens.tolist()[:2] == [2, PERFORMANCE.codec.encode("velocity", [32])[0] + 3]
    np.testing.assert_array_equal(tokens, music.encode_piece(make_notes([0.0], [1.0], 60, 127)))


def test_pieces_without_notes():
    drums = make_notes([0.0], [0.1], [36], 90, is_drum=True)
    with pytest.raises(music.EmptyPieceError, match="no notes: a piece needs one"):
        music.encode_piece(empty_notes())
    with pytest.raises(music.EmptyPieceError, match="no notes but those of drums"):
        music.encode_piece(drums)
    assert len(music.encode_piece(drums, MULTITRACK)) == 3
    assert music.tokenize_piece({"notes": empty_notes()}) == []


def test_a_piece_beyond_the_wavelength_is_refused():
    source = music.piece_source(reader, "x")
    task = music.music_task(source, num_latents=8, max_position=100)
    with pytest.raises(ValueError, match="beyond 100, the largest"):
        next(
            get_dataset(
                task,
                {"inputs": 32, "targets": 32},
                batch_size=1,
                seed=0,
                feature_converter=PerceiverARFeatureConverter,
                prefetch=0,
            )
        )


def test_a_real_piece_becomes_few_tokens_a_note():
    notes = load_midi("examples/rendering.mid")
    assert 2 < len(music.encode_piece(notes)) / len(notes) < 7
