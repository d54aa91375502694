import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.notes import (
    NOTE_DTYPE,
    apply_sustain,
    assign_instruments,
    check_length,
    empty_notes,
    make_controls,
    make_notes,
    notes_equal,
    shift_notes,
    sort_notes,
    trim_overlapping_notes,
    validate_notes,
)
from musax.notes_io import load_notes_csv, load_notes_json, save_notes_csv, save_notes_json
from tests.vectors import golden_dir


def golden(name):
    return json.loads((golden_dir("mt3") / name).read_text())


def rows_to_notes(rows):
    """Notes from golden rows: start, end, pitch, velocity, program, is_drum, ..."""
    return make_notes(*zip(*[row[:6] for row in rows])) if rows else empty_notes()


@st.composite
def note_arrays(draw, max_size=20, max_time=6.0):
    count = draw(st.integers(0, max_size))
    if not count:
        return empty_notes()
    times = st.integers(0, int(max_time * 8)).map(lambda n: n / 8)

    def column(values):
        return draw(st.lists(values, min_size=count, max_size=count))

    onset = np.array(column(times))
    length = np.array(column(st.integers(0, 16))) / 8
    return make_notes(
        onset,
        onset + length,
        column(st.integers(60, 63)),
        column(st.integers(1, 127)),
        column(st.integers(0, 2)),
        column(st.booleans()),
    )


def sustain_by_events(notes, controls):
    """The rule of `apply_sustain`, event by event: pedal down, pedal up, strikes, releases."""
    notes = notes.copy()
    events = []
    for i in np.flatnonzero(~notes["is_drum"]):
        note = notes[i]
        events += [(note["onset"], 2, i), (note["offset"], 3, i)]
    for control in controls[controls["number"] == 64]:
        events.append((control["time"], 0 if control["value"] >= 64 else 1, -1))
    events.sort(key=lambda event: event[:2])
    down, active, gone, time = False, [], set(), 0.0
    for time, kind, i in events:
        if kind < 2:
            down = kind == 0
            if not down:
                for j in active:
                    if notes["offset"][j] < time:
                        notes["offset"][j] = time
                active = [j for j in active if notes["offset"][j] > time]
        elif kind == 2:
            for j in active if down else ():
                if notes["pitch"][j] == notes["pitch"][i]:
                    notes["offset"][j] = time
                    gone |= {j} if notes["onset"][j] == time else set()
            if down:
                active = [j for j in active if notes["pitch"][j] != notes["pitch"][i]]
            active.append(i)
        elif not down and i in active:
            active.remove(i)
    notes["offset"][active] = time
    return notes[[i not in gone for i in range(len(notes))]]


@settings(max_examples=200, deadline=None)
@given(note_arrays(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 127)), max_size=8))
def test_sustain_follows_the_events(notes, pedal):
    notes = notes[notes["offset"] > notes["onset"]]
    controls = make_controls([p[0] / 8 for p in pedal], 64, [p[1] for p in pedal])
    assert notes_equal(apply_sustain(notes, controls), sustain_by_events(notes, controls))


@settings(max_examples=50, deadline=None)
@given(note_arrays(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 127)), max_size=8))
def test_sustain_agrees_with_note_seq(notes, pedal):
    note_seq = pytest.importorskip("note_seq")
    notes = notes[notes["offset"] > notes["onset"]]
    sequence = note_seq.NoteSequence()
    for onset, offset, pitch, velocity, program, is_drum in notes.tolist():
        sequence.notes.add(
            start_time=onset,
            end_time=offset,
            pitch=pitch,
            velocity=velocity,
            program=program,
            is_drum=is_drum,
        )
    for time, value in pedal:
        sequence.control_changes.add(time=time / 8, control_number=64, control_value=value)
    expected = note_seq.apply_sustain_control_changes(sequence)
    controls = make_controls([p[0] / 8 for p in pedal], 64, [p[1] for p in pedal])
    got = apply_sustain(notes, controls)

    def key(n):
        return (n.start_time, n.end_time, n.pitch, n.velocity, n.program, n.is_drum)

    assert sorted(got.tolist()) == sorted(map(key, expected.notes))


def test_sustain_keeps_instruments_apart():
    notes = make_notes([0.0, 0.0], [0.5, 0.5], [60, 62])
    controls = make_controls([0.1, 1.0], 64, [127, 0], instrument=1)
    sustained = apply_sustain(notes, controls, instruments=np.array([0, 1]))
    assert sustained["offset"].tolist() == [0.5, 1.0]


def test_other_controls_do_not_sustain():
    notes = make_notes(0.0, 0.5, 60)
    controls = make_controls([0.1, 1.0], 66, [127, 0])
    assert notes_equal(apply_sustain(notes, controls), notes)


def test_trim_overlapping_golden():
    vectors = golden("note_utils.json")["trim_overlapping"]
    trimmed = trim_overlapping_notes(rows_to_notes(vectors["in"]))
    expected = rows_to_notes(vectors["out"])
    assert notes_equal(sort_notes(trimmed), sort_notes(expected))


def test_assign_instruments_golden():
    rows = golden("note_utils.json")["assign_instruments"]
    instruments = assign_instruments(rows_to_notes(rows))
    assert instruments.tolist() == [row[6] for row in rows]


@given(note_arrays())
def test_trimming_leaves_no_overlap_and_is_idempotent(notes):
    trimmed = trim_overlapping_notes(notes)
    assert notes_equal(trim_overlapping_notes(trimmed), trimmed)
    for voice in {(n["pitch"], n["program"], n["is_drum"]) for n in trimmed}:
        mine = [n for n in sort_notes(trimmed) if (n["pitch"], n["program"], n["is_drum"]) == voice]
        assert all(a["offset"] <= b["onset"] for a, b in itertools.pairwise(mine))


@given(note_arrays())
def test_shifting_back_returns_the_notes(notes):
    assert notes_equal(shift_notes(shift_notes(notes, 1.5), -1.5), notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pitch": 128}, "pitch must be in 0..127"),
        ({"velocity": 0}, "velocity must be in 1..127"),
        ({"program": -1}, "program"),
        ({"offset": 0.5}, "offset must not precede onset"),
        ({"onset": float("nan")}, "finite"),
        ({"onset": -1.0}, "negative"),
    ],
)
def test_validation_names_source_note_and_field(change, words):
    notes = make_notes([0.0, 1.0], [2.0, 2.0], 60)
    for name, value in change.items():
        notes[name][1] = value
    with pytest.raises(ValueError, match=words) as error:
        validate_notes(notes, "song.mid")
    assert "song.mid: note 1" in str(error.value)


def test_validation_rejects_plain_arrays():
    with pytest.raises(ValueError, match="make_notes"):
        validate_notes(np.zeros((3, 2)))


@settings(deadline=None)  # files are flushed to the disk
@given(note_arrays())
def test_files_keep_notes_exactly(tmp_path_factory, notes):
    folder = tmp_path_factory.mktemp("notes")
    save_notes_csv(folder / "a.csv", notes)
    save_notes_json(folder / "a.json", notes)
    assert notes_equal(load_notes_csv(folder / "a.csv"), notes)
    assert notes_equal(load_notes_json(folder / "a.json"), notes)
    assert sorted(p.name for p in folder.iterdir()) == ["a.csv", "a.json"]


def test_csv_columns_may_be_few_and_reordered(tmp_path):
    (tmp_path / "x.csv").write_text("pitch,onset,offset\n60,0.5,1\n\n61,1,2\n")
    assert load_notes_csv(tmp_path / "x.csv")["pitch"].tolist() == [60, 61]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_files_of_spreadsheets_are_read(tmp_path, encoding):
    path, mark = tmp_path / "x.csv", "\ufeff" if encoding == "utf-16-le" else ""
    for text in ("pitch,onset,offset\r\n60,0.5,1\r\n", "pitch;onset;offset\r\n60;0,5;1\r\n"):
        path.write_bytes((mark + text).encode(encoding))
        assert load_notes_csv(path).tolist() == [(0.5, 1.0, 60, 100, 0, False)]
    path.write_bytes((mark + '[{"onset": 0.5, "offset": 1, "pitch": 60}]').encode(encoding))
    assert load_notes_json(path).tolist() == [(0.5, 1.0, 60, 100, 0, False)]


@pytest.mark.parametrize("load", [load_notes_csv, load_notes_json])
def test_other_encodings_are_named(tmp_path, load):
    (tmp_path / "latin.csv").write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.csv: not UTF-8 text.*save it as UTF-8"):
        load(tmp_path / "latin.csv")


def test_fractions_are_not_cut_off():
    with pytest.raises(ValueError, match=r"note 1: velocity is 0\.5, not a whole number"):
        make_notes([0, 1], [1, 2], [60, 61], [1, 0.5])
    assert make_notes(0.0, 1.0, 60.0, np.float32(7))["velocity"].tolist() == [7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty file"),
        ("onset,offset\n1,2\n", "missing column"),
        ("onset,offset,pitch,colour\n", "colour"),
        ("onset,offset,pitch\n1,2\n", "line 2"),
        ("onset,offset,pitch\n1,2,60\n1,x,60\n", "line 3: column 'offset'"),
        ("onset,offset,pitch\n1,2,300\n", "pitch must be"),
        ("onset,offset,pitch\n1,2,60.9\n", r"pitch is 60\.9, not a whole number"),
        ("onset,offset,pitch\n1,2,1e12\n", "pitch is 1e.12, not a whole number"),
        ("onset,offset,pitch,is_drum\n1,2,60,2\n", "is_drum is 2, not true or false"),
        ("onset,offset,pitch\n1,2,true\n", "line 2: column 'pitch': 'true' is not a number"),
        ("onset,onset_s,offset,pitch\n1,1,2,60\n", r"two columns for \['onset'\]"),
        ("onset,offset,pitch,pitch\n1,2,60,61\n", r"two columns for \['pitch'\]"),
    ],
)
def test_csv_errors_name_file_and_place(tmp_path, text, words):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        load_notes_csv(path)
    assert "bad.csv" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("3", "list of notes"),
        ('[{"onset": 1}]', "note 0: missing"),
        ('[{"onset": 0, "offset": 1, "pitch": "C4"}]', "numbers"),
        ("[7]", "expected an object"),
        ('[{"onset": 0, "offset": 1, "pitch": 60.9}]', r"note 0: pitch is 60\.9, not a whole"),
        ('[{"onset": 0, "offset": 1, "pitch": true}]', "numbers"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_errors_name_file_and_place(tmp_path, text, words):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        load_notes_json(path)
    assert "bad.json" in str(error.value)


def test_pieces_that_last_for_hours_are_named():
    notes = make_notes([0.0, 80_000.0], [1.0, 90_000.0], 60)
    with pytest.raises(ValueError, match=r"piece: note 1 .* ends after 25\.0 hours; at most 6 are"):
        check_length(notes, "piece")
    check_length(notes, "piece", 26)
    check_length(empty_notes(), "piece")


def test_dtype_is_the_contract():
    assert NOTE_DTYPE.names == ("onset", "offset", "pitch", "velocity", "program", "is_drum")
