import contextlib
import io
import warnings

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.midi import (
    MidiError,
    MidiWarning,
    from_note_sequence,
    from_pretty_midi,
    load_midi,
    midi_tempo,
    midi_to_bytes,
    save_midi,
    to_note_sequence,
    to_pretty_midi,
)
from musax.notes import make_notes, notes_equal, sort_notes, trim_overlapping_notes
from tests.midi_files import midi_file
from tests.musax.test_notes import note_arrays


def midi_bytes(messages, tempos=(), ticks_per_beat=480):
    """A file from (tick, message) pairs and (tick, microseconds per quarter) pairs."""
    metas = [(tick, mido.MetaMessage("set_tempo", tempo=tempo)) for tick, tempo in tempos]
    return midi_file(metas, messages, ticks_per_beat=ticks_per_beat)


def random_messages(seed, count=400):
    rng = np.random.default_rng(seed)
    ticks = np.sort(rng.integers(0, 6000, count)).tolist()
    messages = [(0, mido.Message("program_change", channel=c, program=c * 7)) for c in range(3)]
    for tick in ticks:
        channel = int(rng.choice([0, 1, 2, 9]))
        kind = rng.random()
        pitch = int(rng.integers(60, 65))
        if kind < 0.45:
            velocity = int(rng.integers(0, 128))
            message = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)
        elif kind < 0.9:
            message = mido.Message("note_off", channel=channel, note=pitch)
        else:
            value = int(rng.integers(0, 128))
            message = mido.Message("control_change", channel=channel, control=64, value=value)
        messages.append((tick, message))
    return messages


def by_pretty_midi(data, sustain):
    pretty_midi = pytest.importorskip("pretty_midi")
    return from_pretty_midi(pretty_midi.PrettyMIDI(io.BytesIO(data)), sustain=sustain)


@pytest.mark.parametrize("sustain", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_pretty_midi(seed, sustain):
    tempos = [(0, 400_000), (1000, 700_000), (2500, 333_333)]
    data = midi_bytes(random_messages(seed), tempos)
    expected = by_pretty_midi(data, sustain)
    got = load_midi(data, sustain=sustain)
    assert len(got) > 50

    # Equal to within float rounding, so a common order needs rounded times.
    def rows(notes):
        return sorted((round(a, 7), round(b, 7), *rest) for a, b, *rest in notes.tolist())

    assert rows(got) == rows(expected)


def test_seconds_agree_with_symusic():
    symusic = pytest.importorskip("symusic")
    data = midi_bytes(
        [
            (0, mido.Message("note_on", note=60, velocity=64)),
            (1500, mido.Message("note_off", note=60)),
            (3000, mido.Message("note_on", note=62, velocity=64)),
            (3333, mido.Message("note_off", note=62)),
        ],
        [(0, 400_000), (1000, 700_000), (2500, 333_333)],
    )
    (track,) = symusic.Score.from_midi(data, ttype="second").tracks
    notes = load_midi(data)
    np.testing.assert_allclose(notes["onset"], [n.start for n in track.notes], rtol=1e-6)
    np.testing.assert_allclose(notes["offset"], [n.end for n in track.notes], rtol=1e-6)


def test_one_note_off_ends_all_sounding_notes_of_its_pitch():
    on, off = "note_on", "note_off"
    data = midi_bytes(
        [
            (0, mido.Message(on, note=60, velocity=80)),
            (480, mido.Message(on, note=60, velocity=70)),
            (960, mido.Message(off, note=60)),
            (960, mido.Message(on, note=61, velocity=70)),
        ]
    )
    notes = load_midi(data)
    assert notes["onset"].tolist() == [0.0, 0.5]
    assert notes["offset"].tolist() == [1.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(note_arrays())
def test_written_files_hold_the_notes(notes):
    notes = trim_overlapping_notes(notes)
    notes["program"][notes["is_drum"]] = 0
    # 8ths of a second are whole ticks of 0.5 ms.
    notes = trim_overlapping_notes(notes)
    assert notes_equal(load_midi(midi_to_bytes(notes)), sort_notes(notes), 1e-9)


def test_more_programs_than_channels(tmp_path):
    notes = make_notes(np.arange(40) / 4, np.arange(40) / 4 + 0.25, 60, 90, np.arange(40))
    save_midi(tmp_path / "many.mid", notes, tempo=97.0)
    assert notes_equal(load_midi(tmp_path / "many.mid"), notes, 1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["many.mid"]


def test_other_readers_agree_on_written_files():
    symusic = pytest.importorskip("symusic")
    notes = make_notes([0.0, 0.5], [0.5, 1.5], [60, 36], [100, 50], [5, 0], [False, True])
    data = midi_to_bytes(notes)
    assert notes_equal(by_pretty_midi(data, True), notes, 1e-9)
    tracks = symusic.Score.from_midi(data, ttype="second").tracks
    assert sorted((t.program, t.is_drum, len(t.notes)) for t in tracks) == [
        (0, True, 1),
        (5, False, 1),
    ]


def test_zero_length_and_overlapping_notes_survive_writing():
    notes = make_notes([0.0, 1.0, 2.0], [0.0, 3.0, 4.0], [60, 61, 61])
    got = load_midi(midi_to_bytes(notes))
    assert got["onset"].tolist() == [0.0, 1.0, 2.0]
    np.testing.assert_allclose(got["offset"], [0.0005, 2.0, 4.0])


@settings(max_examples=30, deadline=None)
@given(note_arrays())
def test_pretty_midi_round_trip(notes):
    pytest.importorskip("pretty_midi")
    notes["program"][notes["is_drum"]] = 0
    notes = sort_notes(notes)
    assert sorted(from_pretty_midi(to_pretty_midi(notes)).tolist()) == sorted(notes.tolist())


def test_note_sequence_round_trip():
    pytest.importorskip("note_seq")
    notes = make_notes([0.0, 0.5], [1.0, 0.75], [60, 36], [64, 127], [3, 0], [False, True])
    assert notes_equal(from_note_sequence(to_note_sequence(notes)), notes)


def test_running_status_sysex_and_unknown_chunks():
    track = bytes([0, 240, 3, 1, 2, 247, 0, 144, 60, 64, 131, 96, 60, 0, 0, 255, 47, 0])
    header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0"
    body = b"XFIH\x00\x00\x00\x02ab" + b"MTrk" + len(track).to_bytes(4) + track
    notes = load_midi(header + body)
    assert notes.tolist() == [(0.0, 0.5, 60, 64, 0, False)]


GOOD = midi_bytes([(0, mido.Message("note_on", note=60)), (9, mido.Message("note_off", note=60))])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFFxxxxWAVE",
        GOOD[:10],
        GOOD[:12] + b"\x00\x00" + GOOD[14:],
        GOOD[:14],
        b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0MTrk\x00\x00\x00\x02\x00\x3c",
        b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0MTrk\x00\x00\x00\x02\x00\x90",
    ],
)
def test_broken_files_are_named(tmp_path, data):
    path = tmp_path / "broken.mid"
    path.write_bytes(data)
    with pytest.raises(MidiError, match=r"broken\.mid"):
        load_midi(path)


HEADER = b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x01\xe0"
NOTE = bytes([0, 144, 60, 64, 131, 96, 60, 0])  # from 0 to 0.5 s, by running status
LATER = bytes([0, 144, 62, 64, 131, 96, 62, 0])
END = b"\x00\xff\x2f\x00"


def chunk(body, length=None):
    return b"MTrk" + (len(body) if length is None else length).to_bytes(4) + body


def with_bytes_after_the_first_note(*more):
    """A note, other events, and a note-on by running status."""
    return HEADER + chunk(NOTE + bytes(more) + bytes([0, 62, 64, 131, 96, 62, 0]) + END)


DAMAGED = {
    "running status after a meta event": (with_bytes_after_the_first_note(0, 255, 1, 1, 65), None),
    "running status after sysex": (with_bytes_after_the_first_note(0, 240, 2, 1, 247), None),
    "a data byte above 127": (
        HEADER + chunk(NOTE + bytes([0, 176, 7, 200]) + LATER + END),
        r"byte 32: an event with a data byte above 127",
    ),
    "a track cut at its end": (
        HEADER + chunk(NOTE + LATER, 99),
        r"byte 14: the end of a track of 99 bytes; it is cut off",
    ),
    "an event cut at its end": (
        HEADER + chunk(NOTE + LATER + b"\x00\x90\x40", 99),
        "it is cut off; byte 41: an event that runs past the end",
    ),
    "a length three bytes too long": (
        HEADER + chunk(NOTE + END, len(NOTE + END) + 3) + chunk(LATER + END),
        r"the length of a track; it ends \+3 bytes from there",
    ),
    "a length three bytes too short": (
        HEADER + chunk(NOTE + END, len(NOTE + END) - 3) + chunk(LATER + END),
        r"the length of a track; it ends -3 bytes from there",
    ),
    "a length that takes in the next track": (
        HEADER
        + chunk(NOTE + END, len(NOTE + END + chunk(LATER + END)))
        + chunk(LATER + END)
        + chunk(END),
        rf"the length of a track; it ends \+{len(chunk(LATER + END))} bytes from there",
    ),
    "a length that ends before a note": (
        HEADER + chunk(NOTE + LATER + END, len(NOTE)),
        rf"the length of a track; it ends -{len(LATER + END)} bytes from there",
    ),
    "bytes between tracks": (
        HEADER + chunk(NOTE + END) + b"\xff" * 9 + chunk(LATER + END),
        "byte 34: no chunk",
    ),
    "bytes before the header": (
        bytes(128) + HEADER + chunk(NOTE + LATER + END),
        "128 bytes before the header",
    ),
    "no status": (
        HEADER + chunk(NOTE + END) + chunk(LATER + END) + chunk(b"\x00\x3c\x40" + END),
        "the rest of a track, data without a status byte",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_can_be_read_of_a_damaged_file_is_read(name):
    data, message = DAMAGED[name]
    with pytest.warns(MidiWarning, match=message) if message else warnings.catch_warnings():
        if not message:
            warnings.simplefilter("error")
        notes = load_midi(data)
    assert sorted(notes["pitch"].tolist()) == [60, 62]
    with pytest.raises(MidiError):
        load_midi(data, strict=True)


@pytest.mark.parametrize(
    "track", [NOTE + LATER, bytes([0x80, 0x80, 0x80, 0x80, 0]) + NOTE[1:] + LATER]
)
def test_missing_ends_and_long_deltas_are_nothing_to_speak_of(track):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = load_midi(HEADER + chunk(track))
    assert notes["pitch"].tolist() == [60, 62]


def test_a_riff_file_with_other_chunks_first():
    data = HEADER + chunk(NOTE + END)
    other = b"LIST" + (3).to_bytes(4, "little") + b"abc\x00"
    body = b"RMID" + other + b"data" + len(data).to_bytes(4, "little") + data
    notes = load_midi(b"RIFF" + len(body).to_bytes(4, "little") + body, strict=True)
    assert notes["pitch"].tolist() == [60]


@pytest.mark.parametrize(("frames", "rate"), [(24, 24), (25, 25), (29, 30000 / 1001), (30, 30)])
def test_smpte_time(frames, rate):
    header = b"MThd" + bytes([0, 0, 0, 6, 0, 0, 0, 1, 256 - frames, 100])
    notes = load_midi(header + chunk(b"\xa0\x00\x90\x3c\x40\xa0\x00\x80\x3c\x40" + END))
    assert notes["onset"].tolist() == pytest.approx([0x1000 / (100 * rate)], abs=1e-9)


def test_a_pause_of_two_days_is_written_so_that_others_read_it():
    notes = make_notes([0.0, 200_000.0], [1.0, 200_001.0], [60, 62])
    data = midi_to_bytes(notes)
    assert notes_equal(load_midi(data), notes)
    file = mido.MidiFile(file=io.BytesIO(data))
    assert file.length == pytest.approx(200_001)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_damaged_byte_never_raises_anything_else(position, value):
    data = bytearray(GOOD)
    data[position] = value
    with contextlib.suppress(MidiError), warnings.catch_warnings():
        warnings.simplefilter("ignore", MidiWarning)
        load_midi(bytes(data))


def played(channel, pitch, begin=0, end=480):
    return [
        (begin, mido.Message("note_on", channel=channel, note=pitch)),
        (end, mido.Message("note_off", channel=channel, note=pitch)),
    ]


def test_pedal_and_program_count_in_whichever_track_they_stand():
    conductor = [
        (0, mido.Message("program_change", channel=0, program=40)),
        (0, mido.Message("control_change", channel=0, control=64, value=127)),
        (960, mido.Message("control_change", channel=0, control=64, value=0)),
        (960, mido.Message("program_change", channel=0, program=41)),
    ]
    data = midi_file(conductor, played(0, 60), played(1, 62), played(0, 64, 960, 1440))
    notes = load_midi(data)
    assert notes["pitch"].tolist() == [62, 60, 64]
    assert notes["program"].tolist() == [0, 40, 41]
    assert notes["offset"].tolist() == [0.5, 1.0, 1.5]
    own = [(0, mido.Message("program_change", channel=0, program=7))]
    notes = load_midi(midi_file(conductor, own + played(0, 60), played(0, 72)))
    assert dict(zip(notes["pitch"].tolist(), notes["program"].tolist())) == {60: 7, 72: 7}


def test_tracks_of_format_2_have_tempo_maps_of_their_own():
    slow = [(0, mido.MetaMessage("set_tempo", tempo=1_000_000))]
    pedal = [(0, mido.Message("control_change", channel=0, control=64, value=127))]
    notes = load_midi(midi_file(slow + played(0, 60), [*pedal, *played(1, 62)], kind=2))
    assert notes[["pitch", "offset"]].tolist() == [(60, 1.0), (62, 0.5)]


def test_missing_file():
    with pytest.raises(FileNotFoundError):
        load_midi("no-such-file.mid")


@pytest.mark.parametrize("tempo", [0.0, -3.0, 1.0])
def test_tempo_must_fit_the_format(tempo):
    with pytest.raises(ValueError, match="tempo"):
        midi_to_bytes(make_notes(0.0, 1.0, 60), tempo=tempo)


def test_the_tempo_while_notes_sound(tmp_path):
    path = tmp_path / "a.mid"
    path.write_bytes(midi_bytes([], tempos=[(0, 600_000), (480, 300_000)]))
    assert midi_tempo(path) == 100.0
    note = played(0, 60, 480, 960)
    path.write_bytes(midi_bytes(note, tempos=[(1, 600_000)]))
    assert midi_tempo(path) == 100.0
    path.write_bytes(midi_bytes(note, tempos=[(0, 600_000), (480, 300_000)]))
    assert midi_tempo(path) == 200.0
    path.write_bytes(midi_bytes([]))
    assert midi_tempo(path) == 120.0
    path.write_bytes(b"no MIDI")
    with pytest.raises(MidiError, match=r"a\.mid: not a MIDI file"):
        midi_tempo(path)
