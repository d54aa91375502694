"""Log-mel spectrograms of MT3: musax against librosa, same parameters, one thread."""

from benchmarks.harness import Row, effort, run_pinned, time_ratio


def measure(tiny: bool = False) -> list[Row]:
    """Return how many times as fast musax is."""
    figure = run_pinned("benchmarks.log_mel:compare", seconds=2.0 if tiny else 60.0, tiny=tiny)
    return [Row("512 bands, hop 128", "times as fast as librosa", figure, goal=1.0)]


def compare(seconds: float, tiny: bool) -> float:
    """Return librosa's time divided by ours; both must agree."""
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
    return time_ratio(theirs, ours, **effort(tiny))
