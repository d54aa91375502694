"""The small configuration, trained by its own command on two bars until it transcribes them."""

import numpy as np

from drums.export import export
from drums.inference import Transcriber
from drums.vocabularies import map_notes
from musax.metrics import drums as metrics
from musax.notes import make_notes, sort_notes
from musax.rendering.drum_kits import virtual_drum_kit
from musax.rendering.drum_sampler import render_drums
from t5x.data.records import write_array_record
from tests.running import train

RATE, BEAT_S, REPEATS = 44100, 0.5, 3


def two_bars():
    """Kick, snare with a ghost note, closed hats that open at the end, and a crash."""
    parts = {
        36: [(0, 110), (1.5, 90), (2, 105), (4, 112), (5.5, 80), (6, 100)],
        38: [(1, 115), (2.75, 30), (3, 118), (5, 112), (7, 120)],
        42: [(x / 2, 80 if x % 2 == 0 else 45) for x in range(14)],
        46: [(7.5, 85)],
        49: [(0, 100)],
    }
    rows = [(beat, pitch, velocity) for pitch, hits in parts.items() for beat, velocity in hits]
    beat, pitch, velocity = (np.array(column) for column in zip(*rows))
    onset = beat * BEAT_S + 0.03
    return sort_notes(make_notes(onset, onset + 0.05, pitch, velocity, 0, True))


def played():
    bars = [two_bars() for _ in range(REPEATS)]
    for i, bar in enumerate(bars):
        bar["onset"] += 8 * BEAT_S * i
        bar["offset"] += 8 * BEAT_S * i
    notes = np.concatenate(bars)
    kit = virtual_drum_kit(np.random.default_rng(3), RATE)
    audio = render_drums(notes, kit, seconds=8 * BEAT_S * REPEATS)
    return notes, audio * np.float32(0.9 / np.abs(audio).max())


def test_a_trained_model_transcribes_its_two_bars(tmp_path):
    notes, audio = played()
    take = {
        "audio": np.round(audio * 32767).astype(np.int16),
        "sample_rate": np.int32(RATE),
        **{name: notes[name] for name in notes.dtype.names},
    }
    for split in ("train", "validation"):
        write_array_record(tmp_path / "data" / f"{split}-00000-of-00001.array_record", [take])
    settings = {
        "DATA_DIR": f'"{tmp_path / "data"}"',
        "MODEL_DIR": f'"{tmp_path / "run"}"',
        "TRAIN_STEPS": 350,
        "BATCH_SIZE": 4,
        "LEARNING_RATE": 0.005,
        "network.DrumNetworkConfig.channels": (8, 8, 8),
        "network.DrumNetworkConfig.width": 48,
        "network.DrumNetworkConfig.dilations": (1, 2),
        "network.DrumNetworkConfig.history": (8,),
        "network.DrumNetworkConfig.dropout": 0.0,
        "features.DrumFeatures.num_mel_bins": 64,
        "tasks.drum_task.frames": 75,
        "tasks.drum_task.pieces_per_take": 8,
        "tasks.drum_task.augment": None,
        "tasks.drum_task.level_db": (0.0, 0.0),
        "utils.create_learning_rate_scheduler.warmup_steps": 20,
        "train_script.train.eval_period": 0,
        "train/utils.DatasetConfig.num_workers": 0,
    }
    train("configs/drums/small.gin", settings=settings)

    data = str(tmp_path / "data")
    folder = export(tmp_path / "run", tmp_path / "model", "# Two bars\n", tune_on=data)
    model = Transcriber.from_pretrained(folder)
    found = model.transcribe(audio, RATE, level="9").notes
    scores = metrics.evaluate([(map_notes(notes, "9"), found)])
    assert scores["onset F1 micro"] > 0.97
    assert scores["velocity F1 micro"] > 0.9
    assert scores["velocity MAE"] < 8
    assert scores["velocity correlation"] > 0.9
    assert scores["timing MAE"] < 0.004  # a frame is 10 ms
