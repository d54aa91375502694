"""The reference's tasks and its gin files, on recordings made here."""

import numpy as np
import pytest

from mt3.tasks import add_transcription_task, construct_task_name
from mt3.vocabularies import VocabularyConfig
from musax.notes import make_notes
from musax.spectrograms import SpectrogramConfig
from t5x import gin_utils, train
from t5x.data import TaskRegistry, get_dataset
from t5x.data.sources import FunctionSource

LENGTHS = {"inputs": 256, "targets": 1024}
MT3_VOCABULARY = VocabularyConfig(num_velocity_bins=1)


def recordings(split="train"):
    onset = 0.1 * np.arange(60)
    notes = make_notes(onset, onset + 0.3, 40 + np.arange(60) % 40, 90, np.arange(60) % 3 * 8)
    audio = 0.1 * np.random.default_rng(0).standard_normal(16000 * 6).astype(np.float32)
    return FunctionSource({split: [{"audio": audio, "sample_rate": 16000, "notes": notes}] * 3})


@pytest.fixture
def registered():
    names = []

    def add(*args, **kwargs):
        task = add_transcription_task(*args, **kwargs)
        names.append(task.name)
        return task

    yield add
    for name in names:
        TaskRegistry.remove(name)


def test_names_are_upstreams():
    assert construct_task_name("maestrov3_notes", task_suffix="train") == "maestrov3_notes_train"
    name = construct_task_name(
        "mega_notes_ties", SpectrogramConfig(hop_width=256), MT3_VOCABULARY, "eval"
    )
    assert name == "mega_notes_ties_hw256_vb1_eval"


def test_training_segments(registered):
    task = registered("tiny", recordings(), vocab_config=MT3_VOCABULARY, include_ties=True)
    assert task.name == "tiny_notes_ties_vb1_train"
    (*_, example) = get_dataset(task, LENGTHS, "train", 1, num_epochs=1, seed=0, prefetch=0)
    assert example["inputs"].shape == (1, 256, 512)
    tokens = example["targets"][0]
    assert (tokens == 1).sum() == 1
    assert (tokens == 1131 + 3).sum() == 1  # one end of the tie section


def test_mixtures_are_set_by_gin(registered):
    import gin

    task = registered("mixed", recordings(), vocab_config=MT3_VOCABULARY)

    def longest():
        batches = get_dataset(task, LENGTHS, "train", 1, num_epochs=4, seed=0, prefetch=0)
        return max((b["targets"] > 0).sum() for b in batches)

    alone = longest()
    with gin.unlock_config():
        gin.bind_parameter("mt3.mixing.mix_transcription_examples.max_examples_per_mix", 4)
    try:
        assert longest() > alone
    finally:
        gin.clear_config()


def test_inference_segments_follow_each_other(registered):
    task = registered("whole", recordings("test"), task_suffix="test", training=False)
    batches = list(
        get_dataset(task, LENGTHS, "test", 1, shuffle=False, num_epochs=1, seed=0, prefetch=0)
    )
    assert len(batches) == 9  # three recordings of 751 frames
    assert all((b["targets"] > 0).sum() == 1 for b in batches)  # EOS alone


RUNS = {
    "ismir2021": (["model", "train", "ismir2021"], "maestrov3_notes_train", "flat"),
    "mt3": (["model", "train", "mt3"], "mega_notes_ties_vb1_train", "full"),
    "base pretraining": (
        ["ismir2022/base", "ismir2022/pretrain"],
        "mega_notes_ties_vb1_train",
        "full",
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_reference_configurations(run, registered, tmp_path):
    import gin

    files, task_name, granularity = RUNS[run]
    dataset, _, rest = task_name.removesuffix("_train").partition("_notes")
    vocabulary = MT3_VOCABULARY if rest else VocabularyConfig()
    for split, suffix in (("train", "train"), ("eval", "eval")):
        registered(
            dataset,
            recordings(split),
            vocab_config=vocabulary,
            include_ties=bool(rest),
            task_suffix=suffix,
        )
    bindings = [f"MODEL_DIR = '{tmp_path}'", "BATCH_SIZE = 2"]
    # Each layer is traced, and all are alike.
    bindings += [f"mt3.network.T5Config.num_{stack}_layers = 1" for stack in ("encoder", "decoder")]
    if "pretraining" in run:
        bindings.append("TASK_PREFIX = 'mega_notes_ties'")
    try:
        entry = gin_utils.parse(
            [f"configs/mt3/{name}.gin" for name in files], bindings, [], train.train
        )
        assert gin.query_parameter("preprocessors.map_midi_programs.granularity_type")
        step, _ = entry(dry_run=True)
        assert step == 0
        found = gin.query_parameter("%PROGRAM_GRANULARITY")
        assert found == granularity
    finally:
        gin.clear_config()
