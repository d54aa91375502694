import numpy as np
import pytest

from mt3.segments import SegmentConfig, segment_features
from musax.spectrograms import SpectrogramConfig, compute_spectrogram

SPECTROGRAM = SpectrogramConfig(hop_width=256, num_mel_bins=32, clamp=True, log_floor=1e-3)


def noise(samples):
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1


def test_own_segments_are_the_reference_spectrogram_with_zero_rows():
    config = SegmentConfig(frames=16)
    assert config.seconds(SPECTROGRAM) == 16 * 256 / 16000
    full = noise(16 * 256)
    np.testing.assert_allclose(
        segment_features(full, config, SPECTROGRAM), compute_spectrogram(full, SPECTROGRAM)
    )
    short = segment_features(full[: 5 * 256], config, SPECTROGRAM)
    assert short.shape == (16, 32)
    assert not short[5:].any()


def test_centred_segments_hear_their_neighbours():
    config = SegmentConfig(frames=8, context_frames=2, centred=True, offset=2.0, scale=0.5)
    before, after = config.margins(SPECTROGRAM)
    recording = noise(64 * 256)
    length = config.samples(SPECTROGRAM)

    def features(start):
        return segment_features(recording[start - before : start + length + after], config,
                                SPECTROGRAM)  # fmt: skip

    first, second = features(16 * 256), features(24 * 256)
    assert first.shape == (12, 32)
    # The last frames of one segment with their context are the first frames of the next.
    np.testing.assert_allclose(first[8:], second[:4], rtol=1e-5, atol=1e-5)


def test_a_click_is_loudest_in_the_frame_centred_on_it():
    config = SegmentConfig(frames=8, context_frames=2, centred=True)
    before, after = config.margins(SPECTROGRAM)
    audio = np.zeros(before + config.samples(SPECTROGRAM) + after, np.float32)
    audio[before + 3 * 256] = 1.0
    level = segment_features(audio, config, SPECTROGRAM).mean(axis=1)
    assert level.argmax() == 3 + config.context_frames


def test_wrong_lengths_and_settings_are_refused():
    with pytest.raises(ValueError, match="expected"):
        segment_features(noise(17 * 256), SegmentConfig(frames=16), SPECTROGRAM)
    with pytest.raises(ValueError, match="expected"):
        segment_features(noise(100), SegmentConfig(frames=16, centred=True), SPECTROGRAM)
    with pytest.raises(ValueError, match="context"):
        SegmentConfig(frames=16, context_frames=1)
    with pytest.raises(ValueError, match="positive"):
        SegmentConfig(frames=0)
