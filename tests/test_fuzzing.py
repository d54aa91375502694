"""Damaged files are read or refused; and the search for those that are not finds some."""

import time

import numpy as np
import pytest

from tests import fuzzing
from tests.fuzzing import KINDS, Kind, damage, main


@pytest.mark.parametrize("name", ["midi", "notes", "audio"])
def test_damaged_files_are_read_or_refused(tmp_path, name):
    kind, whole, damaged = KINDS[name], tmp_path / "whole", tmp_path / "damaged"
    whole.mkdir()
    damaged.mkdir()
    signal_handler = fuzzing.signal.signal(fuzzing.signal.SIGALRM, fuzzing._stop)
    try:
        for place in fuzzing._copies(kind, kind.write(whole), damaged, 0, 60):
            assert fuzzing._problem(kind.read, place) is None, place
    finally:
        fuzzing.signal.signal(fuzzing.signal.SIGALRM, signal_handler)


@pytest.mark.slow
def test_the_search_of_all_kinds_fails_nowhere(tmp_path, capsys):
    assert main(["--count", "100", "--keep", str(tmp_path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (lambda path: {}["size"], "KeyError: 'size'"),
        (lambda path: int("x"), "ValueError without the file's name"),
        (lambda path: time.sleep(3), "more than 1 s"),
        (lambda path: open(path.parent / "absent" / path.name).close(), None),
        (lambda path: None, None),
    ],
)
def test_what_is_no_clear_error_is_found(tmp_path, monkeypatch, read, problem):
    monkeypatch.setattr(fuzzing, "LONGEST_SECONDS", 1)
    handler = fuzzing.signal.signal(fuzzing.signal.SIGALRM, fuzzing._stop)
    try:
        found = fuzzing._problem(read, tmp_path / "a.bin")
    finally:
        fuzzing.signal.signal(fuzzing.signal.SIGALRM, handler)
    assert found is None if problem is None else problem in found


def test_a_seed_damages_the_same(tmp_path):
    data = bytes(range(256))
    first, same, other = (damage(data, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == same != other
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(data)
    kind = Kind(lambda folder: [], lambda path: None)
    (place,) = fuzzing._copies(kind, [tmp_path / "b"], tmp_path / "a", 0, 1)
    assert place.read_bytes() != data
