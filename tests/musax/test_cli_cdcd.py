import subprocess
import sys

import numpy as np
import pytest

from cdcd.contents import Melody
from musax import cli
from musax.commands import cdcd as command
from musax.diffusion import METHODS
from musax.midi import load_midi, midi_tempo, save_midi
from musax.notes import empty_notes, make_notes
from tests import tiny_drum_model
from tests.tiny_cdcd import save_tiny_model, tiny_config

TUNE = make_notes([0.0, 1.0, 2.0, 2.5, 4.0], [0.5, 1.5, 2.5, 3.5, 4.5], [60, 64, 67, 72, 60])
QUICK = ["--steps", "4"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Models by the names that the verb asks for."""
    folder = tmp_path_factory.mktemp("shelf")
    save_tiny_model(folder / "cdcd-text")
    save_tiny_model(folder / "cdcd-melody", tiny_config(Melody()))
    save_tiny_model(folder / "letters-ar", tiny_config(kind="ar"))
    tiny_drum_model.save_tiny_model(folder / "tiny-drums")
    return folder


@pytest.fixture(autouse=True)
def folder(shelf, tmp_path, monkeypatch):
    """A working directory with a tune, and a file without one."""
    monkeypatch.setenv("MUSAX_PRETRAINED", str(shelf))
    monkeypatch.chdir(tmp_path)
    save_midi("song.mid", TUNE)
    save_midi("nothing.mid", empty_notes())
    return tmp_path


def cdcd(*arguments):
    return cli.main(["cdcd", *map(str, arguments)])


# ---------------------------------------------------------------------------------------- sample


def test_a_melody_with_picture_and_sound(folder, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tinysoundfont")
    out = folder / "new" / "tune.mid"
    options = [*QUICK, "--length", 2, "--seed", 5]
    assert cdcd("sample", "-o", out, *options, "--render", "--plot") == 0
    assert {p.name for p in out.parent.iterdir()} == {"tune.mid", "tune.wav", "tune.png"}
    said = capsys.readouterr().out
    assert f"{len(load_midi(out))} notes, 0:04, seed 5" in said
    assert load_midi(out)["offset"].max() <= 4.0
    assert cdcd("sample", "-o", "again.mid", *options, "-q") == 0
    assert (folder / "again.mid").read_bytes() == out.read_bytes()
    assert capsys.readouterr().out == ""


def test_a_melody_goes_on_at_its_tempo(folder):
    save_midi("slow.mid", TUNE, tempo=60)
    options = [*QUICK, "--prompt", "slow.mid", "--length", 2, "--count", 2]
    assert cdcd("sample", "-o", "more.mid", *options) == 0
    for number in (1, 2):
        notes = load_midi(folder / f"more-{number}.mid")
        assert midi_tempo(folder / f"more-{number}.mid") == 60
        assert notes["pitch"][:5].tolist() == TUNE["pitch"].tolist()
        assert 4.5 < notes["offset"].max() <= 8.0


def test_text_on_stdout_and_in_files(folder, capsys):
    options = [*QUICK, "--length", 20, "--seed", 2, "--count", 2]
    assert cdcd("sample", "--prompt", "To be", *options) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line[:5] for line in lines] == ["to be"] * 2
    assert "seed 2" in said.err
    (folder / "begin.txt").write_text("To be")
    assert cdcd("sample", "--prompt", "begin.txt", "-o", "out/text.txt", *options) == 0
    assert [(folder / f"out/text-{i}.txt").read_text() for i in (1, 2)] == [x + "\n" for x in lines]
    assert "20 tokens, seed 2" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------- infill


def test_bars_are_filled_in(folder, capsys):
    assert cdcd("infill", "song.mid", "--bars", "2:2", "-o", "filled.mid", *QUICK) == 0
    notes = load_midi(folder / "filled.mid")
    outside = (notes["onset"] < 1.99) | (notes["onset"] > 3.99)
    assert notes["pitch"][outside].tolist() == [60, 64, 60]
    assert "-> filled.mid" in capsys.readouterr().out
    assert cdcd("infill", "song.mid", "--seconds", "0:1", "-o", "other.mid", *QUICK, "-q") == 0
    assert load_midi(folder / "other.mid")["pitch"][-4:].tolist() == [64, 67, 72, 60]


def test_blanks_are_filled_in(folder, capsys):
    options = [*QUICK, "--rounds", 1, "--method", "dpmpp_2m", "--guidance", 2, "--seed", 1]
    assert cdcd("infill", "--text", "To be ___ to be", "--count", 3, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line[:6] + line[9:] == "to be  to be"
    (folder / "page.txt").write_text("a _ b")
    ordered = ["--model", "letters-ar", "--temperature", 0.5]
    assert cdcd("infill", "page.txt", "-o", "page.out", *ordered) == 0
    filled = (folder / "page.out").read_text()
    assert filled[:2] + filled[3:] == "a  b\n"


# ----------------------------------------------------------------------------------------- score


def test_scores_are_a_table(folder, capsys):
    save_midi("other.mid", TUNE[4:])
    assert cdcd("score", "song.mid", "other.mid", "--passes", 2) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "tokens", "bits", "per", "token", "estimate"]
    assert first.split()[:2] == ["song.mid", "36"]
    assert second.split()[:2] == ["other.mid", "36"]
    assert 0 < float(first.split()[2]) < 20
    assert first.split()[2] != second.split()[2]
    assert first.split()[3] == "any_order"
    assert cdcd("score", "--text", "to be", "--model", "letters-ar", "--estimate", "exact") == 0
    assert "(text)" in capsys.readouterr().out


def test_files_that_cannot_be_scored_do_not_stop_the_others(folder, capsys):
    (folder / "empty.txt").write_text("")
    (folder / "good.txt").write_text("to be")
    model = ["--model", "letters-ar"]
    assert cdcd("score", "empty.txt", "missing.txt", "good.txt", *model) == 1
    said = capsys.readouterr()
    assert "empty.txt: " in said.err
    assert "missing.txt: no such file" in said.err
    assert "good.txt" in said.out


# --------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--prompt", "song.mid"], "song.mid: give the MIDI file to write with -o"),
        (["sample", "--plot"], "--render, --plot and --tempo are of melodies"),
        (["sample", "-o", "p.mid", "--prompt", "nothing.mid"], "nothing.mid: a MIDI file without"),
        (["sample", "-o", "p.mid", "--prompt", "missing.mid"], "missing.mid: no such file"),
        (["sample", "-o", "song.mid", "--prompt", "song.mid"], "song.mid: a result would replace"),
        (["sample", "-o", "p.mid", "--model", "cdcd-text"], "cdcd-text: a model of text"),
        (["sample", "--model", "cdcd-melody"], "cdcd-melody: a model of melodies"),
        (["sample", "--model", "no-such"], "'no-such': no such model"),
        (["sample", "--model", "tiny-drums"], "tiny-drums: not a model of cdcd"),
        (["sample", "-o", "p.mid", "--render", "--soundfont", "no.sf2"], "no.sf2"),
        (["infill"], "expected either a FILE or --text"),
        (["infill", "song.mid", "--text", "a_"], "expected either a FILE or --text"),
        (["infill", "song.mid", "-o", "p.mid"], "song.mid: expected either --bars"),
        (["infill", "song.mid", "--bars", "1"], "song.mid: give the MIDI file to write"),
        (
            ["infill", "song.mid", "--bars", "1", "-o", "p.wav"],
            "p.wav: expected the name of a MIDI",
        ),
        (
            ["infill", "song.mid", "--bars", "1", "-o", "song.mid"],
            "song.mid: a result would replace",
        ),
        (["infill", "--text", "a_", "-o", "p.mid"], "p.mid: a MIDI file of text"),
        (["infill", "missing.txt"], "missing.txt: no such file"),
        (["score"], "expected either files or --text"),
        (["score", "song.mid", "--text", "a"], "expected either files or --text"),
        (["score", "song.mid", "page.txt"], "score them in turn"),
    ],
)
def test_what_cannot_be_started(arguments, message, folder, capsys):
    pytest.importorskip("tinysoundfont")
    pytest.importorskip("matplotlib")
    before = sorted(folder.iterdir())
    assert cdcd(*arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infill", "song.mid", "--bars", "3:9", "-o", "p.mid"], "bars 3 to 9: expected bars of 1"),
        (["infill", "--text", "no blanks"], "no blanks; write a '_'"),
        (["infill", "--text", "____"], "only blanks"),
        (["infill", "--text", "你好 _"], "symbols that the model does not know"),
        (["sample", "--prompt", "a" * 30], "prompt: 30 tokens, which leaves none of length=16"),
        (["sample", "--model", "letters-ar", "--steps", "3"], "kind 'ar': unknown option steps"),
    ],
)
def test_what_fails(arguments, message, folder, capsys):
    assert cdcd(*arguments) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "p.mid").exists()


@pytest.mark.parametrize(
    "option",
    [
        ["--steps", "0"],
        ["--temperature", "0"],
        ["--method", "rk4"],
        ["--count", "x"],
        ["--length", "-1"],
        ["--tempo", "1"],
        ["--guidance", "nan"],
    ],
)
def test_options_out_of_range(option, capsys):
    with pytest.raises(SystemExit):
        cdcd("sample", *option)
    assert option[1] in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--bars", "4:x"], ["--bars", "0"], ["--seconds", "3"]])
def test_gaps_that_are_no_numbers(option, capsys):
    with pytest.raises(SystemExit):
        cdcd("infill", "song.mid", *option)
    assert "is not a" in capsys.readouterr().err


def test_help_says_what_there_is_and_stays_light(capsys):
    assert tuple(METHODS) == command.METHODS
    assert cdcd() == 2
    assert "infill" in capsys.readouterr().out
    code = (
        "import sys\nfrom musax import cli\n"
        "try: cli.main(['cdcd', 'infill', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('jax', 'cdcd', 'tensorflow') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("[]\n")
    assert "to be or ___ to be" in found.stdout


def test_a_melody_keeps_the_grid_of_its_tempo(folder):
    save_midi(
        "fast.mid", make_notes(np.arange(8) * 0.25, np.arange(8) * 0.25 + 0.25, 60), tempo=240
    )
    arguments = ["infill", "fast.mid", "--bars", "2:2", "-o", "filled.mid", *QUICK]
    assert cdcd(*arguments) == 0
    notes = load_midi(folder / "filled.mid")
    np.testing.assert_allclose(notes["onset"][:4], np.arange(4) * 0.25, atol=1e-3)
    assert cdcd(*arguments, "--tempo", 30) == 1  # at which there is one bar
