"""Decoding, resampling, streaming and writing of audio files, good and bad."""

import contextlib
import itertools
import os
import subprocess
import sys
import textwrap
import tracemalloc
import types
import warnings

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from musax import _audio_writing
from musax import audio as A
from musax.audio import (
    AudioError,
    AudioWarning,
    load_audio,
    resample,
    save_audio,
    stream_audio,
    to_float,
)


def tones(seconds=1.0, rate=44100, channels=2):
    time = np.arange(round(seconds * rate)) / rate
    columns = [0.3 * np.sin(2 * np.pi * 440 * (c + 1) * time) for c in range(channels)]
    return np.stack(columns, axis=-1).astype(np.float32)


# --------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 2e-2),
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-7),
        ("wav", "FLOAT", 0),
        ("wav", "DOUBLE", 0),
        ("flac", "PCM_24", 1e-6),
        ("aiff", "PCM_16", 1e-4),
        ("caf", "PCM_16", 1e-4),
        ("ogg", "VORBIS", 5e-2),
        ("mp3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_formats_round_trip(tmp_path, suffix, subtype, tolerance):
    audio = tones()
    path = tmp_path / f"a.{suffix}"
    save_audio(path, audio, 44100, subtype=subtype)
    loaded, rate = load_audio(path, mono=False)
    assert rate == 44100
    assert loaded.dtype == np.float32
    assert loaded.shape == audio.shape
    np.testing.assert_allclose(loaded[2000:-2000], audio[2000:-2000], atol=tolerance)
    info = A.audio_info(path)
    assert (info.sample_rate, info.channels, info.subtype) == (44100, 2, subtype)
    assert info.seconds == pytest.approx(1.0, abs=0.1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file stays


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channels_to_16k_mono(tmp_path, rate, channels):
    path = tmp_path / "a.wav"
    save_audio(path, tones(0.5, rate, channels), rate, subtype="FLOAT")
    loaded, new_rate = load_audio(path, 16000)
    assert new_rate == 16000
    assert loaded.shape == (round(len(tones(0.5, rate, 1)) * 16000 / rate),)
    expected = tones(0.5, 16000, channels).mean(axis=1)[: len(loaded)]
    top = 440 * channels < 0.45 * rate
    np.testing.assert_allclose(loaded[500:-500], expected[500:-500], atol=1e-3 if top else 0.1)


@pytest.mark.parametrize("rate", [None, 16000, 48000])
@pytest.mark.parametrize("mono", [True, False])
@pytest.mark.parametrize("seconds", [0.013, 0.5, 100.0])
def test_stream_equals_load(tmp_path, rate, mono, seconds):
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (150001, 2))
    save_audio(path, noise, 44100)
    whole, true_rate = load_audio(path, rate, mono)
    chunks = list(stream_audio(path, rate, seconds, mono))
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    size = round(seconds * true_rate)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= size


def test_streaming_reads_no_further_than_asked(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    save_audio(path, np.zeros(44100 * 60, np.float32), 44100)
    frames = []
    original = soundfile.SoundFile.read

    def counted(self, count, **options):
        frames.append(count)
        return original(self, count, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    next(stream_audio(path, 16000, 1.0))
    assert sum(frames) < 44100 * 6


# ----------------------------------------------------------------------------------- resampling


@given(
    samples=st.integers(1, 3000),
    rates=st.tuples(*[st.sampled_from([8000, 16000, 22050, 44100, 48000])] * 2),
    cuts=st.lists(st.integers(0, 3000), max_size=5),
    channels=st.sampled_from([None, 1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_chunked_resampling_equals_whole(samples, rates, cuts, channels):
    shape = samples if channels is None else (samples, channels)
    audio = np.random.default_rng(samples).uniform(-1, 1, shape).astype(np.float32)
    whole = resample(audio, *rates)
    assert whole.dtype == np.float32
    assert abs(len(whole) - samples * rates[1] / rates[0]) <= 1
    assert whole.shape[1:] == audio.shape[1:]
    stream = A.ResampleStream(*rates, channels or 1)
    parts = [
        stream.process(part) for part in np.split(audio, sorted(min(c, samples) for c in cuts))
    ]
    parts.append(stream.finish().reshape(-1, *audio.shape[1:]))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_resampling_keeps_tones_and_removes_what_would_alias():
    time = np.arange(44100) / 44100
    low = resample(np.sin(2 * np.pi * 1000 * time), 44100, 16000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    np.testing.assert_allclose(low[400:-400], expected[400:-400], atol=1e-3)
    high = resample(np.sin(2 * np.pi * 11000 * time), 44100, 16000)
    assert np.abs(high[400:-400]).max() < 1e-4


def test_resampling_refuses_nonsense():
    with pytest.raises(ValueError, match="int16"):
        resample(np.zeros(10, np.int16), 44100, 16000)
    for rates in ((0, 16000), (16000, -1), (float("nan"), 16000)):
        with pytest.raises(ValueError, match="sample rate must be positive"):
            resample(np.zeros(10, np.float32), *rates)
    assert resample(np.zeros(0, np.float32), 44100, 16000).shape == (0,)


# -------------------------------------------------------------------------------------- bad files


def bad_file(tmp_path, kind):
    path = tmp_path / "bad.wav"
    if kind == "folder":
        path.mkdir()
    elif kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros((0, 2)), 44100)
    elif kind == "text":
        path.write_text("this is not audio\n" * 100)
    elif kind == "image":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    elif kind == "header only":
        soundfile.write(path, np.zeros(10), 44100)
        path.write_bytes(path.read_bytes()[:20])
    elif kind == "nan":
        audio = tones(0.5)
        audio[11025, 1] = np.nan
        soundfile.write(path, audio, 44100, subtype="FLOAT")
    elif kind == "infinity":
        soundfile.write(path, np.array([0.0, np.inf]), 44100, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", "folder"),
        ("missing", "no such file"),
        ("zero bytes", "0 bytes"),
        ("no samples", "0 samples"),
        ("text", "not audio.*ffmpeg"),
        ("image", "not audio"),
        ("header only", "not audio|no audio"),
        ("nan", r"0\.250 s is not a finite number"),
        ("infinity", "not a finite number"),
    ],
)
def test_bad_files_are_named_with_a_remedy(tmp_path, kind, message):
    path = bad_file(tmp_path, kind)
    for read in (load_audio, lambda p: list(stream_audio(p, 16000))):
        with pytest.raises(AudioError, match=rf"bad\.wav: .*({message}).*"):
            read(path)


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_rates_of_no_recording_are_refused(tmp_path, rate):
    path = tmp_path / "odd.wav"
    save_audio(path, tones(), 44100)
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    for read in (A.audio_info, load_audio, lambda p: next(stream_audio(p, 16000))):
        with pytest.raises(
            AudioError, match=rf"odd\.wav: a sample rate of {rate} Hz; expected 1000"
        ):
            read(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read anything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "secret.wav"
    save_audio(path, tones(), 44100)
    path.chmod(0)
    with pytest.raises(AudioError, match="permission"):
        load_audio(path)


FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "float": ("WAV", "FLOAT"),
    "extensible": ("WAVEX", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_file_that_breaks_off_gives_what_there_is(tmp_path, name):
    path, (kind, subtype) = tmp_path / f"cut.{name}", FORMATS[name]
    soundfile.write(path, tones(4.0), 44100, format=kind, subtype=subtype)
    with warnings.catch_warnings(action="error"):
        whole, _ = load_audio(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    said = r"breaks off after [12]\.\d+ s" + (" of 4.00 s" if kind != "OGG" else "")
    with pytest.warns(AudioWarning, match=said):
        part, _ = load_audio(path)
    assert 0.2 * len(whole) < len(part) < 0.8 * len(whole)
    np.testing.assert_allclose(part[:40000], whole[:40000], atol=2e-2)


def test_a_cut_flac_gives_all_good_blocks(tmp_path):
    path = tmp_path / "cut.flac"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 90_000)
    soundfile.write(path, noise, 44100, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-100])  # within the last block of 4096
    with pytest.warns(AudioWarning, match="of 2.04 s"):
        part, _ = load_audio(path)
    assert 90_000 - 4096 - 100 < len(part) < 90_000
    np.testing.assert_allclose(part, noise[: len(part)], atol=1e-4)


def test_sizes_that_stand_for_unknown_are_no_break(tmp_path):
    path = tmp_path / "piped.wav"
    save_audio(path, tones(), 44100)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with warnings.catch_warnings(action="error"):
        samples, _ = load_audio(path)
    assert len(samples) == 44100


def test_sizes_beyond_any_file_are_no_error(tmp_path):
    path = tmp_path / "huge.w64"
    soundfile.write(path, tones(), 44100, format="W64")
    data = bytearray(path.read_bytes())
    at = data.index(b"fmt ") + 16
    data[at : at + 8] = b"\xff" * 7 + b"\x7f"
    path.write_bytes(data)
    with contextlib.suppress(AudioError):
        load_audio(path)


def test_estimated_lengths_are_no_break(tmp_path):
    # libsndfile estimates how long an MP3 file without a header is.
    estimated = types.SimpleNamespace(frames=45_000, samplerate=44100)
    for decoded, breaks_off in ((44_000, False), (30_000, True)):
        found = A._cut_short(tmp_path / "stream.mp3", estimated, decoded)
        assert found == (breaks_off, 45_000)


def test_mono_files_have_a_channel_if_channels_are_asked_for(tmp_path):
    save_audio(tmp_path / "a.wav", tones()[:, 0], 44100)
    for rate in (44100, 16000):
        samples, _ = load_audio(tmp_path / "a.wav", rate, mono=False)
        assert samples.shape == (rate, 1)


@pytest.mark.parametrize("rate", [44100, 16000])
def test_antiphase_gives_one_side(tmp_path, rate):
    left = tones()[:, 0]
    silence = np.zeros((70_000, 2), np.float32)
    save_audio(tmp_path / "a.wav", np.concatenate([silence, np.c_[left, -0.8 * left]]), 44100)
    with pytest.warns(AudioWarning, match=r"a\.wav: the channels cancel .* channel 1 alone"):
        found, _ = load_audio(tmp_path / "a.wav", rate)
    expected = resample(np.concatenate([silence[:, 0], left]), 44100, rate)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_stereo_is_decoded_once(tmp_path, monkeypatch):
    save_audio(tmp_path / "a.wav", tones(), 44100)
    opened, library = [], soundfile.SoundFile
    monkeypatch.setattr(soundfile, "SoundFile", lambda f: opened.append(f) or library(f))
    load_audio(tmp_path / "a.wav", 16000)
    assert len(opened) == 1


def test_the_search_for_the_beginning_of_sound_holds_no_silence():
    sound = np.float32([[0.5, -0.5]]).repeat(1000, axis=0)
    silence = np.zeros((1 << 16, 2), np.float32)
    blocks = itertools.chain([sound], (silence.copy() for _ in range(200)), [sound])
    tracemalloc.start()
    with pytest.warns(AudioWarning, match="channel 1 alone"):
        found = [float(block.max()) for block in A._mono_blocks(blocks, 44100, "a.wav")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [0.5, *[0.0] * 200, 0.5]
    assert peak < 5 * silence.nbytes


def test_a_side_that_is_only_softer_is_averaged(tmp_path):
    left = tones()[:, 0]
    for right in (0 * left, -0.5 * left, np.roll(left, 25)):
        save_audio(tmp_path / "a.wav", np.c_[left, right], 44100, subtype="FLOAT")
        with warnings.catch_warnings(action="error"):
            found, _ = load_audio(tmp_path / "a.wav")
            np.testing.assert_allclose(found, (left + right) / 2, atol=1e-6)
            np.testing.assert_array_equal(A.to_mono(np.c_[left, right]), found)


def test_the_dtype_says_what_stored_samples_are():
    wave = np.array([-1.0, -0.5, 0.0, 0.25])
    stored = {
        "int16": (wave * 32768).astype(np.int16),
        "int32": (wave * 2**31).astype(np.int32),
        "uint8": (wave * 128 + 128).astype(np.uint8),
        "float32": wave.astype(np.float32),
        "float64": wave,
        "float16": wave.astype(np.float16),
    }
    for name, samples in stored.items():
        found = to_float(samples)
        assert found.dtype == np.float32, name
        np.testing.assert_array_equal(found, wave, err_msg=name)
    for samples, message in (
        (np.arange(4), "int64 samples; expected floats"),
        (np.array([0.0, 20000.0]), r"a peak of 20000; expected full scale 1\.0"),
        (np.array([0.0, np.nan]), "not a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            to_float(samples)


@given(data=st.binary(min_size=1, max_size=300), suffix=st.sampled_from(["wav", "mp3", "flac"]))
@settings(max_examples=60, deadline=None)
def test_arbitrary_bytes_never_crash(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"x.{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(AudioError):  # any other exception fails
        audio, _ = load_audio(path)
        assert np.isfinite(audio).all()


def test_stream_errors_come_at_the_call(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        stream_audio(tmp_path / "missing.wav", 16000)
    save_audio(tmp_path / "a.wav", tones(0.1), 44100)
    with pytest.raises(ValueError, match="chunk_seconds"):
        stream_audio(tmp_path / "a.wav", 16000, 0.0)
    with pytest.raises(ValueError, match="sample_rate"):
        load_audio(tmp_path / "a.wav", 0)


# --------------------------------------------------------------------------------------- writing


def test_only_what_exceeds_full_scale_is_scaled_and_float_keeps_all(tmp_path):
    audio = np.array([0.0, 0.5, 2.0, -1.0], np.float32)
    with pytest.warns(AudioWarning, match=r"a\.wav: peak 2\.000.*scaled by -6\.0 dB"):
        save_audio(tmp_path / "a.wav", audio, 16000)
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav")[0], audio / 2, atol=1e-4)
    save_audio(tmp_path / "c.wav", audio / 2, 16000)  # full scale itself needs no warning
    np.testing.assert_allclose(load_audio(tmp_path / "c.wav")[0], audio / 2, atol=1e-4)
    save_audio(tmp_path / "b.wav", audio, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "b.wav")[0], audio)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_blocks_make_the_file_of_the_whole(tmp_path, scale):
    audio = A.normalize_peak(tones(0.2, 8000, 2), scale)
    expected = pytest.warns(AudioWarning, match="peak") if scale > 1 else contextlib.nullcontext()
    with expected:
        save_audio(tmp_path / "whole.wav", audio, 8000)
    with expected, A.audio_writer(tmp_path / "blocks.wav", 8000) as write:
        for block in np.split(audio, [0, 1, 700]):
            write(block)
        assert not (tmp_path / "blocks.wav").exists()
    assert (tmp_path / "blocks.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    failing = contextlib.ExitStack()
    write = failing.enter_context(A.audio_writer(tmp_path / "blocks.wav", 8000))
    write(audio)
    with pytest.raises(AudioError, match=r"block of \(5,\), after blocks of"), failing:
        write(np.zeros(5))
    failing = A.audio_writer(tmp_path / "d.wav", 8000)
    failing.__enter__()(audio)
    assert not failing.__exit__(ValueError, ValueError("the model failed"), None)
    with pytest.raises(AudioError, match="no samples"), A.audio_writer(tmp_path / "c.wav", 8000):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"whole.wav", "blocks.wav"}
    np.testing.assert_array_equal(
        load_audio(tmp_path / "blocks.wav")[0], load_audio(tmp_path / "whole.wav")[0]
    )


@pytest.mark.parametrize(
    ("name", "samples", "rate", "message"),
    [
        ("a.xyz", np.zeros(10), 16000, "unknown audio suffix"),
        ("a", np.zeros(10), 16000, "unknown audio suffix"),
        ("none/a.wav", np.zeros(10), 16000, "does not exist"),
        ("a.wav", np.zeros(10, np.int16), 16000, "int16"),
        ("a.wav", np.array([0.0, np.nan]), 16000, "NaN"),
        ("a.wav", np.zeros((2, 3, 4)), 16000, r"\(2, 3, 4\)"),
        ("a.mp3", np.zeros(1000), 12345, "cannot be written.*sample rate"),
    ],
)
def test_bad_writes_leave_nothing_behind(tmp_path, name, samples, rate, message):
    with pytest.raises(AudioError, match=message):
        save_audio(tmp_path / name, samples, rate)
    assert not list(tmp_path.iterdir())


def test_unknown_subtype_lists_the_known_ones(tmp_path):
    with pytest.raises(AudioError, match=r"no subtype PCM_99; use one of .*PCM_16"):
        save_audio(tmp_path / "a.wav", np.zeros(10), 16000, subtype="PCM_99")


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.wav"
    save_audio(path, tones(0.1), 44100)
    before = path.read_bytes()
    code = f"""
        import resource, signal, numpy as np
        from musax.audio import AudioError, save_audio
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_audio({str(path)!r}, np.zeros(1_000_000, np.float32), 44100)
        except AudioError as error:
            print(error)
        else:
            raise SystemExit("nothing was raised")
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    assert "a.wav: cannot be written" in out.stdout
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_no_space_is_said_plainly(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    monkeypatch.setattr(
        _audio_writing.shutil, "disk_usage", lambda _: type("U", (), {"free": 10})()
    )
    with pytest.raises(AudioError, match="no space left"):
        save_audio(tmp_path / "a.wav", np.zeros(1000), 16000)
