"""Spectrograms against the MT3 reference vectors, librosa, and their own conventions."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax import _float32, spectrograms
from musax.spectrograms import SpectrogramConfig, compute_spectrogram
from tests.vectors import golden_dir

GOLDEN = np.load(golden_dir("mt3") / "spectrogram.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN if "/" in key})


def noise(samples, seed=0, scale=0.3):
    return (scale * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def assert_logmel_close(actual, expected, atol=2e-3):
    """The tolerances of the vectors: far below the peak there is only round-off to compare."""
    loud = expected > -7
    np.testing.assert_allclose(actual[loud], expected[loud], atol=atol, rtol=0)
    linear, reference = np.exp(actual), np.exp(expected)
    np.testing.assert_allclose(linear, reference, atol=2e-5 * max(reference.max(), 1e-5), rtol=0)


def test_mel_matrix_and_window_equal_the_reference():
    config = SpectrogramConfig()
    matrix = spectrograms.config_filterbank(config)
    np.testing.assert_allclose(matrix, GOLDEN["mel_matrix_1025x512"], atol=1e-5)
    assert np.array_equal(matrix[0], np.zeros(512))
    np.testing.assert_array_equal(spectrograms.hann_window(2048), GOLDEN["hann_periodic_2048"])


def test_float32_kernels_are_accurate():
    angles = np.linspace(0, 4 * np.pi, 5000, dtype=np.float32)
    np.testing.assert_allclose(_float32.cos(angles), np.cos(angles.astype(float)), atol=2e-7)
    values = np.geomspace(1e-3, 1e6, 5000).astype(np.float32)
    np.testing.assert_allclose(_float32.log(values), np.log(values.astype(float)), atol=2e-6)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("case", CASES)
def test_logmel_equals_the_reference(case, xp):
    config = SpectrogramConfig()
    frames, times = spectrograms.audio_to_frames(GOLDEN[f"{case}/audio"], config)
    assert len(frames) == int(GOLDEN[f"{case}/num_frames"])
    np.testing.assert_allclose(times, GOLDEN[f"{case}/frame_times"], atol=1e-6)

    # XLA's transform leaves another round-off than pocketfft beside a pure tone.
    atol = 2e-3 if xp is np else 5e-3
    logmel = np.asarray(compute_spectrogram(spectrograms.flatten_frames(frames), config, xp))
    assert logmel.dtype == np.float32
    if f"{case}/logmel" in GOLDEN:
        assert logmel.shape == GOLDEN[f"{case}/logmel"].shape
        assert_logmel_close(logmel, GOLDEN[f"{case}/logmel"], atol)
        silent = GOLDEN[f"{case}/logmel"] == np.float32(np.log(np.float32(1e-5)))
        if silent.all():
            assert (logmel == GOLDEN[f"{case}/logmel"]).all()
    for key, part in (("first64", logmel[:64]), ("last20", logmel[-20:])):
        if f"{case}/{key}" in GOLDEN:
            assert_logmel_close(part, GOLDEN[f"{case}/{key}"], atol)
    if f"{case}/mean" in GOLDEN:
        np.testing.assert_allclose(logmel.mean(), GOLDEN[f"{case}/mean"], rtol=1e-2)


def test_batched_equals_one_by_one_and_long_audio_crosses_blocks():
    batch = noise((2, 3, 128 * 300 + 17))
    whole = compute_spectrogram(batch)
    assert whole.shape == (2, 3, 301, 512)
    np.testing.assert_array_equal(whole[1, 2], compute_spectrogram(batch[1, 2]))


def test_moving_by_a_hop_moves_the_frames():
    audio = noise(8192)
    moved = compute_spectrogram(np.concatenate([np.zeros(256, np.float32), audio]))
    np.testing.assert_allclose(moved[2:], compute_spectrogram(audio), atol=1e-5)


def test_the_end_of_a_segment_sees_zeros():
    audio = noise(8192)
    segment = compute_spectrogram(audio[:4096])
    whole = compute_spectrogram(audio)[:32]
    # A frame is 16 hops long, so the last 15 of 32 frames reach over the end of the segment.
    np.testing.assert_allclose(segment[:17], whole[:17], atol=1e-4)
    assert all(np.abs(segment[i] - whole[i]).max() > 0.01 for i in range(17, 32))


def test_floor_replaces_only_zero_unless_clamped():
    tiny = np.full(4096, 1e-9, np.float32)
    log_floor = np.log(1e-5)
    assert compute_spectrogram(tiny).min() < log_floor - 0.1
    clamped = compute_spectrogram(tiny, SpectrogramConfig(clamp=True))
    assert clamped.min() == pytest.approx(log_floor, abs=1e-5)
    silence = compute_spectrogram(np.zeros(4096, np.float32))
    np.testing.assert_allclose(silence, log_floor, atol=1e-6)


def test_short_segment_is_padded_with_zeros_not_the_floor():
    features = compute_spectrogram(np.zeros(128 * 5, np.float32))
    padded = spectrograms.pad_features(features, 8)
    assert (padded[5:] == 0).all()
    assert (padded[:5] < -11).all()
    with pytest.raises(ValueError, match="5 frames do not fit in 4"):
        spectrograms.pad_features(features, 4)


@given(samples=st.integers(0, 2000), hop=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_split_and_flatten_are_inverse(samples, hop):
    config = SpectrogramConfig(hop_width=hop)
    audio = noise(samples)
    frames = spectrograms.split_audio(audio, config)
    assert frames.shape == (-(-samples // hop), hop)
    flat = spectrograms.flatten_frames(frames)
    np.testing.assert_array_equal(flat[:samples], audio)
    assert not flat[samples:].any()
    padded, times = spectrograms.audio_to_frames(audio, config)
    assert padded.shape == (samples // hop + 1, hop)
    assert len(times) == len(padded)


@given(
    samples=st.integers(0, 500),
    size=st.integers(1, 64),
    hop=st.integers(1, 64),
    pad=st.sampled_from(["end", "none", "center"]),
)
@settings(max_examples=60, deadline=None)
def test_numpy_and_jax_frames_agree(samples, size, hop, pad):
    audio = noise(samples)
    if pad == "center" and samples <= size // 2:
        with pytest.raises(ValueError, match="reflect"):
            spectrograms.frame(audio, size, hop, pad=pad)
        return
    frames = spectrograms.frame(audio, size, hop, pad=pad)
    assert frames.shape == (spectrograms.num_frames(samples, size, hop, pad), size)
    if samples % 7 == 0:  # a new shape compiles anew
        np.testing.assert_array_equal(
            frames, spectrograms.frame(jnp.asarray(audio), size, hop, pad=pad, xp=jnp)
        )


def test_stft_equals_librosa():
    audio = noise(6000)
    ours = spectrograms.stft(audio, 1024, 256, pad="center")
    theirs = librosa.stft(audio, n_fft=1024, hop_length=256, pad_mode="reflect").T
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", [None, "slaney"])
def test_filterbank_equals_librosa(scale, norm):
    theirs = librosa.filters.mel(
        sr=44100, n_fft=2048, n_mels=250, fmin=30, fmax=22050, htk=scale == "htk", norm=norm
    )
    ours = spectrograms.mel_filterbank(
        44100, 2048, 250, 30.0, 22050.0, scale=scale, norm=norm, triangles="hz"
    )
    np.testing.assert_allclose(ours, theirs.T, atol=1e-6)
    frequencies = librosa.mel_frequencies(n_mels=252, fmin=30, fmax=22050, htk=scale == "htk")
    centres = spectrograms.mel_frequencies(250, 30.0, 22050.0, scale)
    np.testing.assert_allclose(centres, frequencies[1:-1], rtol=1e-6)


@given(hz=st.floats(0, 24000), scale=st.sampled_from(["htk", "slaney"]))
def test_mel_scale_inverts(hz, scale):
    back = spectrograms.mel_to_hz(spectrograms.hz_to_mel(hz, scale), scale)
    assert float(back) == pytest.approx(hz, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        SpectrogramConfig(hop_width=256, num_mel_bins=229, lo_hz=30.0, clamp=True),
        SpectrogramConfig(  # the spectrogram of a 50 Hz vocoder: window shorter than the transform
            hop_width=320, num_mel_bins=128, fft_size=1024, window_size=640, lo_hz=0.0,
            hi_hz=8000.0, clamp=True,
        ),
        SpectrogramConfig(sample_rate=44100, hop_width=441, num_mel_bins=80, hi_hz=2e4, power=2.0,
                          mel_scale="slaney", mel_norm="slaney"),
    ],
)  # fmt: skip
def test_other_configurations_agree_between_numpy_and_jax(config):
    audio = noise((2, 5000))
    ours = compute_spectrogram(audio, config)
    assert ours.shape == (2, -(-5000 // config.hop_width), config.num_mel_bins)
    jitted = jax.jit(lambda x: compute_spectrogram(x, config, jnp))(audio)
    assert_logmel_close(np.asarray(jitted), ours)
    assert spectrograms.input_depth(config) == config.num_mel_bins


def test_jax_gradient_is_finite_even_in_silence():
    config = SpectrogramConfig(num_mel_bins=64, fft_size=512, clamp=True)
    for audio in (np.zeros(1024, np.float32), noise(1024)):
        gradient = jax.grad(lambda x: compute_spectrogram(x, config, jnp).sum())(audio)
        assert np.isfinite(gradient).all()


def test_abbreviations_and_rates():
    assert SpectrogramConfig().abbrev_str == ""
    assert SpectrogramConfig(22050, 256, 229).abbrev_str == "sr22050hw256mb229"
    assert SpectrogramConfig().frames_per_second == 125


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hop_width": 0}, "hop_width"),
        ({"hi_hz": 9000.0}, "hi_hz=9000"),
        ({"window_size": 4096}, "window_size"),
    ],
)
def test_impossible_configurations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SpectrogramConfig(**fields)


def test_integer_audio_is_refused_and_empty_audio_is_empty():
    with pytest.raises(ValueError, match="int16"):
        compute_spectrogram(np.zeros(1000, np.int16))
    assert compute_spectrogram(np.zeros(0, np.float32)).shape == (0, 512)
    assert compute_spectrogram(jnp.zeros((2, 0)), xp=jnp).shape == (2, 0, 512)


def test_mt3_names_are_the_same_objects():
    import mt3.spectrograms

    for name in mt3.spectrograms.__all__:
        assert getattr(mt3.spectrograms, name) is getattr(spectrograms, name)
