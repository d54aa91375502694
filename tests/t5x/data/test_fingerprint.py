import numpy as np

from t5x.data.fingerprint import fingerprint


def examples(**changes):
    audio = np.sin(np.arange(800.0)).astype(np.float32)
    one = {"audio": audio, "notes": np.arange(9), "path": "/data/a/1.wav", "text": b"x"}
    return [{**one, "notes": np.arange(9) + i, **changes} for i in range(5)]


def test_equal_data_has_one_fingerprint():
    assert fingerprint(examples()) == fingerprint(examples())
    assert len(fingerprint([])) == 16


def test_rounding_and_the_folder_do_not_matter():
    audio = examples()[0]["audio"] * np.float32(1 + 1e-6)
    assert fingerprint(examples(audio=audio)) == fingerprint(examples())
    assert fingerprint(examples(path="/mnt/b/1.wav")) == fingerprint(examples())


def test_other_data_has_another():
    base = fingerprint(examples())
    audio = examples()[0]["audio"]
    for changed in (
        {"notes": np.arange(9) + 1},
        {"notes": np.arange(9).astype(np.int32)},
        {"audio": audio[:-1]},
        {"audio": audio * 2},
        {"path": "/data/a/2.wav"},
        {"text": b"y"},
        {"more": 1},
    ):
        assert fingerprint(examples(**changed)) != base
    assert fingerprint(examples()[:4]) != base
    assert fingerprint(examples()[::-1]) != base


def test_structured_arrays_are_digested_by_field():
    """Such as note arrays, which MT3's examples hold."""
    notes = np.zeros(3, [("onset", "f8"), ("pitch", "i4"), ("is_drum", "?")])
    notes["pitch"] = 60
    other = notes.copy()
    other["pitch"][1] = 61
    assert fingerprint([{"notes": notes}]) == fingerprint([{"notes": notes.copy()}])
    assert fingerprint([{"notes": notes}]) != fingerprint([{"notes": other}])
