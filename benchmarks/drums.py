"""Drum transcription on a CPU: seconds of audio in per CPU second, beside librosa's features.

The floor of any network on such features is computing them, so that is what ours is compared with:
librosa's log-mel of the same bands and hop alone, without a network.
"""

from typing import Any

import numpy as np

from benchmarks.harness import Row, UnavailableError, cpu_seconds, effort, run_pinned

SAMPLE_RATE = 44100
SECONDS = 60.0
HITS_PER_SECOND = 8


def measure(tiny: bool = False) -> list[Row]:
    """Return rows of every shipped drum model, beside librosa's features and real time.

    Raises:
      UnavailableError: no model is shipped.
    """
    rows = []
    for name in ["random"] if tiny else shipped():
        found = run_pinned("benchmarks.drums:rates", name=name, tiny=tiny)
        unit = "s / CPU s"
        rows += [
            Row(name, unit, found["ours"], 1.0, "real time"),
            Row(
                f"{name}, network and all",
                unit,
                found["ours"],
                found["librosa"],
                "librosa's features alone",
            ),
            Row(
                "log-mel on the device",
                unit,
                found["features"],
                found["librosa"],
                "librosa's features alone",
            ),
        ]
    return rows


def shipped() -> list[str]:
    """Return names of the shipped drum models."""
    from musax import pretrained

    found = [model.name for model in pretrained.list_models() if model.system == "drums"]
    if not found:
        raise UnavailableError("no drum model is shipped (see `musax models`)")
    return found


def rates(name: str, tiny: bool) -> dict[str, float]:
    """Return seconds of audio per CPU second: transcribed, our features, librosa's."""
    import jax
    import librosa

    from drums.features import compute_log_mel

    model = _random() if name == "random" else _load(name)
    features = model.config.features
    rate, seconds = features.sample_rate, 1.0 if tiny else SECONDS
    audio = hits(seconds, rate)
    options = {"sr": rate, "n_fft": features.fft_size, "hop_length": features.hop_width}

    def mel() -> Any:
        power = librosa.feature.melspectrogram(
            y=audio, n_mels=features.num_mel_bins, fmin=features.lo_hz, htk=True, **options
        )
        return librosa.power_to_db(power)

    def ours() -> Any:
        return jax.block_until_ready(compute_log_mel(audio, features))

    spent = {
        "ours": cpu_seconds(lambda: model.transcribe(audio, rate), **effort(tiny)),
        "features": cpu_seconds(ours, **effort(tiny)),
        "librosa": cpu_seconds(mel, **effort(tiny)),
    }
    return {key: seconds / max(value, 1e-9) for key, value in spent.items()}


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


def _load(name: str) -> Any:
    from musax import pretrained

    return pretrained.load(name)


def _random() -> Any:
    """Return a few thousand random parameters, to test the mechanics."""
    import jax
    import jax.numpy as jnp

    from drums.features import DrumFeatures
    from drums.inference import Transcriber
    from drums.model_config import ModelConfig
    from drums.network import DrumNetworkConfig

    features = DrumFeatures(
        hop_width=441, num_mel_bins=16, top_db=None, floor_db=-50.0, padding="none"
    )
    config = ModelConfig(DrumNetworkConfig(channels=(2, 2), width=4, dilations=(1,)), features)
    variables = config.module().init(jax.random.key(0), jnp.zeros((1, 4, 16)))
    return Transcriber(config, {k: variables[k] for k in ("params", "batch_stats")})
