"""Groove and E-GMD by their csv, and the small E-GMD that is written from kits."""

import csv

import numpy as np
import pytest

from musax.audio import load_audio
from musax.datasets.egmd_mini import write_egmd_mini
from musax.datasets.groove import EGMD_COLUMNS, EGMD_CSV, GrooveError, read_groove
from musax.midi import load_midi, save_midi
from musax.notes import make_notes, notes_equal
from musax.rendering.drum_kits import DrumKitError, load_drum_kit
from tests.tiny_drums import beat, write_groove, write_kit


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kits")
    names = ("Kick", "Snare", "Closed HH")
    return [str(write_kit(folder / "All")), str(write_kit(folder / "Few", names))]


def test_groove_is_read_by_its_csv(tmp_path):
    performances = read_groove(write_groove(tmp_path / "groove"))
    assert [p.split for p in performances] == ["train", "validation", "test", "train"]
    first = performances[0]
    assert (first.drummer, first.id, first.bpm) == ("drummer1", "drummer1/session1/1", 120.0)
    assert first.kit_name is None
    assert first.audio_path is None  # the MIDI-only archive
    notes = first.load()
    assert len(notes) == len(beat(3))
    assert notes["is_drum"].all()
    notes["pitch"] = 0  # a copy: the next one who loads it is not disturbed
    assert first.load()["pitch"].min() == 36


def test_egmd_has_recordings_and_kits(tmp_path):
    performances = read_groove(write_groove(tmp_path / "egmd", egmd=True), "train")
    assert len(performances) == 2
    assert {p.kit_name for p in performances} == {"Acoustic Kit"}
    assert all(p.audio_path and p.audio_path.is_file() for p in performances)


def test_rows_without_files_are_counted_and_none_at_all_is_an_error(tmp_path):
    folder = write_groove(tmp_path / "some", absent=1)
    with pytest.warns(UserWarning, match=r"info\.csv: 1 of 4 rows left out"):
        assert len(read_groove(folder)) == 3
    folder = write_groove(tmp_path / "none", absent=4)
    with pytest.raises(GrooveError, match="none of 4 MIDI files is there"):
        read_groove(folder)


def test_a_folder_that_is_not_groove_is_named(tmp_path):
    with pytest.raises(GrooveError, match=r"neither info\.csv nor e-gmd-v1"):
        read_groove(tmp_path)
    with pytest.raises(GrooveError, match="split 'valid': expected one of train, validation"):
        read_groove(tmp_path, "valid")
    folder = write_groove(tmp_path / "g")
    text = (folder / "info.csv").read_text()
    (folder / "info.csv").write_text(text.replace(",120,", ",fast,", 1))
    with pytest.raises(GrooveError, match=r"info\.csv:2: bpm 'fast' is not a number"):
        read_groove(folder)
    (folder / "info.csv").write_text(text.replace("midi_filename", "midi"))
    with pytest.raises(GrooveError, match=r"missing column\(s\) midi_filename"):
        read_groove(folder)
    (folder / "info.csv").write_text(text.replace(",test", ",exam"))
    with pytest.raises(GrooveError, match="no rows of split test"):
        read_groove(folder, "test")


def test_midi_without_drums_is_an_empty_performance(tmp_path):
    folder = write_groove(tmp_path / "g")
    performance = read_groove(folder)[0]
    save_midi(performance.midi_path, make_notes([0.0], [1.0], [60], 80))
    assert len(performance.load()) == 0


def test_a_small_egmd_has_the_layout_and_reads_back(tmp_path, kits):
    performances = read_groove(write_groove(tmp_path / "groove"))
    out = tmp_path / "out"
    rows = write_egmd_mini(performances, kits, out)
    assert len(rows) == 8
    with open(out / EGMD_CSV) as file:
        table = list(csv.reader(file))
    assert tuple(table[0]) == EGMD_COLUMNS
    back = read_groove(out)
    assert len(back) == 8
    for performance in back:
        assert performance.midi_path.name.endswith(("_1.midi", "_2.midi"))
        assert performance.audio_path
        audio, rate = load_audio(performance.audio_path)
        assert rate == 44100
        assert performance.duration == pytest.approx(len(audio) / rate, abs=1e-5)
        assert 0.85 < np.abs(audio).max() <= 0.9
    by_kit = {p.kit_name: p.load()["pitch"] for p in back}
    assert set(np.unique(by_kit[kits[0]])) == {36, 38, 42, 43, 46}
    assert set(np.unique(by_kit[kits[1]])) == {36, 38, 42}  # no label of what does not sound


def test_a_small_egmd_continues_and_grows(tmp_path, kits):
    groove = write_groove(tmp_path / "groove")
    out = tmp_path / "out"
    write_egmd_mini(read_groove(groove, "train"), kits[:1], out, limit=1)
    assert [p.id for p in read_groove(out)] == ["drummer1/session1/1"]
    first = read_groove(out)[0]
    assert first.audio_path
    stamp, content = first.audio_path.stat().st_mtime_ns, first.audio_path.read_bytes()
    write_egmd_mini(read_groove(groove), kits, out)
    assert len(read_groove(out)) == 8
    assert first.audio_path.stat().st_mtime_ns == stamp
    first.audio_path.unlink()  # as after an interruption
    write_egmd_mini(read_groove(groove), kits, out)
    assert first.audio_path.read_bytes() == content
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]
    with pytest.raises(GrooveError, match=r"_1\.midi is there, played on .*All, not on .*Few"):
        write_egmd_mini(read_groove(groove), kits[1:], out)


def test_a_small_egmd_needs_kits_that_are_there(tmp_path, kits):
    performances = read_groove(write_groove(tmp_path / "groove"))
    with pytest.raises(DrumKitError, match="no such drum kit"):
        write_egmd_mini(performances, ["missing kit"], tmp_path / "out")
    with pytest.raises(GrooveError, match="at least one performance and one kit"):
        write_egmd_mini(performances, [], tmp_path / "out")


def test_a_performance_of_what_the_kit_lacks_is_silence(tmp_path):
    kit = str(write_kit(tmp_path / "Bell", ["Cowbell"]))
    performance = read_groove(write_groove(tmp_path / "groove"))[0]
    write_egmd_mini([performance], [kit], tmp_path / "out")
    (only,) = read_groove(tmp_path / "out")
    assert len(load_midi(only.midi_path)) == 0
    assert only.audio_path
    assert not load_audio(only.audio_path)[0].any()
    assert load_drum_kit(kit).has(56)
    assert notes_equal(only.load(), performance.load()[:0])
