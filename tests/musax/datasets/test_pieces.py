import csv
import json

import numpy as np
import pytest

from musax.datasets import pieces
from musax.datasets.splits import hash_split
from musax.midi import save_midi
from musax.notes import make_notes


def write_midi(directory, *names):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        save_midi(directory / name, make_notes([0.0], [1.0], [60]))


def write_table(path, rows, **options):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)


def names_of(reader, directory):
    """{split: names}; each name is in one split."""
    names = {split: [p.name for p in reader(directory, split)] for split in pieces.SPLITS}
    assert len(set(flat(names))) == len(flat(names))
    return names


def flat(names):
    return [name for found in names.values() for name in found]


@pytest.fixture
def pop909_folder(tmp_path):
    for number in (1, 800, 801, 830, 831, 909):
        folder = tmp_path / f"{number:03d}"
        folder.mkdir()
        save_midi(folder / f"{number:03d}.mid", make_notes([0.0], [1.0], [60]))
    return tmp_path


def test_pop909_splits_by_song(pop909_folder):
    names = {
        split: [p.name for p in pieces.pop909(pop909_folder, split)] for split in pieces.SPLITS
    }
    assert names == {"train": ["001", "800"], "valid": ["801", "830"], "test": ["831", "909"]}
    assert pieces.pop909(pop909_folder, "train")[0].load()["pitch"].tolist() == [60]


@pytest.mark.parametrize(
    ("kind", "reader"), [("trio", pieces.lakh64_trios), ("melody", pieces.lakh64_melodies)]
)
def test_lakh64_splits_do_not_overlap(kind, reader, tmp_path):
    for folder, count in (("train", 2), ("valid", 4)):
        (tmp_path / "samples" / folder / kind).mkdir(parents=True)
        for i in range(count):
            path = tmp_path / "samples" / folder / kind / f"{folder}_{i}.mid"
            save_midi(path, make_notes([0.0], [1.0], [60 + i]))
    assert [len(found) for found in names_of(reader, tmp_path).values()] == [2, 2, 2]


def test_chorales_hold_equal_neighbours(tmp_path):
    grid = [[60, 48], [60, -1], [62, 48], [62, 48]]
    content = {"train": [grid], "valid": [], "test": []}
    (tmp_path / "Jsb16thSeparated.json").write_text(json.dumps(content))
    (piece,) = pieces.jsb_chorales(tmp_path, "train")
    notes = piece.load()
    step = 0.15
    np.testing.assert_allclose(notes["onset"] / step, [0, 0, 2, 2])
    np.testing.assert_allclose((notes["offset"] - notes["onset"]) / step, [1, 2, 2, 2])
    assert notes["pitch"].tolist() == [48, 60, 48, 62]


READERS = [
    pieces.pop909,
    pieces.lakh64_trios,
    pieces.lakh64_melodies,
    pieces.jsb_chorales,
    pieces.maestro,
    pieces.asap,
    pieces.giant_midi,
    pieces.lakh,
    pieces.midi_folder,
]


@pytest.mark.parametrize("reader", READERS)
def test_wrong_folder_or_split_is_named(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        reader(tmp_path, "train")
    with pytest.raises(ValueError, match=r"'dev'.*train, valid, test"):
        reader(tmp_path, "dev")


def test_a_folder_is_split_by_paths(tmp_path):
    write_midi(tmp_path, *(f"{i % 7}/{i}.mid" for i in range(60)), "deep/er/a.MIDI")
    (tmp_path / "notes.txt").write_text("no music")
    names = names_of(pieces.midi_folder, tmp_path)
    assert len(flat(names)) == 61
    assert all(names.values())
    write_midi(tmp_path, "7/100.mid", "7/101.mid")
    for split, later in names_of(pieces.midi_folder, tmp_path).items():
        assert [name for name in later if not name.startswith("7/")] == names[split]
    for piece in pieces.midi_folder(tmp_path, "test"):
        assert piece.load()["pitch"].tolist() == [60]


MAESTRO = [
    {"canonical_title": 'Étude, "Op. 1"', "split": "train", "midi_filename": "2018/a.midi"},
    {"canonical_title": "Sonata", "split": "validation", "midi_filename": "2018/b.midi"},
    {"canonical_title": "Sonata", "split": "test", "midi_filename": "2004/a.midi"},
]


@pytest.mark.parametrize("form", ["csv", "rows", "columns"])
def test_maestro_has_its_own_splits(form, tmp_path):
    write_midi(tmp_path, *(row["midi_filename"] for row in MAESTRO))
    columns = {k: {str(i): row[k] for i, row in enumerate(MAESTRO)} for k in MAESTRO[0]}
    if form == "csv":
        write_table(tmp_path / "maestro-v3.0.0.csv", MAESTRO)
    else:
        content = MAESTRO if form == "rows" else columns
        (tmp_path / "maestro-v1.0.0.json").write_text(json.dumps(content))
    names = names_of(pieces.maestro, tmp_path)
    assert names == {"train": ["2018/a"], "valid": ["2018/b"], "test": ["2004/a"]}
    (tmp_path / "2018/a.midi").unlink()
    with pytest.raises(FileNotFoundError, match=r"2018/a\.midi"):
        pieces.maestro(tmp_path, "train")


def test_absent_files_are_counted(tmp_path):
    write_midi(tmp_path, "b.mid")
    rows = [{"split": "train", "midi_filename": name} for name in ("a.mid", "b.mid", "c.mid")]
    write_table(tmp_path / "maestro-v3.0.0.csv", rows)
    with pytest.warns(UserWarning, match="2 of 3 files are missing"):
        assert [p.name for p in pieces.maestro(tmp_path, "train")] == ["b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"split,path\ntrain,a.mid\n", "no column 'midi_filename'"),
        (b"", "no column 'split'"),
        (b"\xff\xfe\x00", "not a table"),
    ],
)
def test_a_broken_table_is_named(content, message, tmp_path):
    (tmp_path / "maestro-v3.0.0.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"maestro-v3\.0\.0\.csv: {message}"):
        pieces.maestro(tmp_path, "train")


@pytest.mark.parametrize("content", ["{", "3", '{"split": {}}', '[["train"]]'])
def test_broken_json_is_named(content, tmp_path):
    (tmp_path / "maestro-v1.0.0.json").write_text(content)
    with pytest.raises(ValueError, match=r"maestro-v1\.0\.0\.json: "):
        pieces.maestro(tmp_path, "train")


def test_asap_keeps_performances_of_a_title_together(tmp_path):
    rows = [
        {
            "composer": f"Composer {i % 3}",
            "title": f"Sonata_{i}",
            "folder": f"S/{i}",
            "midi_performance": f"S/{i}/{player}.mid",
        }
        for i in range(90)
        for player in ("LiA01", "ShiB02")
    ]
    write_table(tmp_path / "metadata.csv", rows)
    write_midi(tmp_path, *(row["midi_performance"] for row in rows))
    names = names_of(pieces.asap, tmp_path)
    titles = [{name.split("/")[1] for name in found} for found in names.values()]
    assert len(flat(names)) == 180
    assert all(titles)
    assert sum(map(len, titles)) == len(set.union(*titles)) == 90


def test_giant_midi_asks_its_table(tmp_path):
    files = [f"Bach, Johann, Fugue {i}, id-{i}_.mid" for i in range(80)]
    other = "Bach, Johann, Fugue 0, other_id.mid"  # the same piece on another video
    write_midi(tmp_path, *files, other)
    names = names_of(pieces.giant_midi, tmp_path)
    assert len(flat(names)) == 81
    assert all(names.values())
    (split,) = [s for s, found in names.items() if files[0].removesuffix(".mid") in found]
    assert other.removesuffix(".mid") in names[split]

    rows = [
        {"surname": "Bach", "music": f'"Fugue" {i}', "youtube_id": f"id-{i}_", "split": split}
        for i, split in enumerate(["test", "validation", ""])
    ]
    write_table(
        tmp_path / "full_music_pieces.csv",
        rows,
        delimiter="\t",
        quoting=csv.QUOTE_NONE,
        quotechar=None,
    )
    asked = names_of(pieces.giant_midi, tmp_path)
    assert files[0].removesuffix(".mid") in asked["test"]
    assert files[1].removesuffix(".mid") in asked["valid"]
    for split in pieces.SPLITS:
        rest = [[n for n in x[split] if not n.endswith(("-0_", "-1_"))] for x in (names, asked)]
        assert rest[0] == rest[1]


def test_lakh_full(tmp_path):
    sums = [f"{i:x}".rjust(32, "a") for i in range(40)]
    write_midi(tmp_path, *(f"lmd_full/{s[0]}/{s}.mid" for s in sums))
    names = names_of(pieces.lakh, tmp_path)
    assert sorted(flat(names)) == sorted(sums)
    assert all(names.values())
    assert names_of(pieces.lakh, tmp_path / "lmd_full") == names


def test_lakh_matched_keeps_tracks_together(tmp_path):
    sums = [f"{i:032x}" for i in range(80)]
    tracks = [f"TRAAA{chr(65 + i % 26)}B{i:011X}"[:7] + f"{i:011X}" for i in range(40)]
    folder = tmp_path / "lmd_matched"
    for i, digest in enumerate(sums):
        track = tracks[i // 2]
        write_midi(folder, f"{track[2]}/{track[3]}/{track[4]}/{track}/{digest}.mid")
    write_midi(folder, f"T/R/Z/{'TRZZZZZ' + 11 * 'F'}/{sums[0]}.mid")  # matched to two tracks
    names = names_of(pieces.lakh, folder)
    assert sorted(flat(names)) == sums
    splits = {name: split for split, found in names.items() for name in found}
    assert all(splits[a] == splits[b] for a, b in zip(sums[::2], sums[1::2]))
    assert len(set(splits.values())) == 3


def test_lakh_clean_keeps_versions_and_covers_together(tmp_path):
    titles = [f"Song No. {i}" for i in range(40)]
    versions = [f"ABBA/{t}{n}.mid" for t in titles for n in ("", ".1", ".12")]
    write_midi(tmp_path, *versions, *(f"Beatles/{t.lower()}.mid" for t in titles))
    names = names_of(pieces.lakh, tmp_path)
    assert len(flat(names)) == 160
    for split, found in names.items():
        assert len(found) == 4 * sum(hash_split(t.casefold()) == split for t in titles) > 0


def test_unreadable_pieces_have_no_notes(tmp_path):
    write_midi(tmp_path, "a.mid")
    (tmp_path / "b.mid").write_bytes(b"MThd, says the file")
    (tmp_path / "c.mid").write_bytes((tmp_path / "a.mid").read_bytes()[:-9])
    found = [pieces._midi_piece(tmp_path / f"{name}.mid") for name in "abc"]
    assert len(found[0].load_or_empty()) == 1
    for piece in found[1:]:
        with pytest.warns(UserWarning, match=rf"{piece.name}\.mid.*left out"):
            assert piece.load_or_empty().tolist() == []
    (tmp_path / "a.mid").unlink()
    with pytest.warns(UserWarning, match=r"a\.mid"):
        assert found[0].load_or_empty().tolist() == []
