"""Log-mel spectrograms of MT3: musax against librosa, same parameters, one thread."""

from benchmarks.harness import Row, cpu_seconds, effort, run_pinned


def measure(tiny: bool = False) -> list[Row]:
    """Return seconds of audio per CPU second."""
    seconds = 2.0 if tiny else 60.0
    ours, librosa = run_pinned("benchmarks.log_mel:compare", seconds=seconds, tiny=tiny)
    return [Row("512 bands, hop 128", "s / CPU s", ours, librosa, "librosa", goal=1.0)]


def compare(seconds: float, tiny: bool) -> tuple[float, float]:
    """Return (musax, librosa), seconds of audio per CPU second; both must agree."""
    import librosa
    import numpy as np

    from musax.spectrograms import SpectrogramConfig, compute_spectrogram

    config = SpectrogramConfig()
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * config.sample_rate))
    samples = samples.astype(np.float32)

    def ours() -> np.ndarray:
        return compute_spectrogram(samples, config, pad="none")

    def theirs() -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=samples,
            sr=config.sample_rate,
            n_fft=config.fft_size,
            hop_length=config.hop_width,
            n_mels=config.num_mel_bins,
            fmin=config.lo_hz,
            fmax=config.hi_hz,
            htk=True,
            norm=None,
            power=1.0,
            center=False,
        )
        return np.log(np.where(mel > 0, mel, np.float32(1e-5))).T

    difference = np.abs(ours() - theirs())
    if np.median(difference) > 1e-2:
        raise AssertionError(f"musax and librosa differ: median {np.median(difference):.3g}")
    return seconds / cpu_seconds(ours, **effort(tiny)), seconds / cpu_seconds(
        theirs, **effort(tiny)
    )
