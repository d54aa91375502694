"""Cutting a stream into segments: against the definitions, whatever the pieces it arrives in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3.segments import SegmentConfig, segment_features
from mt3.streaming import stream_segments
from musax.spectrograms import (
    SpectrogramConfig,
    audio_to_frames,
    compute_spectrogram,
    flatten_frames,
)

SPECTROGRAM = SpectrogramConfig(num_mel_bins=8, fft_size=256)
OWN = SegmentConfig(frames=4)
CENTRED = SegmentConfig(frames=4, context_frames=2, centred=True)
STRIDE = 480  # 512 samples are 3.2 steps of 10 ms, of which 3 are whole


def noise(samples):
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def cut(chunks, segment):
    return list(stream_segments(chunks, segment, SPECTROGRAM, 100))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 1500), max_size=6), st.sampled_from([OWN, CENTRED]), st.integers(0, 3)
)
def test_pieces_do_not_matter(sizes, segment, hops):
    audio = noise(sum(sizes) + 128 * hops)
    pieces = np.split(audio, np.cumsum(sizes))
    whole, streamed = cut([audio], segment), cut(pieces, segment)
    assert len(whole) == len(streamed)
    for a, b in zip(whole, streamed):
        assert (a.start_time, a.end_time) == (b.start_time, b.end_time)
        np.testing.assert_array_equal(a.audio, b.audio)


@pytest.mark.parametrize("samples", [1, 127, 128, 511, 512, 513, 2048, 2500])
def test_own_segments_are_the_references(samples):
    audio = noise(samples)
    frames, times = audio_to_frames(audio, SPECTROGRAM)
    segments = cut([audio], OWN)
    assert len(segments) == -(-len(frames) // OWN.frames)
    for i, segment in enumerate(segments):
        own = frames[i * OWN.frames : (i + 1) * OWN.frames]
        np.testing.assert_array_equal(segment.audio, flatten_frames(own))
        start = float(np.float32(times[i * OWN.frames]))
        assert segment.start_time == start - start % 0.01


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 2048, 2500])
def test_centred_segments_are_windows_of_the_whole_recording(samples):
    audio = noise(samples)
    segments = cut([audio], CENTRED)
    assert len(segments) == -(-samples // STRIDE)
    # Silence around the recording, so that frame k of it is centred on sample 128 k.
    margin = 128 * CENTRED.context_frames + 128
    padded = np.pad(audio, (margin, margin + 1024))
    for i, segment in enumerate(segments):
        features = segment_features(segment.audio, CENTRED, SPECTROGRAM)
        whole = compute_spectrogram(padded[i * STRIDE :], SPECTROGRAM, pad="none")
        expected = whole[: CENTRED.input_frames]
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)
        assert segment.start_time == i * STRIDE / 16000


def test_reads_no_further_than_it_must():
    pulled = 0

    def chunks():
        nonlocal pulled
        for _ in range(1000):
            pulled += 100
            yield np.ones(100, np.float32)

    segments = stream_segments(chunks(), CENTRED, SPECTROGRAM, 100)
    for count in range(1, 20):
        segment = next(segments)
        assert pulled - STRIDE * count <= 512 - STRIDE + sum(CENTRED.margins(SPECTROGRAM)) + 100
        assert len(segment.audio) == 512 + sum(CENTRED.margins(SPECTROGRAM))


def test_silence_is_known():
    audio = np.zeros(5000, np.float32)
    audio[1100] = 1e-9
    assert [segment.silent for segment in cut([audio], OWN)] == [True, True, False] + 7 * [True]
