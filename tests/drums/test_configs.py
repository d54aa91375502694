"""The configurations of drums build their models and a batch; small.gin trains in its own test."""

import re

import numpy as np
import pytest

from drums.export import read_run_config
from musax.notes import make_notes
from t5x.data.records import write_array_record
from tests import running

RATE = 44100
#: Those that include all the others, and how many parameters they have.
CONFIGS = {"gpu": r"[\d,]+", "paper_10ms": "1,228,880"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("takes")
    rng = np.random.default_rng(0)
    notes = make_notes(np.arange(8) * 0.4 + 0.1, 4.0, [36, 42] * 4, 90, 0, True)
    take = {
        "audio": (3000 * rng.normal(size=4 * RATE)).astype(np.int16),
        "sample_rate": np.int32(RATE),
        **{name: notes[name] for name in notes.dtype.names},
    }
    for split in ("train", "validation"):
        write_array_record(folder / f"{split}-00000-of-00001.array_record", [take] * 4)
    return folder


def train(config, data, run, *options):
    flags = [f"--gin.DATA_DIR='{data}'", f"--gin.MODEL_DIR='{run}'", "--gin.BATCH_SIZE=2"]
    flags += ["--gin.train/utils.DatasetConfig.num_workers=0", *options]
    return running.train(f"configs/drums/{config}.gin", *flags)


@pytest.mark.parametrize("config", CONFIGS)
def test_dry_run(config, data, tmp_path):
    shown = train(config, data, tmp_path / "run", "--dry_run")
    assert re.search(rf"\b{CONFIGS[config]}\b", shown)
    assert "audio" in shown


def test_oaf_drums_trains_and_is_exported_as_configured(data, tmp_path):
    options = ["--gin.TRAIN_STEPS=1", "--gin.train_script.train.eval_period=0"]
    options += ["--gin.tasks.oaf_drums_task.chunks=2", "--gin.tasks.oaf_drums_task.seconds=0.3"]
    options += ["--gin.network.OafDrumsConfig.channels=(2, 2, 2)"]
    options += ["--gin.network.OafDrumsConfig.fc_units=8"]
    train("paper_10ms", data, tmp_path / "run", *options)
    config = read_run_config(tmp_path / "run")
    assert config.is_oaf
    assert config.features.hop_width == 441
    assert config.features.top_db == 80.0
