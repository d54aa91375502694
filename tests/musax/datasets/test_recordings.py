import numpy as np
import pytest

from musax.audio import save_audio
from musax.datasets import recordings
from musax.midi import save_midi
from musax.notes import make_notes
from tests.benchmarks.test_baselines import NOTES, play


def write_set(folder):
    """Two recordings with truth, one as a table and one as MIDI, and an audio file without."""
    for name in ("a", "b", "nothing_beside"):
        save_audio(folder / f"{name}.wav", play(NOTES), 16000)
    rows = [f"{n['onset']}\t{n['offset']}\t{n['pitch']}\t90" for n in NOTES]
    (folder / "a.tsv").write_text("# onset,offset,note,velocity\n" + "\n".join(rows) + "\n")
    save_midi(folder / "b.mid", NOTES)
    return folder


def test_folder_set_reads_both_kinds_of_truth(tmp_path):
    found = recordings.folder_set(write_set(tmp_path))
    assert [recording.name for recording in found] == ["a", "b"]
    for recording in found:
        np.testing.assert_array_equal(np.sort(recording.notes["pitch"]), np.sort(NOTES["pitch"]))
        assert recording.seconds == pytest.approx(4.0)
    assert set(found[0].notes["velocity"]) == {90}


def test_folder_without_truth_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        recordings.folder_set(tmp_path / "absent")
    save_audio(tmp_path / "a.wav", play(NOTES[:1]), 16000)
    with pytest.raises(FileNotFoundError, match=r"\.tsv or \.mid"):
        recordings.folder_set(tmp_path)
    (tmp_path / "a.tsv").write_text("one two three\n")
    with pytest.raises(ValueError, match=r"a\.tsv"):
        recordings.folder_set(tmp_path)


def test_rendered_set_is_deterministic_and_holds_what_was_played(tmp_path):
    for number in (840, 850):
        song = tmp_path / str(number)
        song.mkdir()
        onsets = np.arange(0, 20, 0.25)
        save_midi(song / f"{number}.mid", make_notes(onsets, onsets + 0.2, 60 + np.arange(80) % 12))
    first, again = (
        recordings.rendered_set("TimGM6mb", tmp_path, pieces=2, seconds=3.0) for _ in range(2)
    )
    assert [recording.name for recording in first] == ["840", "850"]
    for one, other in zip(first, again):
        np.testing.assert_array_equal(one.audio, other.audio)
        assert one.seconds == pytest.approx(3.0)
        assert len(one.notes) == 12
        assert one.notes["offset"].max() <= 3.0
        assert np.abs(one.audio).max() == pytest.approx(0.9, abs=1e-3)


def test_middle_excerpt_cuts_at_its_end_and_leaves_drums_out():
    notes = make_notes(
        [0.0, 4.0, 5.9, 5.0], [1.0, 4.5, 10.0, 5.1], 60, is_drum=[False, False, False, True]
    )
    excerpt = recordings.middle_excerpt(notes, 2.0)
    np.testing.assert_allclose(excerpt["onset"], [0.0, 1.9])
    np.testing.assert_allclose(excerpt["offset"], [0.5, 2.0])


def test_band_set_has_instruments_and_drums(tmp_path):
    folder = tmp_path / "samples/valid/trio"
    folder.mkdir(parents=True)
    beats = np.arange(24) * 0.5
    parts = [
        make_notes(beats, beats + 0.4, 72),
        make_notes(beats, beats + 0.4, 40, program=33),
        make_notes(beats, beats + 0.1, 38, is_drum=True),
    ]
    for name in "abcd":
        save_midi(folder / f"{name}.mid", np.concatenate(parts))
    found, again = (recordings.band_set("TimGM6mb", tmp_path, pieces=2, seconds=4) for _ in "12")
    for recording, other in zip(found, again):
        np.testing.assert_array_equal(recording.audio, other.audio)
        notes = recording.notes
        assert len(set(zip(notes["program"], notes["is_drum"]))) == 3
        assert set(notes["program"][notes["pitch"] == 40]) <= set(range(32, 40))
