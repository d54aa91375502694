"""The tiny configuration, trained by its own command on one bar until it transcribes that bar."""

import numpy as np

from mt3.export import export
from mt3.inference import Transcriber
from musax.metrics.transcription import onset_offset_scores, onset_scores
from musax.notes import make_notes
from musax.rendering.virtual_piano import VirtualPiano
from t5x.data.records import write_array_record
from tests.running import train

RATE, BAR_S, REPEATS, STEPS = 16000, 0.8, 6, 250
BAR = make_notes([0.0, 0.0, 0.2, 0.4, 0.6], [0.5, 0.18, 0.38, 0.58, 0.75], [48, 64, 67, 72, 67])


def played(repeats):
    bars = [BAR.copy() for _ in range(repeats)]
    for i, bar in enumerate(bars):
        bar["onset"] += i * BAR_S
        bar["offset"] += i * BAR_S
    notes = np.concatenate(bars)
    audio = VirtualPiano(np.random.default_rng(5), RATE, longest_s=1.0).render(
        notes, seconds=repeats * BAR_S
    )
    return notes, audio * (0.9 / np.abs(audio).max())


def test_a_trained_model_transcribes_its_bar(tmp_path):
    notes, audio = played(REPEATS)
    take = {
        "audio": np.round(audio * 32767).astype(np.int16),
        "sample_rate": np.int32(RATE),
        **{name: notes[name] for name in notes.dtype.names},
    }
    for split in ("train", "valid"):
        write_array_record(tmp_path / "data" / f"{split}-00000-of-00001.array_record", [take])
    settings = {
        "DATA_DIR": f'"{tmp_path / "data"}"',
        "MODEL_DIR": f'"{tmp_path / "run"}"',
        "TRAIN_STEPS": STEPS,
        "DECAY_FROM": 0,
        "DECAY_STEPS": STEPS,
        "WARMUP_STEPS": 30,
        "LEARNING_RATE": 0.003,
        "BATCH_SIZE": 16,
        "TASK_FEATURE_LENGTHS": '{"inputs": 72, "targets": 40}',
        "mt3.network.T5Config.emb_dim": 64,
        "mt3.network.T5Config.mlp_dim": 128,
        "mt3.network.T5Config.num_encoder_layers": 1,
        "mt3.network.T5Config.num_decoder_layers": 1,
        "tasks.rendered_midi_task.segments_per_take": 512,  # of one spectrogram
        "tasks.rendered_midi_task.augment": None,
        "tasks.rendered_midi_task.level_db": (-6.0, 3.0),
        "tasks.rendered_midi_task.colour_db": 0.0,
        "train/utils.DatasetConfig.num_workers": 0,
        "train/utils.DatasetConfig.length_buckets": None,
        "train.train.eval_period": 0,
        "utils.SaveCheckpointConfig.period": None,
    }
    train("configs/mt3/tiny_piano.gin", settings=settings)

    model = Transcriber.from_pretrained(export(tmp_path / "run", tmp_path / "model", "# A bar\n"))
    found = model.transcribe(0.5 * audio, RATE).notes
    # The last segment holds the silence after the recording, which training never showed.
    truth, found = (n[n["onset"] < (REPEATS - 1) * BAR_S] for n in (notes, found))
    assert onset_scores(truth, found).f1 > 0.97
    assert onset_offset_scores(truth, found).f1 > 0.85
