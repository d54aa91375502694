"""Files appear complete or not at all."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5x.files import (
    atomic_path,
    read_json_lines,
    refusal,
    write_json,
    write_json_lines,
    write_text,
)
from t5x.user_paths import user_path


def test_a_file_replaces_the_one_before_it(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "before")
    with atomic_path(target) as temporary:
        temporary.write_text("after")
        assert target.read_text() == "before"
    assert target.read_text() == "after"
    assert os.listdir(tmp_path) == ["a.txt"]


def fail_after_half(target):
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "before")
    with pytest.raises(RuntimeError):
        fail_after_half(target)
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole(tmp_path):
    with atomic_path(tmp_path / "model", folder=True) as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "a").write_text("x")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "part" / "a").read_text() == "x"
    assert os.listdir(tmp_path) == ["model"]


def fail_in_folder(target):
    with atomic_path(target, folder=True) as temporary:
        (temporary / "a").write_text("x")
        raise RuntimeError


def test_a_failure_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError):
        fail_in_folder(tmp_path / "other")
    assert not os.listdir(tmp_path)


@given(st.integers(2, 255))
def test_the_hidden_name_is_no_longer_than_the_final_one(tmp_path_factory, length):
    folder = tmp_path_factory.mktemp("names")
    with atomic_path(folder / ("n" * length)) as temporary:
        assert temporary.name.startswith(".")
        assert len(temporary.name) <= length


def test_writers_of_one_file_do_not_meet(tmp_path):
    with atomic_path(tmp_path / "ab") as first, atomic_path(tmp_path / "ab") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "ab").read_text() == "1"  # the outer block ended last


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write_text(tmp_path / "absent" / "a.txt", "x")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        write_text(tmp_path, "x")


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "atomic", "x")
    mode = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert mode[0] == mode[1]


def test_lines_of_json_come_back(tmp_path):
    lines = [{"a": 1}, {"b": [1, 2]}]
    assert write_json_lines(tmp_path / "new" / "x.jsonl", lines) == 2
    assert read_json_lines(tmp_path / "new" / "x.jsonl") == lines


def test_a_failure_among_the_lines_writes_none(tmp_path):
    def lines():
        yield {"a": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_json_lines(tmp_path / "x.jsonl", lines())
    assert not list(tmp_path.iterdir())


def test_a_tilde_is_home_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert user_path("~/take.wav") == tmp_path / "home/take.wav"
    for name in ("~take.wav", "~"):
        (tmp_path / name).write_text("")
        assert user_path(name) == Path(name)
    assert user_path("~nobody-of-this-name/take.wav") == Path("~nobody-of-this-name/take.wav")


def test_names_that_are_not_utf8_are_written_as_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    write_json(tmp_path / "a.json", {"file": name})
    write_json_lines(tmp_path / "a.jsonl", [{"file": name}])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"file": name}
    assert read_json_lines(tmp_path / "a.jsonl") == [{"file": name}]


def test_what_a_disk_refuses_is_told_from_other_errors():
    full = OSError(errno.ENOSPC, "No space left on device", "/x/y")
    assert refusal(full) == "No space left on device: '/x/y'"
    assert refusal(type("Proxy", (OSError,), {"__str__": lambda _: f"{full}\n  In"})()) == (
        "No space left on device: '/x/y'"
    )
    assert refusal(ValueError("DATA_LOSS: a\nx: No space left on device [28]")) == (
        "No space left on device"
    )
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file", "/x")) is None
    assert refusal(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert refusal(ValueError("other")) is None


def test_a_failed_write_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("n")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        fail()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
