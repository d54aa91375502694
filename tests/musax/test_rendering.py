"""Soundfonts, the synthesizer and augmentation."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.notes import empty_notes, make_notes
from musax.rendering import augment as effects
from musax.rendering import soundfonts
from musax.rendering.soundfont_file import Generator, SoundfontFile
from musax.rendering.soundfonts import SoundfontError
from musax.rendering.synthesizer import Synthesizer

RATE = 16000


@pytest.fixture(scope="module")
def synth():
    return Synthesizer(sample_rate=RATE)


def dominant_hz(audio, start=0.1, seconds=0.5):
    part = audio[int(start * RATE) : int((start + seconds) * RATE)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 17))
    return np.argmax(spectrum) * RATE / (1 << 17)


def test_default_soundfont_comes_with_the_installation(monkeypatch, tmp_path):
    assert soundfonts.default_soundfont().name == "TimGM6mb.sf2"
    monkeypatch.setattr(soundfonts, "SYSTEM_FOLDERS", ())
    (tmp_path / "Mine.SF2").write_bytes(b"x")
    monkeypatch.setenv("MUSAX_SOUNDFONTS", str(tmp_path))
    assert [path.name for path in soundfonts.list_soundfonts()] == ["TimGM6mb.sf2", "Mine.SF2"]
    assert soundfonts.find_soundfont("mine") == tmp_path / "Mine.SF2"
    assert soundfonts.find_soundfont(tmp_path / "Mine.SF2") == tmp_path / "Mine.SF2"
    with pytest.raises(SoundfontError, match=r"absent.*TimGM6mb, Mine"):
        soundfonts.find_soundfont("absent")


def test_file_that_is_no_soundfont_is_named(tmp_path):
    path = tmp_path / "bad.sf2"
    path.write_bytes(b"not a font at all")
    with pytest.raises(SoundfontError, match=r"bad\.sf2.*sfbk"):
        Synthesizer(path)
    path.write_bytes(b"RIFF\x10\x00\x00\x00sfbkLIST")
    with pytest.raises(SoundfontError, match=r"bad\.sf2.*damaged"):
        Synthesizer(path)


def test_pitch_detune_and_sustain(synth):
    organ = make_notes(0.0, 1.0, 69, 100, program=19)
    audio = synth.render(organ, seconds=2.0)
    assert audio.dtype == np.float32
    assert audio.shape == (2 * RATE,)
    ratio = dominant_hz(audio) / 440
    assert abs(1200 * np.log2(ratio / round(ratio))) < 8
    sharp = dominant_hz(synth.render(organ, seconds=2.0, detune_cents=50.0))
    assert 1200 * np.log2(sharp / dominant_hz(audio)) == pytest.approx(50, abs=4)
    assert effects.rms(audio[RATE // 2 : RATE]) > 20 * effects.rms(audio[-RATE // 4 :])


@pytest.mark.parametrize("onset", [0.0, 0.1, 0.33337])
def test_onsets_fall_on_exact_samples(synth, onset):
    audio = synth.render(make_notes(onset, onset + 0.5, 38, 127, is_drum=True), seconds=1.0)
    reference = synth.render(make_notes(0.0, 0.5, 38, 127, is_drum=True), seconds=1.0)
    first = round(onset * RATE)
    assert not audio[:first].any()
    np.testing.assert_allclose(audio[first:], reference[: RATE - first], atol=1e-6)


def test_same_notes_same_samples_in_any_order(synth):
    rng = np.random.default_rng(3)
    onset = rng.uniform(0, 2, 60)
    notes = make_notes(
        onset, onset + rng.uniform(0, 0.6, 60), rng.integers(30, 90, 60), rng.integers(1, 128, 60),
        program=rng.integers(0, 40, 60), is_drum=rng.random(60) < 0.2,
    )  # fmt: skip
    before = notes.copy()
    audio = synth.render(notes, seconds=3.0)
    np.testing.assert_array_equal(audio, synth.render(notes[rng.permutation(60)], seconds=3.0))
    np.testing.assert_array_equal(notes, before)
    assert len({int(p) for p in notes["program"][~notes["is_drum"]]}) > 16


def test_any_number_of_instruments_is_the_sum_of_the_stems(synth):
    notes = make_notes(np.arange(20) * 0.05, 1.0, 60, 90, program=np.arange(20))
    notes = np.concatenate([notes, make_notes([0.0, 0.2], 0.5, [36, 42], 100, is_drum=True)])
    stems = synth.render_stems(notes, seconds=1.5)
    assert list(stems) == [(p, d) for p, d in sorted([(0, True), *((p, False) for p in range(20))])]
    np.testing.assert_allclose(sum(stems.values()), synth.render(notes, seconds=1.5), atol=1e-6)


def test_velocity_gain_stereo_and_length(synth):
    loud = synth.render(make_notes(0, 1, 60, 120), seconds=1.0)
    soft = synth.render(make_notes(0, 1, 60, 20), seconds=1.0)
    assert effects.rms(loud) > 4 * effects.rms(soft)
    halved = synth.render(make_notes(0, 1, 60, 120), seconds=1.0, gain=0.5)
    np.testing.assert_allclose(halved, loud / 2, atol=1e-7)
    stereo = synth.render(make_notes(0, 1, 60, 120), seconds=1.0, stereo=True)
    assert stereo.shape == (RATE, 2)
    assert stereo.any()
    natural = synth.render(make_notes(0, 1, 60, 120))
    assert RATE < len(natural) < 9.1 * RATE
    np.testing.assert_array_equal(natural[: RATE // 2], loud[: RATE // 2])
    chord = synth.render(make_notes(0.0, 1.0, np.arange(40, 80), 127), seconds=1.0)
    assert np.abs(chord).max() > 1.0  # never clipped here


def test_no_notes_and_notes_after_the_end(synth):
    assert synth.render(empty_notes()).shape == (0,)
    assert not synth.render(empty_notes(), seconds=0.5, stereo=True).any()
    assert not synth.render(make_notes(5.0, 6.0, 60), seconds=1.0).any()
    assert synth.render(make_notes(0.0, 0.0, 60), seconds=1.0).any()  # no note gets stuck or lost


def test_bad_arguments_are_refused(synth):
    with pytest.raises(ValueError, match="offset"):
        synth.render(make_notes(1.0, 0.5, 60))
    with pytest.raises(ValueError, match="seconds"):
        synth.render(empty_notes(), seconds=-1.0)
    with pytest.raises(ValueError, match="sample_rate"):
        Synthesizer(sample_rate=0)


def test_what_a_bank_lacks_is_named(synth, monkeypatch):
    assert synth.programs == list(range(128))
    assert 0 in synth.drum_kits
    partial = Synthesizer(sample_rate=RATE)
    monkeypatch.setattr(type(partial._font), "presets", [(0, 4), (128, 8)])
    with pytest.raises(SoundfontError, match=r"no program 5; it holds \[4\]"):
        partial.render(make_notes(0, 1, 60, program=5), seconds=1.0)
    drum = make_notes(0, 1, 38, program=5, is_drum=True)
    assert partial.render(drum, seconds=0.5).any()  # the first kit there is
    monkeypatch.setattr(type(partial._font), "presets", [(0, 4)])
    with pytest.raises(SoundfontError, match="no drum kit"):
        partial.render(drum, seconds=1.0)


def test_a_closed_hi_hat_silences_an_open_one(synth):
    closed_at = 0.3
    ringing = synth.render(make_notes(0.0, 0.1, 46, 100, is_drum=True), seconds=1.0)
    closed = synth.render(make_notes(closed_at, 0.4, 42, 100, is_drum=True), seconds=1.0)
    both = synth.render(
        make_notes([0.0, closed_at], [0.1, 0.4], [46, 42], 100, is_drum=True), seconds=1.0
    )
    cut, later = round(closed_at * RATE), round((closed_at + 0.02) * RATE)
    np.testing.assert_array_equal(both[:cut], ringing[:cut])
    assert effects.rms(ringing[later:]) > 1e-3
    np.testing.assert_allclose(both[later:], closed[later:], atol=1e-6)


def test_a_soundfont_of_compressed_samples_plays_as_the_plain_one(synth, tmp_path):
    """SF3, made of the default bank by compressing the samples of one preset."""
    path = tmp_path / "small.sf3"
    write_compressed(synth.path, path, program=19)
    note = make_notes(0.0, 0.5, 69, 100, program=19)
    plain = synth.render(note, seconds=1.0)
    compressed = Synthesizer(path, RATE).render(note, seconds=1.0)
    assert np.dot(plain, compressed) > 0.99 * np.dot(plain, plain)
    assert effects.rms(plain - compressed) < 0.1 * effects.rms(plain)


def write_compressed(source, target, program):
    """Write a bank with the samples of a preset in Ogg Vorbis, loops from their beginnings."""
    bank = SoundfontFile(source)
    headers = bank._table(b"shdr").copy()
    instruments = {
        z[Generator.INSTRUMENT]
        for z in bank._zones(b"p", b"phdr", bank._numbers[0, program], Generator.INSTRUMENT)
    }
    numbers = {
        z[Generator.SAMPLE]
        for i in instruments
        for z in bank._zones(b"i", b"inst", i, Generator.SAMPLE)
    }
    stored = b""
    for number in sorted(numbers):
        ogg = io.BytesIO()
        soundfile.write(ogg, bank._samples(number), 44100, format="OGG", subtype="VORBIS")
        header = headers[number : number + 1]
        begin = header["start"].copy()
        header["loop_start"] -= begin
        header["loop_end"] -= begin
        header["start"], header["end"] = len(stored), len(stored) + len(ogg.getvalue())
        header["type"] |= 0x10
        stored += ogg.getvalue()
    stored += bytes(len(stored) % 2)
    tables = {**bank._tables, b"shdr": headers}
    names = (b"phdr", b"pbag", b"pgen", b"inst", b"ibag", b"igen", b"shdr")
    pdta = b"pdta" + b"".join(_chunk(name, tables[name].tobytes()) for name in names)
    body = b"sfbk" + _chunk(b"LIST", b"sdta" + _chunk(b"smpl", stored)) + _chunk(b"LIST", pdta)
    target.write_bytes(_chunk(b"RIFF", body))


def _chunk(name, data):
    return name + struct.pack("<I", len(data)) + data


# ----------------------------------------------------------------------------------- augmentation

EFFECTS = [
    effects.room,
    effects.equalize,
    effects.band_limit,
    effects.add_noise,
    effects.change_gain,
    effects.soft_clip,
    effects.compress,
    effects.augment,
]


def tone(samples=8000, hz=440.0, channels=None):
    wave = (0.4 * np.sin(2 * np.pi * hz * np.arange(samples) / RATE)).astype(np.float32)
    return wave if channels is None else np.stack([wave] * channels, axis=-1)


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("samples", [0, 1, 777, 8000])
@pytest.mark.parametrize("channels", [None, 2])
def test_effects_are_pure_and_keep_the_shape(effect, samples, channels):
    audio = tone(samples, channels=channels)
    before = audio.copy()
    result = effect(audio, RATE, np.random.default_rng(1))
    assert result.shape == audio.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(audio, before)
    np.testing.assert_array_equal(result, effect(audio, RATE, np.random.default_rng(1)))
    if samples == 8000:
        assert not np.array_equal(result, audio)
        assert not np.array_equal(result, effect(audio, RATE, np.random.default_rng(2)))
        if channels:
            np.testing.assert_allclose(result[:, 0], result[:, 1], atol=1e-6)


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
def test_silence_stays_finite_and_quiet(effect):
    result = effect(np.zeros(4000, np.float32), RATE, np.random.default_rng(0))
    assert np.isfinite(result).all()
    assert np.abs(result).max() < 0.02


@pytest.mark.parametrize("effect", [effects.room, effects.equalize, effects.band_limit])
def test_linear_effects_do_not_sound_before_the_onset(effect):
    click = np.zeros(16000, np.float32)
    click[8000] = 1.0
    for seed in range(5):
        result = effect(click, RATE, np.random.default_rng(seed))
        assert np.abs(result[:7999]).max() < 1e-3 * np.abs(result).max()
        assert np.abs(result[8000:8040]).max() > 0.5 * np.abs(result).max()


@pytest.mark.parametrize("rt60", [0.2, 0.6, 1.0])
def test_room_decays_as_asked(rt60):
    response = effects.room_impulse_response(
        RATE, np.random.default_rng(0), rt60=rt60, direct_to_reverberant_db=3.0, damping=0.0
    )
    assert response[0] == 1.0
    assert 10 * np.log10(1 / np.sum(response[1:] ** 2)) == pytest.approx(3.0, abs=0.01)
    # Schroeder's backward integral: the slope between 0.3 and 0.6 of the tail.
    remaining = 10 * np.log10(np.cumsum(response[::-1].astype(float) ** 2)[::-1])
    a, b = int(0.3 * len(response)), int(0.6 * len(response))
    slope = (remaining[b] - remaining[a]) / ((b - a) / RATE)
    assert -60 / slope == pytest.approx(rt60, rel=0.15)


def test_damped_rooms_lose_treble_first():
    response = effects.room_impulse_response(RATE, np.random.default_rng(0), rt60=1.0, damping=0.8)
    late = np.abs(np.fft.rfft(response[8000:14000])) ** 2
    hz = np.fft.rfftfreq(6000, 1 / RATE)
    assert late[(hz > 200) & (hz < 800)].mean() > 100 * late[(hz > 4000) & (hz < 7000)].mean()


def test_minimum_phase_has_the_gains_asked_for():
    curve = 6 * np.sin(np.linspace(0, 3, 2049))
    taps = effects.minimum_phase(curve)
    got = 20 * np.log10(np.abs(np.fft.rfft(taps)))
    np.testing.assert_allclose(got, curve, atol=0.05)


@given(exponent=st.floats(0, 2), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_noise_has_its_colour(exponent, seed):
    noise = effects.coloured_noise(1 << 15, np.random.default_rng(seed), exponent)
    assert effects.rms(noise) == pytest.approx(1.0, rel=1e-3)
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[100:200].mean(), power[6400:12800].mean()
    assert 10 * np.log10(low / high) == pytest.approx(exponent * 10 * np.log10(64), abs=2.5)


def test_signal_to_noise_ratio():
    audio = tone(32000)
    noisy = effects.add_noise(audio, RATE, np.random.default_rng(0), snr_db=(20, 20))
    ratio = effects.rms(audio) / effects.rms(noisy - audio)
    assert 20 * np.log10(ratio) == pytest.approx(20, abs=0.5)


def test_compression_narrows_the_dynamics():
    audio = np.concatenate([tone(8000), 0.05 * tone(8000), tone(8000)])
    shaped = effects.compress(
        audio, RATE, np.random.default_rng(0), threshold_db=(-30, -30), ratio=(4, 4)
    )
    before = effects.rms(audio[12000:15000]) / effects.rms(audio[4000:7000])
    after = effects.rms(shaped[12000:15000]) / effects.rms(shaped[4000:7000])
    assert after > 2 * before
    assert np.abs(shaped).max() == pytest.approx(np.abs(audio).max(), rel=1e-5)


def test_soft_clipping_adds_harmonics_only_when_driven():
    for drive, driven in ((-20.0, False), (12.0, True)):
        shaped = effects.soft_clip(
            tone(16000), RATE, np.random.default_rng(0), drive_db=(drive, drive)
        )
        spectrum = np.abs(np.fft.rfft(shaped))
        assert (spectrum[1320] > 0.05 * spectrum[440]) == driven


def test_augment_never_exceeds_full_scale_and_off_means_off():
    for seed in range(8):
        assert np.abs(effects.augment(3 * tone(), RATE, np.random.default_rng(seed))).max() <= 1.0
    off = effects.AugmentConfig(
        compress=0, soft_clip=0, room=0, equalize=0, band_limit=0, noise=0, gain=0
    )
    np.testing.assert_array_equal(
        effects.augment(tone(), RATE, np.random.default_rng(0), off), tone()
    )
