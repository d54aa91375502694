"""librosa features from musax's blocks, end to end; the blocks by themselves are in tests/musax."""

import numpy as np
import pytest

from musax.audio import load_audio, resample, save_audio
from musax.spectrograms import apply_filterbank, mel_filterbank, stft_magnitude

librosa = pytest.importorskip("librosa")


def chirp(seconds=1.0, rate=22050):
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, len(time))
    return (0.4 * np.sin(2 * np.pi * (80 * time + 3000 * time**2)) + noise).astype(np.float32)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_melspectrogram(power):
    audio = chirp()
    theirs = librosa.feature.melspectrogram(
        y=audio, sr=22050, n_fft=1024, hop_length=256, n_mels=80, power=power, pad_mode="constant"
    )
    magnitude = stft_magnitude(audio, 1024, 256, pad="center", pad_mode="constant")
    bands = mel_filterbank(
        22050, 1024, 80, 0.0, 11025.0, scale="slaney", norm="slaney", triangles="hz"
    )
    ours = apply_filterbank(magnitude**power, bands)
    np.testing.assert_allclose(ours.T, theirs, rtol=1e-3, atol=1e-6 * theirs.max())


def test_load_and_resample(tmp_path):
    save_audio(tmp_path / "chirp.wav", chirp(rate=44100), 44100)
    theirs, _ = librosa.load(tmp_path / "chirp.wav", sr=16000, res_type="soxr_hq")
    samples, rate = load_audio(tmp_path / "chirp.wav")
    ours = resample(samples, rate, 16000)
    assert rate == 44100
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
