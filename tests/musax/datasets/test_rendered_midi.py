import numpy as np
import pytest

from musax.datasets.pieces import Piece
from musax.datasets.rendered_midi import (
    Instruments,
    RenderedMidi,
    random_notes,
    take_notes,
    vary_notes,
)
from musax.notes import make_notes, validate_notes
from musax.rendering.soundfonts import default_soundfont

SCALE = make_notes(0.25 * np.arange(40), 0.25 * np.arange(40) + 0.2, 60 + np.arange(40) % 12)


def source(**kwargs):
    instruments = Instruments((str(default_soundfont()),), virtual=kwargs.pop("virtual", 0.5))
    defaults = {"num_instruments": 3, "takes_per_instrument": 2, "seconds": 3.0, "seed": 1}
    return RenderedMidi([Piece("scale", lambda: SCALE)], instruments, **defaults | kwargs)


def test_takes_are_the_same_in_any_order_and_differ_from_each_other():
    forward = [source()[i] for i in range(6)]
    again = source()
    for i in (5, 0, 3):
        for name, value in forward[i].items():
            np.testing.assert_array_equal(again[i][name], value)
    assert len({take["audio"].tobytes() for take in forward}) == 6


@pytest.mark.parametrize("virtual", [0.0, 1.0])
def test_energy_rises_where_notes_begin(virtual):
    take = source(virtual=virtual, vary=False, random_pieces=0.0)[0]
    notes = validate_notes(take_notes(take))
    assert len(notes) > 5
    assert notes["offset"].max() <= 3.0
    audio = take["audio"].astype(float)
    first = int(notes["onset"][0] * 16000)
    after = np.sqrt(np.mean(audio[first : first + 1600] ** 2))
    before = np.sqrt(np.mean(audio[: max(first - 16, 1)] ** 2)) if first > 16 else 0.0
    assert after > 10 * before
    assert np.abs(audio).max() == pytest.approx(0.9 * 32767, rel=1e-3)


def test_one_instrument_serves_consecutive_takes():
    programs = [source(virtual=0.0, num_instruments=1, takes_per_instrument=4)[i] for i in range(4)]
    fonts_of_take = {tuple(np.unique(take["program"])) for take in programs}
    assert all(len(p) == 1 for p in fonts_of_take)


def test_variations_stay_on_the_piano_and_in_order():
    rng = np.random.default_rng(0)
    for _ in range(50):
        notes = vary_notes(SCALE, rng)
        validate_notes(notes)
        assert (notes["offset"] > notes["onset"]).all()
        assert ((notes["pitch"] >= 21) & (notes["pitch"] <= 108)).all()
    validate_notes(random_notes(rng, 10.0))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="no pieces"):
        RenderedMidi([], Instruments(virtual=1.0), num_instruments=1)
    with pytest.raises(ValueError, match="no soundfonts"):
        RenderedMidi([Piece("scale", lambda: SCALE)], Instruments(), num_instruments=1)
    with pytest.raises(FileNotFoundError, match=r"missing\.sf2"):
        RenderedMidi(
            [Piece("scale", lambda: SCALE)], Instruments(("missing.sf2",)), num_instruments=1
        )
    with pytest.raises(IndexError):
        source()[6]
