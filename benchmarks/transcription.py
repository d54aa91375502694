"""Seconds of audio that the shipped transcribers take in, on one thread of a CPU."""

from typing import Any

import numpy as np

from benchmarks.baselines.basic_pitch import BasicPitch, BasicPitchMissingError
from benchmarks.harness import (
    SECONDS_PER_GFLOP,
    Row,
    UnavailableError,
    Work,
    effort,
    per_peak,
    run_pinned,
    time_ratio,
)
from benchmarks.plain_tokenizer import random_notes
from benchmarks.random_model import random_transformer

SAMPLE_RATE = 16000
SECONDS = 30.0
NOTES_PER_SECOND = 10


def measure(tiny: bool = False) -> list[Row]:
    """Return each shipped MT3 model beside the peak, and beside basic-pitch if installed.

    Raises:
      UnavailableError: no model is shipped.
    """
    rows = []
    for name in ["random"] if tiny else shipped():
        found = run_pinned(f"{__name__}:figures", name=name, tiny=tiny)
        rows += [Row(name, measure, figure) for measure, figure in found.items()]
    return rows


def shipped() -> list[str]:
    """Return names of the shipped MT3 models.

    Raises:
      UnavailableError: there is none.
    """
    from musax import pretrained

    found = [model.name for model in pretrained.list_models() if model.system == "mt3"]
    if not found:
        raise UnavailableError("no MT3 model is shipped (see `musax models`)")
    return found


def figures(name: str, tiny: bool) -> dict[str, float]:
    """Return the figures of a model by what they are."""
    from musax import pretrained

    seconds = 2.0 if tiny else SECONDS
    audio, model = tones(seconds), _random() if name == "random" else pretrained.load(name)
    work = Work(lambda: model.transcribe(audio, SAMPLE_RATE), seconds)
    found = {SECONDS_PER_GFLOP: per_peak(work, tiny)}
    try:
        theirs = BasicPitch()
    except BasicPitchMissingError:
        return found
    hear = lambda: theirs.transcribe(audio, SAMPLE_RATE)  # noqa: E731
    return found | {"times as fast as basic-pitch": time_ratio(hear, work.run, **effort(tiny))}


def tones(seconds: float) -> np.ndarray:
    """Return random decaying notes, float32 [samples] at 16 kHz."""
    notes = random_notes(np.random.default_rng(0), int(seconds * NOTES_PER_SECOND), seconds)
    audio = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for note in notes:
        first, last = (int(note[name] * SAMPLE_RATE) for name in ("onset", "offset"))
        time = np.arange(last - first) / SAMPLE_RATE
        hz = 440.0 * 2.0 ** ((note["pitch"] - 69) / 12) * np.arange(1, 6)[:, None]
        partials = np.sin(2 * np.pi * hz * time) / np.arange(1, 6)[:, None]
        audio[first:last] += 0.05 * np.exp(-3 * time) * partials.sum(axis=0)
    return audio


def _random() -> Any:
    """Return a few thousand random parameters, to test the mechanics."""
    from mt3.inference import Transcriber
    from mt3.model_config import ModelConfig
    from mt3.segments import SegmentConfig
    from mt3.vocabularies import VocabularyConfig
    from musax.events.spec import PIANO
    from musax.spectrograms import SpectrogramConfig

    sizes = {"vocab_size": 640, "emb_dim": 16, "num_heads": 2, "head_dim": 4, "mlp_dim": 16}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    module, params = random_transformer({**sizes, **layers}, 8)
    config = ModelConfig(
        network=module.config,
        vocabulary=VocabularyConfig(max_shift_seconds=1, num_velocity_bins=1),
        spectrogram=SpectrogramConfig(num_mel_bins=8, fft_size=256),
        segment=SegmentConfig(frames=64),
        targets_length=16,
        spec=PIANO,
    )
    return Transcriber(config, params)
