"""Drums on one thread of a CPU: a training step, and transcribing beside librosa's features.

The floor of any network on such features is computing them, so that is what ours is compared with:
librosa's log-mel of the same bands and hop alone, without a network. Floating-point operations of
the training step are those that XLA counts.
"""

from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import (
    SECONDS_PER_GFLOP,
    SHARE_OF_PEAK,
    Row,
    UnavailableError,
    Work,
    effort,
    per_peak,
    run_pinned,
    run_programs,
    time_ratio,
)
from benchmarks.random_model import random_trainer

SAMPLE_RATE = 44100
SECONDS = 60.0
HITS_PER_SECOND = 8
#: Sizes of configs/drums/small.gin.
NETWORK: dict[str, Any] = {
    "num_classes": 18,
    "channels": (16, 32, 48),
    "width": 160,
    "dilations": (1, 2, 4, 8, 16),
    "history": (16, 48, 128),
    "dropout": 0.1,
}
TINY: dict[str, Any] = {**NETWORK, "channels": (2, 2), "width": 4, "dilations": (1,)}
BANDS, TINY_BANDS = 128, 16
BATCH, FRAMES, TINY_FRAMES = 4, 450, 20
PROGRAMS = ("train", "transcribe")


def measure(tiny: bool = False) -> list[Row]:
    """Return rows of the training step, and of every shipped drum model.

    Raises:
      UnavailableError: no model is shipped.
    """
    share = run_programs(module=__name__, names=["train"], tiny=tiny)["train"]
    rows = [Row(f"train step, drums-small, batch {BATCH}", SHARE_OF_PEAK, share)]
    for name in ["random"] if tiny else shipped():
        found = run_pinned(f"{__name__}:figures", name=name, tiny=tiny)
        faster = "times as fast as librosa's log-mel"
        rows += [
            Row(name, SECONDS_PER_GFLOP, found["peak"]),
            Row(f"{name}, network and all", faster, found["whole"]),
            Row(f"{name}, log-mel on the device", faster, found["features"]),
        ]
    return rows


def shipped() -> list[str]:
    """Return names of the shipped drum models."""
    from musax import pretrained

    found = [model.name for model in pretrained.list_models() if model.system == "drums"]
    if not found:
        raise UnavailableError("no drum model is shipped (see `musax models`)")
    return found


def work(name: str, tiny: bool) -> Work:
    """Return one of `PROGRAMS`; amounts are GFLOP of a step, or seconds of audio."""
    if name == "train":
        return harness.training(make_trainer(tiny), random_batch(tiny), "flops")
    return transcribing("random" if tiny else shipped()[0], tiny)


def transcribing(name: str, tiny: bool) -> Work:
    """Return work that transcribes with a shipped model, or a random one."""
    from musax import pretrained

    model, seconds = _random() if name == "random" else pretrained.load(name), _seconds(tiny)
    audio = hits(seconds, model.config.features.sample_rate)
    return Work(lambda: model.transcribe(audio, model.config.features.sample_rate), seconds)


def figures(name: str, tiny: bool) -> dict[str, float]:
    """Return seconds of audio per GFLOP of peak, and librosa's time divided by ours."""
    import jax
    import librosa

    from drums.features import compute_log_mel
    from musax import pretrained

    model = _random() if name == "random" else pretrained.load(name)
    features = model.config.features
    audio = hits(_seconds(tiny), features.sample_rate)
    options = {
        "sr": features.sample_rate,
        "n_fft": features.fft_size,
        "hop_length": features.hop_width,
    }

    def mel() -> Any:
        power = librosa.feature.melspectrogram(
            y=audio, n_mels=features.num_mel_bins, fmin=features.lo_hz, htk=True, **options
        )
        return librosa.power_to_db(power)

    def ours() -> Any:
        return jax.block_until_ready(compute_log_mel(audio, features))

    whole = transcribing(name, tiny)
    return {
        "peak": per_peak(whole, tiny),
        "whole": time_ratio(mel, whole.run, **effort(tiny)),
        "features": time_ratio(mel, ours, **effort(tiny)),
    }


def _seconds(tiny: bool) -> float:
    return 1.0 if tiny else SECONDS


def make_trainer(tiny: bool) -> Any:
    """Return a trainer of drums-small, or a tiny one, at step 0."""
    from drums.models import DrumModel
    from drums.network import DrumNetwork, DrumNetworkConfig
    from t5x.optimizers import adamw

    model = DrumModel(
        DrumNetwork(DrumNetworkConfig(**(TINY if tiny else NETWORK))),
        make_features(tiny),
        adamw(learning_rate=1e-3, weight_decay=0.0),
        group_levels=("9",),
        velocity_weight=20.0,
    )
    return random_trainer(model, random_batch(tiny))


def make_features(tiny: bool) -> Any:
    """Return the features of drums-small, or of fewer bands."""
    from drums.features import DrumFeatures

    return DrumFeatures(
        hop_width=441,
        num_mel_bins=TINY_BANDS if tiny else BANDS,
        top_db=None,
        floor_db=-50.0,
        padding="none",
        offset_db=50.0,
        scale_db=25.0,
    )


def random_batch(tiny: bool) -> dict[str, np.ndarray]:
    """Return audio and targets of a batch."""
    rng, frames = np.random.default_rng(0), TINY_FRAMES if tiny else FRAMES
    onsets = (rng.random((BATCH, frames, NETWORK["num_classes"])) < 0.01).astype(np.float32)
    samples = make_features(tiny).samples_of(frames)
    return {
        "audio": rng.normal(0, 0.1, (BATCH, 1, samples)).astype(np.float32),
        "onsets": onsets,
        "velocities": onsets * rng.random(onsets.shape, np.float32),
        "offsets": onsets * (rng.random(onsets.shape, np.float32) - 0.5),
        "weights": onsets,
    }


def hits(seconds: float, sample_rate: int) -> np.ndarray:
    """Return decaying bursts of noise, float32 [samples]."""
    rng = np.random.default_rng(0)
    audio = np.zeros(int(seconds * sample_rate), np.float32)
    length = sample_rate // 10
    decay = np.exp(-np.arange(length) / (0.02 * sample_rate))
    for start in rng.integers(0, max(1, len(audio) - length), int(seconds * HITS_PER_SECOND)):
        burst = rng.normal(0, rng.uniform(0.02, 0.3), length) * decay
        audio[start : start + length] += burst[: len(audio) - start].astype(np.float32)
    return audio


def _random() -> Any:
    """Return a transcriber of a few thousand random parameters, to test the mechanics."""
    import jax
    import jax.numpy as jnp

    from drums.inference import Transcriber
    from drums.model_config import ModelConfig
    from drums.network import DrumNetworkConfig

    config = ModelConfig(DrumNetworkConfig(**{**TINY, "history": ()}), make_features(True))
    variables = config.module().init(jax.random.key(0), jnp.zeros((1, 4, TINY_BANDS)))
    return Transcriber(config, {k: variables[k] for k in ("params", "batch_stats")})
