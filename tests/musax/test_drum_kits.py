"""Drum kits: from Hydrogen's folders, from soundfonts, synthetic, mixed."""

import numpy as np
import pytest

from musax.drum_pitches import GROUPS, NAMES, STAND_INS, group_of
from musax.rendering import hydrogen, soundfonts
from musax.rendering.drum_kits import (
    DrumKitError,
    list_drum_kits,
    load_drum_kit,
    mix_drum_kits,
    virtual_drum_kit,
)
from musax.rendering.drum_pads import hit_level, make_pad, trim_hit
from musax.rendering.soundfonts import default_soundfont
from tests.tiny_drums import INSTRUMENTS, RATE, hit, write_kit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_kit(tmp_path_factory.mktemp("kits") / "Tiny Kit")


@pytest.fixture(scope="module")
def kit(folder):
    return load_drum_kit(str(folder))


@pytest.fixture(scope="module")
def virtual():
    return virtual_drum_kit(np.random.default_rng(0))


def test_names_say_what_instruments_are_when_notes_do_not(kit):
    assert {pitch: pad.name for pitch, pad in kit.pads.items()} == {
        36: "Kick",
        37: "Stick",
        38: "Snare",
        42: "Closed HH",
        46: "Open HH",
        43: "Floor Tom",
        48: "Tom Hi",
        49: "Crash",
        51: "Ride",
        56: "Cowbell",
    }


@pytest.mark.parametrize(
    ("name", "pitch"),
    [
        ("Kick Long", 36),
        ("BassDrum", 36),
        ("c3 - bass drum 1", 36),
        ("Pearl Side Stick", 37),
        ("Rim Click (Pearl 14x3.5)", 37),
        ("Snare Rimshot", 40),
        ("Snare Jazz", 38),
        ("EE Clap Hard", 39),
        ("VariBreaks Hat 1 Cl", 42),
        ("Hi Hat Closed", 42),
        ("VariBreaks Hat 1 Op", 46),
        ("Sabian Hat Semi-Open", 26),
        ("g#3 - hi-hat pedal", 44),
        ("HiHat Foot", 44),
        ("Pearl Tom Floor", 43),
        ("middle tom", 45),
        ("Tom 1", 48),
        ("ZildjianSplash", 55),
        ("China", 52),
        ("crash16inch", 49),
        ("Paiste Bell", 53),
        ("ride-cup", 53),
        ("Ride Jazz", 51),
        ("Cowbell", 56),
        ("Shaker", 70),
        ("Conga 2", 64),
        ("Clave", 75),
        ("17", None),
    ],
)
def test_an_instrument_is_known_by_its_name(name, pitch):
    assert hydrogen._named_pitch(name, "some kit") == pitch


def test_layers_split_the_velocities_and_keep_no_gap(kit):
    layers = kit.pads[36].layers
    assert [(x.low, x.high) for x in layers] == [(1, 42), (43, 85), (86, 127)]
    assert kit.pads[36].layer(43) is layers[1]
    assert all(hit_level(take, RATE) == pytest.approx(1) for x in layers for take in x.takes)


def test_level_rises_with_velocity_on_every_pad(kit, virtual):
    velocities = np.arange(1, 128)
    for some in (kit, virtual):
        for pad in some.playable.values():
            levels = pad.amplitude(velocities)
            assert (np.diff(levels) > 0).all()
            assert levels[-1] == pytest.approx(pad.gain)
            assert 0.003 < levels[0] / levels[-1] < 0.2


def test_a_hit_begins_at_its_onset_and_ends_where_it_has_died_away():
    audio = hit(200, 0.1, lead_s=0.05)[:, 0] + np.float32(0.01)  # a constant offset too
    trimmed = trim_hit(audio, RATE)
    onset = int(np.argmax(np.abs(trimmed) > 0.4))
    assert 0 < onset <= 0.001 * RATE
    assert 0.4 < len(trimmed) / RATE < 0.8
    assert trimmed[0] == trimmed[-1] == 0
    assert len(trim_hit(np.zeros(100, np.float32), RATE)) == 0
    long = hit(3000, 4.0)[:, 0]
    assert len(trim_hit(long, RATE)) == 5 * RATE


def test_recordings_that_share_a_range_are_takes(folder, tmp_path):
    copy = write_kit(tmp_path / "Takes", ["Snare"])
    xml = (copy / "drumkit.xml").read_text()
    for old, new in (("<min>0.5</min>", "<min>0.0</min>"), ("<max>0.5</max>", "<max>1.0</max>")):
        xml = xml.replace(old, new)
    (copy / "drumkit.xml").write_text(xml)
    layers = load_drum_kit(copy).pads[38].layers
    assert [len(layer.takes) for layer in layers] == [2]


def test_kits_of_the_oldest_kind_have_one_recording_an_instrument(tmp_path):
    kit = load_drum_kit(write_kit(tmp_path / "Old", ["Kick", "Snare"], layers=False))
    assert sorted(kit.pads) == [36, 38]
    assert len(kit.pads[36].layers) == 1


def test_a_second_kick_becomes_the_other_kick_and_a_third_an_alternate(tmp_path):
    folder = write_kit(tmp_path / "Kicks", ["Kick"], layers=False)
    xml = (folder / "drumkit.xml").read_text()
    one = xml[xml.index("<instrument>") : xml.index("</instrumentList>")]
    (folder / "drumkit.xml").write_text(xml.replace(one, 3 * one))
    kit = load_drum_kit(folder)
    assert sorted(kit.pads) == [35, 36]
    assert [len(pads) for pads in kit.alternates.values()] == [1]


def test_midi_notes_are_believed_where_they_agree_with_the_names(tmp_path):
    folder = write_kit(tmp_path / "Notes")
    xml = (folder / "drumkit.xml").read_text()
    notes = dict(zip(INSTRUMENTS, (36, 37, 38, 42, 46, 43, 48, 49, 51, 56)))
    for name, note in notes.items():
        xml = xml.replace(
            f"<name>{name}</name><volume>0.8</volume><midiOutNote>60<",
            f"<name>{name}</name><volume>0.8</volume><midiOutNote>{note}<",
        )
    (folder / "drumkit.xml").write_text(xml.replace(">Cowbell<", ">Nameless thing<"))
    assert load_drum_kit(folder).pads[56].name == "Nameless thing"


def test_a_kit_that_cannot_be_used_is_named(tmp_path):
    folder = write_kit(tmp_path / "Empty", [])
    with pytest.raises(DrumKitError, match=r"Empty: no drum to play.*<layer>"):
        load_drum_kit(folder)
    (folder / "drumkit.xml").write_text("<drumkit_info><instr")
    with pytest.raises(DrumKitError, match=r"Empty/drumkit\.xml: not a Hydrogen kit"):
        load_drum_kit(folder)
    (folder / "drumkit.xml").unlink()
    with pytest.raises(DrumKitError, match=r"Empty: no drumkit\.xml"):
        load_drum_kit(folder)
    with pytest.raises(DrumKitError, match="no such drum kit"):
        load_drum_kit("no such kit anywhere")


def test_bad_numbers_and_absent_recordings_are_named(tmp_path):
    folder = write_kit(tmp_path / "Bad", ["Kick", "Snare"])
    (folder / "snare-1.wav").unlink()
    with pytest.warns(UserWarning, match=r"'Snare' lacks a recording.*snare-1\.wav"):
        kit = load_drum_kit(folder)
    assert len(kit.pads[38].layers) == 1
    xml = (folder / "drumkit.xml").read_text()
    (folder / "drumkit.xml").write_text(xml.replace("<volume>0.8", "<volume>loud"))
    load_drum_kit.cache_clear()
    with pytest.raises(DrumKitError, match=r"drumkit\.xml: instrument 'Kick': <volume>loud"):
        load_drum_kit(folder)


def test_kits_are_found_by_name_or_its_beginning(folder, monkeypatch):
    monkeypatch.setattr(hydrogen, "SYSTEM_FOLDERS", (str(folder.parent),))
    monkeypatch.setattr(soundfonts, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("XDG_DATA_HOME", "/nowhere")
    monkeypatch.setenv("XDG_DATA_DIRS", "")
    load_drum_kit.cache_clear()
    assert list_drum_kits()[:2] == ["Tiny Kit", "TimGM6mb"]
    assert load_drum_kit("tiny kit").name == load_drum_kit("Tiny").name == "Tiny Kit"
    load_drum_kit.cache_clear()


def test_samples_come_at_the_rate_asked_for(folder, kit):
    slow = load_drum_kit(str(folder), 22050)
    assert slow.sample_rate == 22050
    ratio = len(kit.pads[49].layers[0].takes[0]) / len(slow.pads[49].layers[0].takes[0])
    assert ratio == pytest.approx(2, rel=0.05)
    with pytest.raises(ValueError, match="sample_rate=0"):
        load_drum_kit(str(folder), 0)


def test_soundfont_kits_hold_the_general_midi_drums():
    rate = 11_025  # of which rendering costs a quarter
    kit = load_drum_kit(str(default_soundfont()), rate)
    assert {36, 38, 42, 46, 49, 51, 53, 75} <= set(kit.pads)
    assert not {22, 26, 58} & set(kit.pads)  # Roland's zones are something else there
    assert {22, 26, 58} <= set(kit.playable)
    electronic = load_drum_kit(f"{default_soundfont()}:25", rate)
    assert not np.array_equal(kit.pads[36].layers[0].takes[0], electronic.pads[36].layers[0].takes)
    with pytest.raises(DrumKitError, match=r"no drum kit 99; it holds \[0, 8"):
        load_drum_kit(f"{default_soundfont()}:99")
    with pytest.raises(DrumKitError, match="no such soundfont"):
        load_drum_kit("/nowhere/absent.sf2")


def test_stand_ins_stay_inside_one_group_and_hats_stay_open_or_closed():
    for pitch, others in STAND_INS.items():
        assert pitch in NAMES
        if group_of(pitch) != "percussion":
            assert {group_of(other) for other in others} == {group_of(pitch)}
        assert not ({pitch, *others} & {46, 26} and {pitch, *others} & {42, 22, 44})
    assert 53 not in STAND_INS
    assert len({p for group in GROUPS.values() for p in group}) == sum(map(len, GROUPS.values()))


def test_a_pedal_without_recording_is_a_closed_hat_cut_short(kit):
    assert 44 not in kit.pads
    chick, closed = kit.playable[44], kit.pads[42]
    assert chick.gain < closed.gain
    assert len(chick.layers[0].takes[0]) <= 0.22 * RATE


def test_virtual_kits_follow_their_seed_and_differ(virtual):
    again = virtual_drum_kit(np.random.default_rng(0))
    other = virtual_drum_kit(np.random.default_rng(1))
    assert virtual.has(36, 38, 40, 37, 39, 42, 46, 44, 43, 48, 49, 51, 53, 54, 56, 64, 70, 75)
    for pitch, pad in virtual.pads.items():
        take = pad.layers[0].takes[0]
        np.testing.assert_array_equal(take, again.pads[pitch].layers[0].takes[0])
        assert not np.array_equal(take[:500], other.pads[pitch].layers[0].takes[0][:500])
        assert np.isfinite(take).all()
        assert len(pad.layers) == 4


def test_harder_blows_of_a_virtual_snare_are_brighter(virtual):
    def centroid(audio):
        power = np.abs(np.fft.rfft(audio[: RATE // 5], RATE // 5)) ** 2
        return np.sum(np.arange(len(power)) * power) / power.sum()

    for pitch in (42, 48):
        layers = virtual.pads[pitch].layers
        soft, hard = (np.mean([centroid(t) for t in layers[i].takes]) for i in (0, -1))
        assert hard > soft


def test_mixed_kits_follow_their_seed_and_keep_onsets_and_levels(kit, virtual):
    one, same, other = (
        mix_drum_kits([kit, virtual], np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert one.has(36, 38, 42, 46, 48, 49, 51, 53, 75)
    for pitch, pad in one.pads.items():
        take = pad.layers[-1].takes[0]
        np.testing.assert_array_equal(take, same.pads[pitch].layers[-1].takes[0])
        assert hit_level(take, RATE) == pytest.approx(1, rel=1e-3)
        attack = np.abs(take[: round(0.06 * RATE)])
        assert np.argmax(attack > 0.1 * attack.max()) < 0.003 * RATE, pad.name
        assert 0.005 < pad.gain < 1.5
    assert any(one.pads[p].gain != other.pads[p].gain for p in one.pads if p in other.pads)
    with pytest.raises(ValueError, match="at least one kit"):
        mix_drum_kits([], np.random.default_rng(0))


def test_silent_recordings_make_no_pad():
    assert make_pad([(127, [np.zeros(1000, np.float32)])], RATE) is None


@pytest.mark.parametrize("name", ["GMRockKit", "ForzeeStereo", "BJA_Pacific", "Red_Zeppelin"])
def test_real_kits_begin_at_their_onsets(name):
    if not any(known.startswith(name) for known in list_drum_kits()):
        pytest.skip(f"{name} is not installed")
    kit = load_drum_kit(name)
    assert kit.has(36, 38, 42, 46, 43, 48, 49, 51, 53)
    late = []
    for pad in kit.pads.values():
        for take in (take for layer in pad.layers for take in layer.takes):
            attack = np.abs(take[: round(0.06 * RATE)])
            late.append(np.argmax(attack > 0.1 * attack.max()) / RATE)
    assert np.percentile(late, 95) < 0.0015
    assert max(late) < 0.005
