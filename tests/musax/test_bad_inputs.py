"""Every input a user may hand to `musax transcribe`: notes, or one line that says what to do."""

import os

import numpy as np
import pytest
import soundfile

from musax import cli, pretrained
from musax.audio import AudioError
from musax.midi import load_midi
from tests.tiny_mt3 import Mute, scripted, tiny_config, tiny_params, write_model

RATE = 16000


def sine(seconds, rate=RATE, channels=1):
    tone = 0.3 * np.sin(2 * np.pi * 330 * np.arange(round(seconds * rate)) / rate)
    return tone if channels == 1 else np.tile(tone[:, None], channels)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Transcribes a file with a model that hears nothing: (status, lines on stderr, MIDI file)."""
    monkeypatch.setattr(pretrained, "load", lambda name: scripted(tiny_config(), Mute()))

    def transcribe(path):
        capsys.readouterr()
        out = tmp_path / "out"
        status = cli.main(["transcribe", str(path), "-o", str(out)])
        results = sorted(out.iterdir())
        assert len(results) == (status == 0), "a failure must leave no file"
        return status, capsys.readouterr(), results[0] if results else None

    return transcribe


def write_text(path):
    path.write_text("not audio at all, but long enough to look like something" * 20)


def write_midi_header(path):
    path.write_bytes(b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x01\xe0")


def write_nothing(path):
    path.write_bytes(b"")


def write_no_samples(path):
    soundfile.write(path, np.zeros(0), RATE)


def write_not_finite(value):
    def write(path):
        audio = sine(0.5)
        audio[4000] = value
        soundfile.write(path, audio, RATE, subtype="FLOAT")

    return write


BAD = {
    "text": (write_text, "not audio"),
    "midi": (write_midi_header, "not audio"),
    "empty": (write_nothing, "empty"),
    "no samples": (write_no_samples, "no audio"),
    "nan": (write_not_finite(np.nan), "0.250 s is not a finite number"),
    "inf": (write_not_finite(np.inf), "0.250 s is not a finite number"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_clear_line(kind, run, tmp_path):
    write, message = BAD[kind]
    path = tmp_path / "input.wav"
    write(path)
    status, said, _ = run(path)
    assert status == 1
    (line,) = said.err.splitlines()
    assert line.startswith("musax: error: ")
    assert str(path) in line
    assert message in line
    with pytest.raises(AudioError):
        scripted(tiny_config(), Mute()).transcribe_file(path)


def test_missing_and_unreadable_paths(run, tmp_path, monkeypatch):
    status, said, _ = run(tmp_path / "absent.wav")
    assert status == 1
    assert "absent.wav: no such file" in said.err
    folder = tmp_path / "folder.wav"
    folder.mkdir()
    with pytest.raises(AudioError, match="folder"):
        scripted(tiny_config(), Mute()).transcribe_file(folder)
    assert cli.main(["transcribe", str(folder), "-o", str(tmp_path / "out")]) == 2
    locked = tmp_path / "locked.wav"
    soundfile.write(locked, sine(0.1), RATE)
    locked.chmod(0)
    # The superuser, who often runs tests, may read it all the same.
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: p != locked and access(p, mode))
    status, said, _ = run(locked)
    assert status == 1
    assert "permission" in said.err


def test_patterns_and_folders_without_audio(tmp_path, capsys):
    for argument, message in [
        (tmp_path / "*.flac", "matches no files"),
        (tmp_path, "no files ending in .aif"),
    ]:
        assert cli.main(["transcribe", str(argument)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert str(argument) in line


UNUSUAL = {
    "8 bit": (sine(0.5), RATE, "PCM_U8"),
    "24 bit": (sine(0.5), RATE, "PCM_24"),
    "64 bit float": (sine(0.5), RATE, "DOUBLE"),
    "5.1 channels": (sine(0.5, channels=6), RATE, "PCM_16"),
    "8 kHz": (sine(0.5, 8000), 8000, "PCM_16"),
    "192 kHz": (sine(0.5, 192000), 192000, "PCM_16"),
    "11025 Hz": (sine(0.5, 11025), 11025, "PCM_16"),
    "0.01 s": (sine(0.01), RATE, "PCM_16"),
    "one sample": (np.full(1, 0.5), RATE, "PCM_16"),
    "beyond full scale": (20 * sine(0.5), RATE, "FLOAT"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_audio_is_transcribed(kind, run, tmp_path):
    audio, rate, subtype = UNUSUAL[kind]
    path = tmp_path / "input.wav"
    soundfile.write(path, audio, rate, subtype=subtype)
    status, said, midi = run(path)
    assert status == 0
    assert said.err == ""
    assert "0 notes" in said.out
    assert len(load_midi(midi)) == 0


def test_silence_makes_an_empty_midi_file_and_a_remark(run, tmp_path):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    status, said, midi = run(path)
    assert status == 0
    assert "silent" in said.out
    assert len(load_midi(midi)) == 0


def test_a_truncated_mp3_is_transcribed_up_to_its_end(run, tmp_path):
    whole = tmp_path / "whole.mp3"
    soundfile.write(whole, sine(4.0), RATE, format="MP3")
    path = tmp_path / "cut.mp3"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    status, said, midi = run(path)
    assert status == 0
    assert midi.name == "cut.mid"
    for line in said.err.splitlines():
        assert line.startswith("musax: warning: ")
        assert "cut.mp3" in line
    assert "0:02 of audio" in said.out


def test_a_truncated_wav_is_transcribed_with_a_warning_or_refused(run, tmp_path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, sine(2.0), RATE)
    path.write_bytes(path.read_bytes()[:32044])
    status, said, _ = run(path)
    assert status == 0
    assert "0:01 of audio" in said.out


def test_unknown_models_list_the_known_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MUSAX_PRETRAINED", str(tmp_path))
    pretrained.save_model_folder(tmp_path / "test-piano", {}, {"system": "mt3"}, "Card.")
    path = tmp_path / "tone.wav"
    soundfile.write(path, sine(0.1), RATE)
    assert cli.main(["transcribe", str(path), "--model", "test-pianino"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'test-pianino'" in line
    assert "did you mean 'test-piano'?" in line
    assert not path.with_suffix(".mid").exists()


def test_damaged_models_name_what_is_wrong(tmp_path, capsys):
    config = tiny_config()
    params = tiny_params(config)
    del params["decoder"]["layers_0"]["mlp"]
    path = tmp_path / "tone.wav"
    soundfile.write(path, sine(0.1), RATE)

    def complaint(folder):
        assert cli.main(["transcribe", str(path), "--model", str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(folder) in line
        return line

    folder = write_model(tmp_path / "model", config, params)
    assert "decoder/layers_0/mlp/wi/kernel" in complaint(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors" in complaint(folder)
    weights.unlink()
    assert "checkpoint" in complaint(folder)
    (folder / "config.json").write_text('{"system": "mt3", "network": {"emb_dim": 16}}')
    assert "config.json: network.vocab_size is missing" in complaint(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no checkpoint" in complaint(empty)


def test_output_folders_that_cannot_be_written(run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "tone.wav"
    soundfile.write(path, sine(0.1), RATE)
    for folder in (path, path / "below"):
        status = cli.main(["transcribe", str(path), "-o", str(folder)])
        assert status == 2
        assert "-o" in capsys.readouterr().err

    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert cli.main(["transcribe", str(path), "-o", str(tmp_path / "locked")]) == 2
    assert "cannot write into this folder" in capsys.readouterr().err
