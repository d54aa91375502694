"""Bars and tempo of MIDI files in `musax infill` and `musax score`."""

import json

import mido
import numpy as np
import pytest

from cdcd.contents import Melody
from musax.cli import main
from musax.midi import load_midi
from tests.midi_files import metre, midi_file, tempo
from tests.tiny_cdcd import save_tiny_model, tiny_config

#: Metre, tempo changes (tick, quarters per minute), and the span of bar 2 in seconds.
FILES = {
    "3/4": ((3, 4), [], (1.5, 3.0)),
    "6/8": ((6, 8), [], (1.5, 3.0)),
    "a tempo at tick 1": ((4, 4), [(1, 60)], (4.0, 8.0)),
    "a count-in": ((4, 4), [(0, 60), (1920, 120)], (4.0, 6.0)),
    "a change within the bar": ((4, 4), [(0, 120), (2880, 60)], (2.0, 5.0)),
}


def scale(signature, tempi, quarters=16):
    """A note on every quarter, its pitch telling which."""
    events = [(0, metre(*signature)), *((at, tempo(bpm)) for at, bpm in tempi)]
    for i in range(quarters):
        events.append((480 * i, mido.Message("note_on", note=50 + i)))
        events.append((480 * i + 470, mido.Message("note_off", note=50 + i)))
    return midi_file(sorted(events, key=lambda event: event[0]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars") / "melody"
    return str(save_tiny_model(folder, tiny_config(Melody())))


@pytest.mark.parametrize("name", FILES)
def test_a_bar_is_the_files(tmp_path, model, capsys, name):
    signature, tempi, (begin, end) = FILES[name]
    source, output = tmp_path / "a.mid", tmp_path / "b.mid"
    source.write_bytes(scale(signature, tempi))
    command = ["infill", str(source), "--bars", "2:2", "-o", str(output), "--model", model]
    assert main([*command, "--steps", "2", "--seed", "1"]) == 0
    warned = "knows 4/4 alone: bars are counted as in the file" in capsys.readouterr().err
    assert warned == (signature != (4, 4))
    given, found = load_midi(source), load_midi(output)
    inside = (given["onset"] >= begin - 0.01) & (given["onset"] < end - 0.01)
    assert inside.any()
    kept = found[(found["onset"] < begin - 0.01) | (found["onset"] >= end - 0.01)]
    np.testing.assert_array_equal(kept["pitch"], given["pitch"][~inside])
    np.testing.assert_allclose(kept["onset"], given["onset"][~inside], atol=2e-3)
    assert not np.array_equal(found["pitch"], given["pitch"])


def test_the_tempo_does_not_change_the_score(tmp_path, model, capsys):
    for i, (signature, tempi, _) in enumerate(FILES.values()):
        (tmp_path / f"{i}.mid").write_bytes(scale(signature, tempi))
    command = ["score", str(tmp_path), "--model", model, "--format", "json", "--passes", "2"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    rows = rows if isinstance(rows, list) else rows["rows"]
    assert len(rows) == len(FILES)
    assert len({row["tokens"] for row in rows}) == 1


def test_bars_that_the_file_has_not_are_named(tmp_path, model, capsys):
    (tmp_path / "a.mid").write_bytes(scale((3, 4), []))
    command = ["infill", str(tmp_path / "a.mid"), "-o", str(tmp_path / "b.mid"), "--model", model]
    assert main([*command, "--bars", "5:7"]) == 2
    assert "a.mid: bars 5 to 7: expected bars of 1 to 6" in capsys.readouterr().err
