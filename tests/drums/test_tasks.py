import numpy as np
import pytest

from drums import preprocessors, tasks
from musax.notes import make_notes
from musax.rendering.augment import AugmentConfig
from t5x.data import get_dataset
from t5x.data.converters import PassThroughFeatureConverter
from t5x.data.records import write_array_record
from tests.tiny_drum_model import FEATURES, OAF_FEATURES, RATE
from tests.tiny_drums import write_groove, write_kit


def take(seed=0, seconds=3.0):
    """A click wherever there is a note."""
    rng = np.random.default_rng(seed)
    onset = np.sort(rng.uniform(0.05, seconds - 0.1, 12))
    notes = make_notes(onset, onset + 0.05, rng.choice([36, 38, 42], 12), rng.integers(1, 128, 12))
    notes["is_drum"] = True
    audio = np.zeros(round(seconds * RATE), np.float32)
    audio[np.rint(onset * RATE).astype(int)] = 0.5
    return {
        "audio": np.round(audio * 32767).astype(np.int16),
        "sample_rate": np.int32(RATE),
        **{name: notes[name] for name in notes.dtype.names},
    }


def pieces(example, rng=0, **options):
    options = {"features": FEATURES, "level": "9", "frames": 100, "count": 3, **options}
    return list(preprocessors.cut_pieces(example, np.random.default_rng(rng), **options))


def test_labels_are_where_the_audio_is():
    for piece in pieces(take(), count=20):
        samples = np.flatnonzero(piece["audio"][0])
        frame, group = np.nonzero(piece["weights"] == 1.0)
        time = (frame + piece["offsets"][frame, group]) * FEATURES.hop_width
        heard = samples - FEATURES.fft_size // 2
        heard = heard[(heard >= 0) & (heard < 99.4 * FEATURES.hop_width)]
        assert {round(t) for t in time} >= set(heard.tolist())
        assert piece["audio"].shape == (1, FEATURES.samples_of(100))
        assert piece["onsets"].shape == (100, 9)


def test_the_peak_of_the_take_sets_the_level():
    loud = pieces(take(), count=5, level_db=(-6.0, -6.0))
    assert max(np.abs(p["audio"]).max() for p in loud) == pytest.approx(10 ** (-6 / 20), rel=1e-3)


def test_short_takes_are_filled_with_silence():
    (piece,) = pieces(take(seconds=0.5), count=1)
    assert (piece["audio"][0, RATE // 2 :] == 0).all()


def test_effects_depend_on_the_generator_alone():
    a, b = (pieces(take(), rng=5, augmentation=AugmentConfig()) for _ in range(2))
    c = pieces(take(), rng=6, augmentation=AugmentConfig())
    assert all(np.array_equal(x["audio"], y["audio"]) for x, y in zip(a, b))
    assert not np.array_equal(a[0]["audio"], c[0]["audio"])


def test_spliced_chunks_are_seconds_of_several_records():
    takes = [take(seed) for seed in range(4)]
    example = preprocessors.splice_chunks(
        takes[0], np.random.default_rng(0), features=OAF_FEATURES, others=lambda: takes, count=6
    )
    frames = int(OAF_FEATURES.frames_per_second)
    assert example["audio"].shape == (6, RATE)
    assert example["onsets"].shape == example["velocities"].shape == (6 * frames, 88)
    assert example["lengths"] == 6 * frames
    onsets = example["onsets"]
    assert onsets.sum() > 5
    columns = np.flatnonzero(onsets.any(axis=0)) + 21
    assert set(columns) <= {36, 38, 46}  # "8-hit"
    # Velocities are relative to a record's loudest hit, not to a chunk's.
    loudest = {t["velocity"].max() for t in takes}
    found = example["velocities"][onsets > 0]
    velocities = np.outer(sorted(loudest), found)
    assert (np.abs(velocities - np.rint(velocities)) < 1e-4).any(axis=0).all()


def test_another_rate_is_an_error():
    with pytest.raises(ValueError, match="a take at 8000 Hz, but the features need 11025 Hz"):
        pieces({**take(), "sample_rate": np.int32(8000)})


def test_tasks_make_batches(tmp_path):
    for split in tasks.SPLITS:
        path = tmp_path / f"{split}-00000-of-00001.array_record"
        write_array_record(path, [take(s) for s in range(4)])
    source = tasks.prepared_takes(str(tmp_path))
    task = tasks.drum_task(source, features=FEATURES, level="9", frames=50)
    batch = next(_batches(task))
    assert batch["audio"].shape == (3, 1, FEATURES.samples_of(50))
    assert batch["offsets"].shape == (3, 50, 9)
    oaf = tasks.oaf_drums_task(source, features=OAF_FEATURES, chunks=2)
    batch = next(_batches(oaf))
    assert batch["audio"].shape == (3, 2, RATE)
    assert batch["lengths"].tolist() == [172] * 3


def _batches(task):
    return get_dataset(
        task, {}, "train", batch_size=3, feature_converter=PassThroughFeatureConverter(), seed=0
    )


def test_no_takes(tmp_path):
    with pytest.raises(FileNotFoundError, match="make them with"):
        tasks.prepared_takes(str(tmp_path))


def test_takes_are_rendered_as_they_are_read(tmp_path):
    groove, kit = write_groove(tmp_path / "groove"), write_kit(tmp_path / "kit")
    source = tasks.rendered_takes(str(groove), [str(kit)], num_takes=3, seconds=2.0, virtual=0.0)
    takes = source.sequence("train")
    assert len(takes) == 3
    np.testing.assert_array_equal(takes[1]["audio"], takes[1]["audio"])
    assert takes[1]["audio"].any()
