import numpy as np
import pytest

from drums import features as f
from tests.vectors import golden_dir

GOLDEN = np.load(golden_dir("drums") / "logmel.npz")
CASES = [k.removeprefix("mel_") for k in GOLDEN.files if k.startswith("mel_hop")]
OURS = f.DrumFeatures(
    hop_width=441, num_mel_bins=128, top_db=None, floor_db=-50.0, padding="none",
    offset_db=50.0, scale_db=25.0,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_librosa(case):
    hop, padding = case.removeprefix("hop").split("_")
    config = f.DrumFeatures(hop_width=int(hop), padding=padding)
    power = np.asarray(f.mel_power(GOLDEN["audio"], config))
    reference = GOLDEN[f"mel_{case}"]
    assert power.shape == reference.shape
    assert config.num_frames(len(GOLDEN["audio"])) == len(reference)
    np.testing.assert_allclose(power, reference, atol=1e-6 * reference.max())
    # 1e-4 of the power, in dB, also 80 dB below the loudest cell.
    found = np.asarray(f.compute_log_mel(GOLDEN["audio"], config))
    np.testing.assert_allclose(found, GOLDEN[f"logmel_{case}"], atol=10 * np.log10(1 + 1e-4))


def test_filterbank():
    bank = f.filterbank(f.DrumFeatures())
    np.testing.assert_allclose(bank.T, GOLDEN["mel_filterbank"], atol=1e-6)


def test_librosa_itself():
    librosa = pytest.importorskip("librosa")
    audio = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
    mel = librosa.feature.melspectrogram(
        y=audio, sr=44100, n_fft=2048, hop_length=441, n_mels=250, fmin=30, htk=True, power=2.0,
        pad_mode="reflect",
    )  # fmt: skip
    config = f.DrumFeatures(hop_width=441)
    found = np.asarray(f.compute_log_mel(audio, config))
    np.testing.assert_allclose(found, librosa.power_to_db(mel).T, atol=1e-3)


def test_nothing_is_below_silence_and_silence_is_zero():
    silence = np.asarray(f.compute_log_mel(np.zeros(8820, np.float32), OURS))
    assert OURS.silence == 0.0
    np.testing.assert_array_equal(silence, 0.0)
    noise = np.random.default_rng(0).normal(0, 1e-4, 8820).astype(np.float32)
    assert np.asarray(f.compute_log_mel(noise, OURS)).min() >= 0.0


def test_fixed_floor_does_not_depend_on_what_else_is_heard():
    rng = np.random.default_rng(0)
    soft, loud = (rng.normal(0, s, 44100).astype(np.float32) for s in (0.003, 0.5))
    alone = np.asarray(f.compute_log_mel(soft, OURS))
    together = np.asarray(f.compute_log_mel(np.concatenate([soft, loud]), OURS))
    np.testing.assert_allclose(together[: len(alone)], alone, atol=1e-5)
    # The reference's cut moves with the loudest cell.
    config = f.DrumFeatures(padding="none")
    alone = np.asarray(f.compute_log_mel(soft[:8192] * 1e-3, config))
    together = np.asarray(f.compute_log_mel(np.concatenate([soft * 1e-3, loud]), config))
    assert np.abs(together[: len(alone)] - alone).max() > 1.0


def test_frames_need_just_their_samples():
    audio = np.random.default_rng(0).normal(0, 0.1, OURS.samples_of(30)).astype(np.float32)
    whole = np.asarray(f.compute_log_mel(audio, OURS))
    assert whole.shape == (30, 128)
    part = audio[5 * 441 :][: OURS.samples_of(10)]
    np.testing.assert_allclose(f.compute_log_mel(part, OURS), whole[5:15], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"), [({"hop_width": 0}, "hop_width=0"), ({"padding": "zero"}, "'zero'")]
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        f.DrumFeatures(**options)
