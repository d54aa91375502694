"""`musax compose`, `infill` and `score`, with models of music and of text."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from cdcd.contents import Melody
from cdcd.scoring import ANY_ORDER, BOUND, EXACT, LEFT_TO_RIGHT
from musax import cli
from musax.commands import pieces, score
from musax.diffusion import METHODS
from musax.midi import load_midi, midi_tempo, save_midi
from musax.notes import empty_notes, make_notes
from tests import tiny_cdcd, tiny_drum_model, tiny_perceiver

TUNE = make_notes([0.0, 1.0, 2.0, 2.5, 4.0], [0.5, 1.5, 2.5, 3.5, 4.5], [60, 64, 67, 72, 60])
MELODY = ["--model", "cdcd-melody"]
QUICK = ["--steps", "4"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Models under the names of the default ones."""
    folder = tmp_path_factory.mktemp("shelf")
    tiny_perceiver.save_tiny_model(folder / "perceiver_ar-pop909")
    tiny_cdcd.save_tiny_model(folder / "cdcd-text")
    tiny_cdcd.save_tiny_model(folder / "cdcd-melody", tiny_cdcd.tiny_config(Melody()))
    tiny_cdcd.save_tiny_model(folder / "letters-ar", tiny_cdcd.tiny_config(kind="ar"))
    tiny_drum_model.save_tiny_model(folder / "tiny-drums")
    wrong = tiny_cdcd.save_tiny_model(folder / "wrong-config")
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps({**config, "length": "long"}))
    return folder


@pytest.fixture(autouse=True)
def folder(shelf, tmp_path, monkeypatch):
    """A working directory with a tune, and a file without one."""
    monkeypatch.setenv("MUSAX_PRETRAINED", str(shelf))
    monkeypatch.chdir(tmp_path)
    save_midi("song.mid", TUNE)
    save_midi("nothing.mid", empty_notes())
    (tmp_path / "out").mkdir()
    return tmp_path


def musax(*arguments):
    return cli.main([str(argument) for argument in arguments])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --------------------------------------------------------------------------------------- compose


def test_pieces_with_pictures_and_sound(folder, capsys):
    pytest.importorskip("matplotlib")
    out = folder / "out" / "piece.mid"
    options = ["--length", 4, "--seed", 5]
    assert musax("compose", "-o", out, *options, "--render", "--plot") == 0
    assert names(out.parent) == ["piece.mid", "piece.png", "piece.wav"]
    said = capsys.readouterr().out
    assert "seed 5" in said
    assert f"{len(load_midi(out))} notes" in said
    assert musax("compose", "-o", "again.mid", *options, "-q") == 0
    assert (folder / "again.mid").read_bytes() == out.read_bytes()
    assert capsys.readouterr().out == ""


def test_a_file_is_continued_several_times(folder):
    options = ["--prompt", "song.mid", "--prompt-seconds", 2.2, "--length", 3, "--count", 2]
    assert musax("compose", "-o", "out", *options, "--format", "mid,csv") == 0
    assert names(folder / "out") == ["song-1.csv", "song-1.mid", "song-2.csv", "song-2.mid"]
    found = [load_midi(folder / "out" / f"song-{i}.mid") for i in (1, 2)]
    assert found[0].tobytes() != found[1].tobytes()
    for notes in found:
        assert notes["pitch"][:2].tolist() == [60, 64]


def test_melodies_have_bars_and_a_tempo(folder, capsys):
    save_midi("slow.mid", TUNE, tempo=60)
    options = [*MELODY, *QUICK, "--prompt", "slow.mid", "--seed", 3]
    assert musax("compose", "-o", "more.mid", *options, "--bars", 2) == 0
    assert "0:12 (new from 0:04 on), seed 3" in capsys.readouterr().out
    notes = load_midi(folder / "more.mid")
    assert midi_tempo(folder / "more.mid") == 60
    assert notes["pitch"][:5].tolist() == TUNE["pitch"].tolist()
    assert 4.5 < notes["offset"].max() <= 12.5
    assert musax("compose", "-o", "other.mid", *options, "--length", 8, "--tempo", 60) == 0
    assert (folder / "other.mid").read_bytes() == (folder / "more.mid").read_bytes()


def test_text_on_stdout_and_in_files(folder, capsys):
    options = [*QUICK, "--tokens", 15, "--seed", 2, "--count", 2]
    assert musax("compose", "--model", "cdcd-text", "--prompt", "To be", *options) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [(line[:5], len(line)) for line in lines] == [("to be", 20)] * 2
    assert "seed 2" in said.err
    (folder / "begin.txt").write_text("To be")
    assert musax("compose", "--prompt", "begin.txt", "-o", "out/x.txt", *options) == 0
    texts = [(folder / f"out/x-{i}.txt").read_text() for i in (1, 2)]
    assert texts == [line + "\n" for line in lines]
    assert "20 tokens, seed 2" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------- infill


def test_gaps_of_a_melody_are_filled_in(folder, capsys):
    assert musax("infill", "song.mid", "--bars", "2:2", "-o", "filled.mid", *QUICK) == 0
    notes = load_midi(folder / "filled.mid")
    outside = (notes["onset"] < 1.99) | (notes["onset"] > 3.99)
    assert notes["pitch"][outside].tolist() == [60, 64, 60]
    assert "-> filled.mid" in capsys.readouterr().out
    assert musax("infill", "song.mid", "--seconds", "0:1", "-o", ".", *QUICK, "-q") == 0
    assert load_midi(folder / "song.infilled.mid")["pitch"][-4:].tolist() == [64, 67, 72, 60]


def test_a_melody_keeps_the_grid_of_its_tempo(folder, capsys):
    onset = np.arange(8) * 0.25
    save_midi("fast.mid", make_notes(onset, onset + 0.25, 60), tempo=240)
    arguments = ["infill", "fast.mid", "--bars", "2:2", "-o", "filled.mid", *QUICK]
    assert musax(*arguments) == 0
    notes = load_midi(folder / "filled.mid")
    np.testing.assert_allclose(notes["onset"][:4], onset[:4], atol=1e-3)
    assert musax(*arguments, "--tempo", 30) == 2
    assert "bars 2 to 2: expected bars of 1 to 1" in capsys.readouterr().err


def test_blanks_are_filled_in(folder, capsys):
    options = [*QUICK, "--rounds", 1, "--method", "dpmpp_2m", "--guidance", 2, "--seed", 1]
    assert musax("infill", "--text", "To be ___ to be", "--count", 3, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line[:6] + line[9:] == "to be  to be"
    (folder / "page.txt").write_text("a _ b")
    ordered = ["--model", "letters-ar", "--temperature", 0.5, "--top-p", 0.9]
    assert musax("infill", "page.txt", "-o", "filled.json", *ordered) == 0
    filled = json.loads((folder / "filled.json").read_text())
    assert filled["text"][:2] + filled["text"][3:] == "a  b"
    assert filled["made"] == [False, False, True, False, False]


# ----------------------------------------------------------------------------------------- score


def test_scores_are_a_table(folder, capsys):
    save_midi("out/other.mid", TUNE[4:])
    assert musax("score", "song.mid", "out", "--passes", 2) == 0
    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "tokens", "nats", "bits_per_token", "estimate"]
    assert first.split()[:2] == ["song.mid", "36"]
    assert second.split()[:2] == ["out/other.mid", "36"]
    assert 0 < float(first.split()[3]) < 20
    assert first.split()[3] != second.split()[3]
    assert first.split()[4] == "any-order"
    options = ["--model", "perceiver_ar-pop909", "--format", "csv,json"]
    assert musax("score", "song.mid", "-o", "scores.csv", *options) == 0
    assert capsys.readouterr().out == ""
    (row,) = csv.DictReader((folder / "scores.csv").open())
    (same,) = json.loads((folder / "scores.json").read_text())
    assert row["estimate"] == same["estimate"] == "exact"
    assert float(row["nats"]) == same["nats"] > 0


def test_files_that_cannot_be_scored_do_not_stop_the_others(folder, capsys):
    (folder / "empty.txt").write_text("")
    (folder / "good.txt").write_text("to be")
    model = ["--model", "letters-ar", "--estimate", "exact", "--format", "json"]
    assert musax("score", "empty.txt", "missing.txt", "good.txt", *model) == 1
    said = capsys.readouterr()
    assert [row["file"] for row in json.loads(said.out)] == ["good.txt"]
    empty, missing, count = said.err.splitlines()
    assert "empty.txt: " in empty
    assert "missing.txt: no such file" in missing
    assert "2 of 3 inputs failed" in count


# --------------------------------------------------------------------------------------- mistakes

NOT_STARTED = [
    (
        ["infill", "song.mid", "--bars", "3:9", "-o", "p.mid"],
        "song.mid: bars 3 to 9: expected bars of 1 to 3",
    ),
    (["compose"], "perceiver_ar-pop909: music needs a place to be written; give -o FILE.mid"),
    (["compose", "-o", "p.mp3"], "p.mp3: results of perceiver_ar-pop909, a model of music, are"),
    (["compose", "-o", "p.mid", "--steps", 3], "has no option --steps; it has --length, --prompt-"),
    (["compose", "-o", "p.mid", "--bars", 3], "perceiver_ar-pop909: this model of music has no"),
    (["compose", "--model", "cdcd-text", "--bars", 3], "has no option --bars; it has --tokens, --"),
    (["compose", "--model", "cdcd-text", "--tempo", 90], "cdcd-text: this model of text has no op"),
    (["compose", "--model", "letters-ar", "--steps", 3], "letters-ar: this model of text has no o"),
    (["compose", "--model", "cdcd-text", "--plot"], "--format, --plot, --render need -o"),
    (["compose", "-o", "p.txt", "--plot"], "format png: results of cdcd-text, a model of text, ar"),
    (["compose", "--model", "cdcd-text", "-o", "p.mid"], "p.mid: results of cdcd-text, a model of"),
    (["compose", "--model", "cdcd-text", "--prompt", "song.mid"], "expected a text file"),
    (["compose", "-o", "p.mid", "--prompt", "a song"], "--prompt a song: perceiver_ar-pop909 is a"),
    (["compose", "-o", "p.mid", "--prompt", "nothing.mid"], "nothing.mid: this MIDI file has no"),
    (["compose", "-o", "p.mid", "--prompt", "missing.mid"], "missing.mid: no such file"),
    (["compose", "-o", "song.mid", "--prompt", "song.mid"], "song.mid: a result would replace"),
    (["compose", "-o", "p.mid", "--model", "no-such"], "'no-such': no such model"),
    (
        ["compose", "-o", "p.mid", "--model", "tiny-drums"],
        "a model of drums (drums); compose needs",
    ),
    (["compose", "-o", "p.txt", "--model", "wrong-config"], "length"),
    (["compose", "-o", "p.mid", "--render", "--soundfont", "no.sf2"], "no.sf2: no such soundfont"),
    (["compose", "-o", "p.mid", "--soundfont", "no.sf2"], "--soundfont: only audio needs it"),
    (["infill"], "expected a FILE or --text"),
    (["infill", "song.mid", "--text", "a_"], "expected a FILE or --text"),
    (["infill", "song.mid", "-o", "p.mid"], "song.mid: give the gap with --bars FROM:TO"),
    (["infill", "song.mid", "--bars", "1"], "music needs a place to be written"),
    (["infill", "song.mid", "--bars", "1", "-o", "song.mid"], "song.mid: a result would replace"),
    (["infill", "song.mid", "--model", "cdcd-text"], "cdcd-text is a model of text; expected a te"),
    (["infill", "--text", "a_", "--bars", "1"], "--bars, --seconds: only for MIDI files"),
    (["infill", "--text", "a_", *MELODY], "--text: cdcd-melody is a model of music"),
    (["infill", "missing.txt"], "missing.txt: no such file"),
    (["infill", "--text", "a_", "--model", "perceiver_ar-pop909"], "infill needs one of: cdcd-mel"),
    (["score"], "expected files or --text"),
    (["score", "song.mid", "--text", "a"], "expected files or --text"),
    (["score", "song.mid", "page.txt"], "page.txt: cdcd-melody is a model of music; score"),
    (["score", "--text", "a", *MELODY], "--text: cdcd-melody is a model of music"),
    (["score", "song.mid", "--format", "csv,json"], "--format: several formats need files"),
    (
        ["score", "song.mid", "--model", "perceiver_ar-pop909", "--passes", 3],
        "no option --passes; it has none of these options",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), NOT_STARTED)
def test_what_cannot_be_started(arguments, message, folder, capsys):
    pytest.importorskip("matplotlib")
    before = names(folder)
    assert musax(*arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert names(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infill", "--text", "no blanks"], "no blanks; write a '_'"),
        (["infill", "--text", "____"], "only blanks"),
        (["infill", "--text", "你好 _"], "symbols that the model does not know"),
        (["compose", "--model", "cdcd-text", "--prompt", "a" * 30], "the training length is 16"),
    ],
)
def test_what_fails(arguments, message, folder, capsys):
    assert musax(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (folder / "p.mid").exists()


@pytest.mark.parametrize(
    "option",
    [
        ["compose", "--steps", "0"],
        ["compose", "--temperature", "-1"],
        ["compose", "--method", "rk4"],
        ["compose", "--count", "x"],
        ["compose", "--length", "-1"],
        ["compose", "--tempo", "1"],
        ["compose", "--prompt-seconds", "0"],
        ["compose", "--guidance", "nan"],
        ["compose", "--top-p", "2"],
        ["compose", "--seed", "-3"],
        ["compose", "--bars", "4", "--length", "3"],
        ["infill", "--bars", "4:x"],
        ["infill", "--bars", "0"],
        ["infill", "--bars", "5:4"],
        ["infill", "--seconds", "x"],
    ],
)
def test_options_out_of_range(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        musax(*option)
    (line,) = capsys.readouterr().err.splitlines()
    assert option[1] in line


def test_help_states_what_models_have_and_stays_light():
    assert tuple(name.replace("_", "-") for name in METHODS) == pieces.METHODS
    known = (EXACT, ANY_ORDER, LEFT_TO_RIGHT, BOUND)
    assert tuple(name.replace("_", "-") for name in known) == score.ESTIMATES
    code = (
        "import sys\nfrom musax import cli\n"
        "for verb in ('compose', 'infill', 'score', 'drums'):\n"
        "    try: cli.main([verb, '--help'])\n    except SystemExit: pass\n"
        "heavy = {'jax', 'numpy', 'cdcd', 'perceiver_ar', 'drums', 'librosa', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("[]\n")
    assert "to be or ___ to be" in found.stdout
