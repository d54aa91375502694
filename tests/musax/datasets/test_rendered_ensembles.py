import numpy as np
import pytest

from musax.datasets.pieces import Piece
from musax.datasets.rendered_ensembles import PROGRAMS, RenderedEnsembles
from musax.datasets.rendered_midi import take_notes, vary_notes
from musax.notes import make_notes, validate_notes
from musax.rendering.soundfonts import default_soundfont

BEATS = 0.25 * np.arange(40)
MELODY = make_notes(BEATS, BEATS + 0.2, 60 + np.arange(40) % 12)
BAND = np.concatenate(
    [
        MELODY,
        make_notes(BEATS, BEATS + 0.2, 40, program=33),
        make_notes(BEATS, BEATS + 0.1, 38, is_drum=True),
    ]
)


def source(**options):
    defaults = {"num_takes": 12, "takes_per_soundfont": 2, "seconds": 2.0, "seed": 1}
    bands, solos = [Piece("band", lambda: BAND)], [Piece("solo", lambda: MELODY)]
    return RenderedEnsembles(bands, solos, [str(default_soundfont())], **defaults | options)


def test_takes_are_the_same_in_any_order():
    forward, again = [source()[i] for i in range(4)], source()
    for i in (3, 0, 2):
        for name, value in forward[i].items():
            np.testing.assert_array_equal(again[i][name], value)
    assert len({take["audio"].tobytes() for take in forward}) == 4


def test_every_part_has_an_instrument_of_its_own_that_plays_such_parts():
    seen = set()
    for take in source(vary=False, together=1.0, num_takes=6):
        notes = validate_notes(take_notes(take))
        assert notes["offset"].max() <= 2.0
        bass = notes["pitch"] == 40
        drums = notes["is_drum"]
        assert (notes["pitch"][drums] == 38).all()
        assert set(notes["program"][bass & ~drums]) <= set(PROGRAMS["bass"])
        others = set(notes["program"][~bass & ~drums].tolist())
        assert len(others) == 2
        assert len({program // 8 for program in others}) == 2
        seen |= others
    assert len(seen) > 4


def test_every_part_is_heard():
    take = source(vary=False, together=0.0)[0]
    notes = take_notes(take)
    assert len(notes) > 5
    audio = take["audio"].astype(float)
    assert np.abs(audio).max() == pytest.approx(0.9 * 32767, rel=1e-3)
    start = int(notes["onset"][0] * 16000)
    assert np.sqrt(np.mean(audio[start : start + 1600] ** 2)) > 100


def test_drums_keep_their_pitch_when_music_is_transposed():
    rng = np.random.default_rng(0)
    pitches = set()
    for _ in range(10):
        notes = vary_notes(BAND, rng)
        assert (notes["pitch"][notes["is_drum"]] == 38).all()
        pitches |= set(notes["pitch"][~notes["is_drum"]].tolist())
    assert len(pitches) > 20


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="bands and soundfonts"):
        RenderedEnsembles([], [], ["font.sf2"], num_takes=1)
    with pytest.raises(IndexError):
        source()[12]
