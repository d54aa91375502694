import pytest

from musax import cli
from musax.midi import load_midi, save_midi
from musax.notes import empty_notes, make_notes
from tests import tiny_drum_model
from tests.tiny_perceiver import save_tiny_model

PROMPT = make_notes([0.5, 1.0], [0.9, 1.5], [60, 64], 80)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def compose(*arguments):
    return cli.main(["compose", *map(str, arguments)])


def test_a_piece_with_picture_and_sound(model, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tinysoundfont")
    out = tmp_path / "new" / "piece.mid"
    options = ["--length", 4, "--seed", 5, "--render", "--plot"]
    assert compose("-o", out, "--model", model, *options) == 0
    assert {p.name for p in out.parent.iterdir()} == {"piece.mid", "piece.wav", "piece.png"}
    said = capsys.readouterr().out
    assert "seed 5" in said
    assert f"{len(load_midi(out))} notes" in said
    again = tmp_path / "again.mid"
    assert compose("-o", again, "--model", model, "--length", 4, "--seed", 5, "-q") == 0
    assert again.read_bytes() == out.read_bytes()
    assert capsys.readouterr().out == ""


def test_continuing_a_file_several_times(model, tmp_path):
    prompt = tmp_path / "mine.mid"
    save_midi(prompt, PROMPT)
    out = tmp_path / "more.mid"
    options = ["--prompt", prompt, "--length", 3, "--count", 2]
    assert compose("-o", out, "--model", model, *options) == 0
    pieces = [load_midi(tmp_path / f"more-{i}.mid") for i in (1, 2)]
    assert pieces[0].tobytes() != pieces[1].tobytes()
    for notes in pieces:
        assert notes["pitch"][:2].tolist() == [60, 64]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "piece.wav"], "piece.wav: expected the name of a MIDI file"),
        (["-o", "p.mid", "--prompt", "nothing.mid"], "nothing.mid: a MIDI file without notes"),
        (["-o", "p.mid", "--prompt", "missing.mid"], "missing.mid"),
        (["-o", "mine.mid", "--prompt", "mine.mid"], "mine.mid: a result would replace it"),
        (["-o", "p.mid", "--model", "no-such"], "'no-such': no such model"),
        (["-o", "p.mid", "--model", "drums"], "not a model that composes"),
        (["-o", "p.mid", "--render", "--soundfont", "no.sf2"], "no.sf2"),
    ],
)
def test_what_cannot_be_started(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_midi("nothing.mid", empty_notes())
    save_midi("mine.mid", PROMPT)
    if "drums" in arguments:
        tiny_drum_model.save_tiny_model(tmp_path / "drums")
    chosen = [] if "--model" in arguments else ["--model", "none"]
    assert compose(*arguments, *chosen) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p.mid").exists()


def test_a_prompt_that_begins_later(model, tmp_path, capsys):
    save_midi(tmp_path / "mine.mid", PROMPT)
    options = ["--prompt", tmp_path / "mine.mid", "--prompt-seconds", 0.2]
    assert compose("-o", tmp_path / "p.mid", "--model", model, *options) == 1
    assert "mine.mid: no notes" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--length", "0"], ["--top-p", "2"], ["--count", "x"]])
def test_options_out_of_range(option, capsys):
    with pytest.raises(SystemExit):
        compose("-o", "p.mid", "--model", "none", *option)
    assert option[1] in capsys.readouterr().err
