"""Own recordings with their notes: `musax prepare pairs`."""

import re

import numpy as np
import pytest

from musax.audio import save_audio
from musax.cli import main
from musax.datasets.pairs import PairTakes, find_pairs, split_pairs, write_pairs
from musax.midi import save_midi
from musax.notes import NOTE_FIELDS, make_notes
from musax.notes_io import save_notes_csv, save_notes_json
from musax.rendering.virtual_piano import VirtualPiano
from t5x.data.records import read_array_record

RATE = 8000


def piece(seed, seconds=30.0, pause=None):
    """Quarters at 120 with a rest of a second around `pause`."""
    onset = np.arange(0.2, seconds - 0.6, 0.5)
    if pause is not None:
        onset = onset[np.abs(onset + 0.25 - pause) > 0.6]
    pitch = np.random.default_rng(seed).integers(50, 70, len(onset))
    return make_notes(onset, onset + 0.45, pitch, 90)


def play(path, notes, seconds=30.0):
    piano = VirtualPiano(np.random.default_rng(0), RATE, longest_s=1.0)
    audio = piano.render(notes, seconds=seconds)
    save_audio(path, np.stack([audio, audio], axis=1), RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings")
    (root / "more").mkdir()
    for i, (name, save) in enumerate(
        {"a": save_midi, "b": save_notes_csv, "more/c": save_notes_json}.items()
    ):
        notes = piece(i, pause=15.0)
        play(root / f"{name}.wav", notes)
        suffix = {save_midi: ".mid", save_notes_csv: ".csv", save_notes_json: ".json"}[save]
        save(root / f"{name}{suffix}", notes)
    play(root / "alone.flac", piece(9, 2.0), 2.0)
    return root


def notes_of(take):
    return make_notes(*(take[name] for name in NOTE_FIELDS))


def test_pairs_are_found_and_whole_recordings_held_out(folder):
    pairs = find_pairs(folder)
    assert [pair.audio.name for pair in pairs] == ["a.wav", "b.wav", "c.wav"]
    for share, counts in ((0.1, (2, 1)), (0.9, (1, 2))):
        kept, held_out = split_pairs(pairs, share, 0)
        assert (len(kept), len(held_out)) == counts
        assert sorted(pair.audio for pair in kept + held_out) == [pair.audio for pair in pairs]
    assert split_pairs(pairs, 0.1, 1) != split_pairs(pairs, 0.1, 2)


def test_takes_hold_every_note_once_and_are_cut_in_rests(folder):
    pairs = find_pairs(folder)[:1]
    takes = list(PairTakes(tuple(pairs), RATE, 14.0)(0))
    assert len(takes) == 2
    ends = np.cumsum([len(take["audio"]) / RATE for take in takes])
    assert 14.1 < ends[0] < 15.7  # the rest
    assert ends[1] == pytest.approx(30.0)
    begin, found = 0.0, []
    for take, end in zip(takes, ends):
        assert take["audio"].dtype == np.int16
        part = notes_of(take)
        assert part["offset"].max() <= end - begin
        part["onset"] += begin
        found.append(part)
        begin = end
    expected = piece(0, pause=15.0)
    found = np.concatenate(found)
    np.testing.assert_array_equal(found["pitch"], expected["pitch"])
    np.testing.assert_allclose(found["onset"], expected["onset"], atol=1e-3)
    peak = max(np.abs(take["audio"]).max() for take in takes)
    assert peak == pytest.approx(0.9 * 32767, abs=2)
    # Sound begins where the notes say so.
    loud = np.abs(takes[0]["audio"].astype(float)) > 1000
    assert np.argmax(loud) / RATE == pytest.approx(expected["onset"][0], abs=0.02)


def test_the_command_writes_both_splits(folder, tmp_path, capsys):
    assert main(["prepare", "pairs", str(folder), "-o", str(tmp_path), "-j", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" of ")[-1] for line in said] == ["train", "valid"]
    for split, count in (("train", 2), ("valid", 1)):
        assert len(list(tmp_path.glob(f"{split}-*.array_record"))) == count
    (path,) = tmp_path.glob("valid-*.array_record")
    assert {int(take["sample_rate"]) for take in read_array_record(path)} == {16000}


def test_drums_are_marked_and_named_as_their_task_expects(folder, tmp_path):
    write_pairs(folder, tmp_path, drums=True)
    (path,) = tmp_path.glob("validation-*.array_record")
    (take, *_) = read_array_record(path)
    assert take["is_drum"].all()
    assert take["sample_rate"] == 44100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: (d / "b.json").write_text("[]"),
            r"b\.wav: notes in several files, b\.csv, b\.j",
        ),
        (lambda d: (d / "b.csv").write_text("onset_s,offset_s,pitch\n"), r"b\.csv: no notes"),
        (lambda d: (d / "b.csv").write_text("onset_s,offset_s,pitch\n9,10,60"), "belong together"),
        (lambda d: (d / "a.mid").write_bytes(b"no"), r"a\.mid: not a MIDI file"),
        (lambda d: (d / "a.wav").unlink(), r"one recording alone; two are needed"),
        (lambda d: [(d / n).unlink() for n in ("a.wav", "b.wav")], "no recording .* beside it"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(tmp_path, capsys, change, message):
    source = tmp_path / "in"
    source.mkdir()
    notes = piece(0, 2.0)
    for name in ("a.wav", "b.wav"):
        save_audio(source / name, np.zeros(2 * RATE, np.float32), RATE)
    save_midi(source / "a.mid", notes)
    save_notes_csv(source / "b.csv", notes)
    change(source)
    assert main(["prepare", "pairs", str(source), "-o", str(tmp_path / "out"), "-j", "1"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.glob("out/*.array_record"))
