import contextlib
import io

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.midi import (
    MidiError,
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
from tests.musax.test_notes import note_arrays


def midi_bytes(messages, tempos=(), ticks_per_beat=480):
    """A file from (tick, message) pairs and (tick, microseconds per quarter) pairs."""
    file = mido.MidiFile(ticks_per_beat=ticks_per_beat)
    metas = [(tick, mido.MetaMessage("set_tempo", tempo=tempo)) for tick, tempo in tempos]
    for pairs in (metas, messages):
        track, now = mido.MidiTrack(), 0
        for tick, message in pairs:
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


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
        GOOD[:-8],
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


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_damaged_byte_never_raises_anything_else(position, value):
    data = bytearray(GOOD)
    data[position] = value
    with contextlib.suppress(MidiError):
        load_midi(bytes(data))


def test_missing_file():
    with pytest.raises(FileNotFoundError):
        load_midi("no-such-file.mid")


@pytest.mark.parametrize("tempo", [0.0, -3.0, 1.0])
def test_tempo_must_fit_the_format(tempo):
    with pytest.raises(ValueError, match="tempo"):
        midi_to_bytes(make_notes(0.0, 1.0, 60), tempo=tempo)


def test_the_tempo_that_a_file_begins_with(tmp_path):
    path = tmp_path / "a.mid"
    path.write_bytes(midi_bytes([], tempos=[(0, 600_000), (480, 300_000)]))
    assert midi_tempo(path) == 100.0
    path.write_bytes(midi_bytes([]))
    assert midi_tempo(path) == 120.0
    path.write_bytes(b"no MIDI")
    with pytest.raises(MidiError, match=r"a\.mid: not a MIDI file"):
        midi_tempo(path)
