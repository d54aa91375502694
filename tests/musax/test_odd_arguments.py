"""Arguments that people type by mistake: each gives the right result, or one line that helps."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from musax import cli
from musax.audio import AudioError, audio_info, load_audio, save_audio
from musax.commands import numbers
from musax.commands.console import describe_exception
from musax.commands.files import InputError, expand_inputs
from musax.commands.options import Parser
from musax.midi import MidiError, load_midi, save_midi
from musax.notes import make_notes


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_midi("song.mid", make_notes([0.0], [0.2], 60))
    save_audio("take.wav", np.zeros(100, np.float32), 8000)
    return tmp_path


def musax(capsys, *arguments):
    """Return the exit status and the lines of errors."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as stopped:
        status = stopped.code
    return status, capsys.readouterr().err


@pytest.mark.parametrize("name", ["bad.wav", "my take.m4a", "it's.mp4", "sub/a b.aac", "-x.wma"])
def test_the_hint_converts_to_another_file_and_is_quoted(name):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(b"\x01not audio" * 50)
    with pytest.raises(AudioError) as raised:
        load_audio(name)
    words = shlex.split(str(raised.value).partition("ffmpeg ")[2])
    assert words[0] == "-i"
    source, target = map(Path, words[1:])
    assert source.resolve() == Path(name).resolve()
    assert target.suffix == ".wav"
    assert not target.exists()
    assert not any(word.startswith("-") for word in words[1:])


def test_notes_given_as_audio_and_audio_given_as_notes():
    with pytest.raises(AudioError, match=r"song.mid: a MIDI file, not audio: .*musax render song"):
        load_audio("song.mid")
    with pytest.raises(MidiError, match=r"take.wav: .*'MThd'; it is audio: musax transcribe"):
        load_midi("take.wav")


def test_files_that_a_folder_does_not_stand_for_are_named(folder):
    mixed = folder / "takes"
    mixed.mkdir()
    for name in ("a.wav", "b.m4a", ".c.m4a", "notes.txt"):
        (mixed / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"takes: passed over 1 in other formats \(takes/b.m4a\)"):
        assert expand_inputs(["takes"]) == [Path("takes/a.wav")]
    (mixed / "a.wav").unlink()
    with pytest.raises(InputError, match=r"no files ending in .*; it holds 1 .*takes/b.m4a"):
        expand_inputs(["takes"])
    shutil.copy("song.mid", mixed / "d.kar")
    assert expand_inputs(["takes/d.kar"], {".mid"}) == [Path("takes/d.kar")]


def test_a_folder_does_not_stand_for_hidden_ones(folder, capsys):
    (folder / ".venv/data").mkdir(parents=True)
    shutil.copy("song.mid", ".venv/data/other.mid")
    status, errors = musax(capsys, "render", ".")
    assert (status, errors) == (0, "")
    assert [path.name for path in folder.rglob("*.wav")].count("other.wav") == 0
    assert (folder / "song.wav").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "song.mid", "-o", "nodir/x.wav"], "nodir: no such folder; create it"),
        (["render", "song.mid", "--sample-rate", "1"], "'1' is not a sample rate from 1000"),
        (["render", "song.mid", "--sample-rate", "99999999999"], "is not a sample rate"),
        (
            ["compose", "-o", "x.mid", "--seed", "9" * 20],
            f"'{'9' * 20}' is not a whole",
        ),
        (["compose", "-o", "x.mid", "--seed", "9" * 5000], "is not a whole number from 0"),
        (["compose", "-o", "x.mid", "--count", "9" * 20], "is not at most 1000000"),
        (["compose", "-o", "x.mid", "--count", "-3"], "'-3' is not a whole number of 1 or more"),
        (["infill", "song.mid", "--bars", "-1:2"], "'-1' is not a whole number of 1 or more"),
        (["compose", "--prompt", "--count", "3"], "argument --prompt: expected one argument"),
        (["score", "--text", "--est", "exact"], "argument --text: expected one argument"),
        (["transcribe", ""], "an empty name among the inputs"),
        (["transcribe", "take.wav", "-o", ""], "an empty name; expected a file or folder"),
        (["render", "song.mid", "-take.mid"], "unrecognized arguments: -take.mid; write a file as"),
    ],
)
def test_one_line_that_helps(folder, capsys, arguments, message):
    shutil.copy("song.mid", "-take.mid")
    before = {path.name for path in folder.iterdir()}
    status, errors = musax(capsys, *arguments)
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == before


def test_values_may_begin_with_a_hyphen():
    parser = Parser()
    parser.add_argument("--text")
    parser.add_argument("-o", "--output")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("rest", nargs="*")
    read = parser.parse_args(["--text", "-a_", "-o", "-x.mid", "-q", "file"])
    assert vars(read) == {"text": "-a_", "output": "-x.mid", "quiet": True, "rest": ["file"]}
    assert parser.parse_args(["--text", "--not an option"]).text == "--not an option"
    assert parser.parse_args(["--text=-a", "--", "-f"]).rest == ["-f"]


def test_whole_numbers():
    assert numbers.count("0012") == 12
    assert numbers.count("1000000") == 1_000_000
    assert numbers.seed("4294967295") == 4294967295
    assert numbers.sample_rate("1000") == 1000


def test_out_of_memory_names_the_options_there_are(capsys, monkeypatch):
    error = MemoryError()
    assert describe_exception(error, "x.mid") == "x.mid: out of memory; try a shorter input"
    jax_error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
    assert "a lower --batch-size or --count, or a" in describe_exception(
        jax_error, "x", ["--batch-size", "--count"]
    )

    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr("musax.results.save_rendering", fail)
    status, errors = musax(capsys, "render", "song.mid")
    assert status == 1
    assert errors == (
        "musax: error: song.mid: out of memory; try a lower --sample-rate, or a shorter input\n"
    )


def test_the_least_rate_is_written(capsys):
    assert musax(capsys, "render", "song.mid", "--sample-rate", "1000")[0] == 0
    assert audio_info("song.wav").sample_rate == 1000
