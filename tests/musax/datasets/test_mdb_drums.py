import numpy as np
import pytest

from musax.audio import save_audio
from musax.datasets import mdb_drums


def write(folder, name="MusicDelta_Rock"):
    """A miniature in the true layout of MDB Drums."""
    audio = folder / "MDB Drums" / "audio" / "drum_only" / f"{name}_Drum.wav"
    audio.parent.mkdir(parents=True, exist_ok=True)
    save_audio(audio, np.zeros(1000, np.float32), 44100)
    for kind, lines in (
        ("class", "0.100000 \t KD \n0.1000 \t HH\n0.3 \t OT \n"),
        ("subclass", "0.100000 \t KD \n0.1000 \t CHH\n0.3 \t SST \n"),
    ):
        path = folder / "MDB Drums" / "annotations" / kind / f"{name}_{kind}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines)
    return folder


def test_tracks_and_annotations(tmp_path):
    (track,) = mdb_drums.read_mdb_drums(write(tmp_path))
    assert track.name == "MusicDelta_Rock"
    assert track.audio.is_file()
    classes, subclasses = track.classes(), track.subclasses()
    assert sorted(classes["pitch"].tolist()) == [36, 42]
    assert subclasses["pitch"].tolist() == [36, 42, 37]
    assert subclasses["onset"].tolist() == [0.1, 0.1, 0.3]
    assert subclasses["is_drum"].all()


def test_tracks_without_annotations_are_left_out(tmp_path):
    write(tmp_path)
    write(tmp_path, "MusicDelta_Punk")
    (tmp_path / "MDB Drums/annotations/class/MusicDelta_Punk_class.txt").unlink()
    assert [t.name for t in mdb_drums.read_mdb_drums(tmp_path)] == ["MusicDelta_Rock"]


def test_errors_name_file_and_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of MDB Drums"):
        mdb_drums.read_mdb_drums(tmp_path)
    path = tmp_path / "x_class.txt"
    path.write_text("0.1 KD\n0.2 XX\n")
    with pytest.raises(mdb_drums.AnnotationError, match=r"x_class\.txt, line 2: '0.2 XX'"):
        mdb_drums.read_annotations(path, mdb_drums.CLASSES)
