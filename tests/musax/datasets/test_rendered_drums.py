"""Takes of drums: deterministic, aligned, and rich in what is rare."""

import numpy as np
import pytest

from musax.cli import main
from musax.datasets.drum_variations import (
    cut_drums,
    drop_doubles,
    random_hits,
    vary_drums,
    vary_velocities,
)
from musax.datasets.groove import read_groove
from musax.datasets.rendered_drums import RenderedDrums
from musax.datasets.rendered_midi import take_notes
from musax.notes import empty_notes, make_notes, validate_notes
from t5x.data.records import read_array_record
from tests.tiny_drums import beat, write_groove, write_kit


@pytest.fixture(scope="module")
def groove(tmp_path_factory):
    return write_groove(tmp_path_factory.mktemp("data") / "groove")


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kits")
    return (
        str(write_kit(folder / "All")),
        str(write_kit(folder / "Other", layers=False)),
        str(write_kit(folder / "Bell", ["Cowbell"])),
    )


@pytest.fixture
def source(groove, kits):
    def make(**kwargs):
        options = {"num_takes": 8, "takes_per_kit": 2, "seconds": 3.0, "seed": 1} | kwargs
        return RenderedDrums(read_groove(groove, "train"), kits, **options)

    return make


def test_takes_are_the_same_in_any_order_and_differ_from_each_other(source):
    takes = source()
    forward = [takes[i] for i in range(8)]
    again = source()
    for i in (7, 0, 3):
        for name, value in forward[i].items():
            np.testing.assert_array_equal(again[i][name], value)
    assert len({take["audio"].tobytes() for take in forward}) == 8
    assert not np.array_equal(source(seed=2)[0]["audio"], forward[0]["audio"])


def test_takes_hold_drums_inside_the_take(source):
    takes = source()
    for i in range(8):
        take = takes[i]
        assert take["audio"].dtype == np.int16
        assert take["audio"].shape == (3 * 44100,)
        notes = validate_notes(take_notes(take))
        assert notes["is_drum"].all()
        assert (np.diff(notes["onset"]) >= 0).all()
        assert notes["onset"].max(initial=0) < 3.0
        assert notes["offset"].max(initial=0) <= 3.0
        if len(notes):
            assert np.abs(take["audio"]).max() == pytest.approx(0.9 * 32767, rel=1e-3)


def test_shares_choose_the_kits(source):
    def kits(num_takes, **shares):
        takes = source(num_takes=num_takes, **shares)
        return [takes[i]["kit"] for i in range(num_takes)]

    assert set(kits(4, virtual=1.0, mixed=0.0)) == {"virtual"}
    assert set(kits(4, virtual=0.0, mixed=1.0)) == {"mixed"}
    plain = kits(16, virtual=0.0, mixed=0.0)
    assert set(plain) == {"All", "Other"}  # a cowbell alone is no kit
    assert plain[::2] == plain[1::2]


def test_unvaried_takes_are_excerpts_on_the_kits_in_turn(source):
    takes = source(vary=False)
    takes = [takes[i] for i in range(8)]
    assert [take["kit"] for take in takes] == ["All", "All", "Other", "Other"] * 2
    performed = beat(3)
    for take in takes:
        gaps = np.diff(np.unique(take["onset"].round(6)))
        np.testing.assert_allclose(gaps, 0.25, atol=0.002)
        assert set(take["pitch"]) <= set(performed["pitch"])
        assert set(take["velocity"]) <= set(performed["velocity"])


def test_energy_rises_where_notes_begin(source):
    takes = source(vary=False)
    for index in range(4):
        take = takes[index]
        audio = take["audio"] / 32767
        for onset in np.unique(take["onset"]):
            start = round(onset * 44100)
            if 300 < start < len(audio) - 300:
                # The tail of what sounded is smooth, so its difference tells a new hit.
                sharp = np.abs(np.diff(audio, 2))
                assert sharp[start : start + 150].max() > 3 * sharp[start - 250 : start - 2].max()


def test_bad_arguments_are_named(groove, kits):
    performances = read_groove(groove)
    with pytest.raises(ValueError, match="no performances"):
        RenderedDrums([], kits, num_takes=1)
    with pytest.raises(ValueError, match="at most 1 together"):
        RenderedDrums(performances, kits, num_takes=1, virtual=0.8, mixed=0.5)
    with pytest.raises(ValueError, match=r"kick, snare and hi-hat \(got .*Bell\)"):
        RenderedDrums(performances, kits[2:], num_takes=1)
    with pytest.raises(IndexError):
        RenderedDrums(performances, kits, num_takes=1)[1]
    only = RenderedDrums(performances, (), num_takes=1, seconds=1.0, virtual=1.0, mixed=0.0)
    assert only[0]["kit"] == "virtual"


def test_cuts_keep_onsets_inside_the_window():
    notes = make_notes([0.0, 1.0, 1.5, 2.0], [0.1, 9.0, 1.6, 2.1], 36, 90, 0, True)
    cut = cut_drums(notes, 0.5, 1.5)
    np.testing.assert_allclose(cut["onset"], [0.5, 1.0])
    np.testing.assert_allclose(cut["offset"], [1.5, 1.1])


def test_variations_are_valid_and_bring_in_what_is_rare():
    rng = np.random.default_rng(0)
    counts: dict[int, int] = {}
    for _ in range(300):
        notes = validate_notes(vary_drums(beat(6), rng))
        assert notes["is_drum"].all()
        for pitch in np.unique(notes["pitch"]).tolist():
            counts[pitch] = counts.get(pitch, 0) + 1
    assert min(counts[p] for p in (51, 53, 49, 46, 37, 39, 54, 56, 75, 48, 50, 45)) >= 5
    assert not len(vary_drums(empty_notes(), rng))


def test_velocities_stay_in_range_and_in_order_on_average():
    rng = np.random.default_rng(0)
    played = np.arange(1, 128)
    for _ in range(50):
        varied = vary_velocities(played, rng)
        assert varied.min() >= 1
        assert varied.max() <= 127
        assert np.corrcoef(played, varied)[0, 1] > 0.9


def test_random_hits_cover_the_pads():
    rng = np.random.default_rng(0)
    found: set[int] = set()
    for _ in range(200):
        notes = validate_notes(random_hits(rng, 4.0))
        assert notes["onset"].max(initial=0) < 4
        assert len(drop_doubles(notes)) == len(notes)
        found |= set(notes["pitch"].tolist())
    assert {36, 37, 38, 39, 42, 46, 44, 43, 48, 49, 51, 53, 54, 56, 75} <= found


def test_doubles_are_dropped():
    notes = make_notes([0.0, 0.005, 0.006, 0.3], 0.4, [36, 36, 38, 36], 90, 0, True)
    np.testing.assert_allclose(drop_doubles(notes)["onset"], [0.0, 0.006, 0.3])


def test_the_command_writes_shards_and_continues(groove, kits, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["prepare", "rendered-drums", "--groove", str(groove), "--kit", kits[0]]
    arguments += ["-o", str(out)]
    arguments += ["--seconds", "1", "--takes", "2", "--shards", "2", "--workers", "1"]
    assert main(arguments) == 0
    assert "4 examples in 2 shards of train" in capsys.readouterr().out
    take = next(read_array_record(out / "train-00001-of-00002.array_record"))
    assert take["audio"].shape == (44100,)
    assert take["kit"] in ("All", "mixed", "virtual")
    (out / "train-00000-of-00002.array_record").unlink()
    stamp = (out / "train-00001-of-00002.array_record").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (out / "train-00001-of-00002.array_record").stat().st_mtime_ns == stamp
    assert main([*arguments, "--kit", "nowhere"]) == 2
    assert "no such drum kit" in capsys.readouterr().err
    assert main([*arguments, "--direct_num_workers=4"]) == 2
    assert "--direct_num_workers=4 (options for Beam need --runner)" in capsys.readouterr().err


def test_the_command_writes_a_small_egmd(groove, kits, tmp_path, capsys):
    arguments = [
        "prepare",
        "egmd-mini",
        "--groove",
        str(groove),
        "--kit",
        kits[0],
        "--kit",
        kits[1],
    ]
    arguments += ["--split", "test", "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main(arguments) == 0
    assert "2 recordings of test" in capsys.readouterr().out
    assert {p.kit_name for p in read_groove(tmp_path / "out")} == set(kits[:2])
