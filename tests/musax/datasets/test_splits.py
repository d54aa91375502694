from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from musax.datasets.splits import SPLITS, hash_split


def test_names_stay_where_they_are():
    # Were these to change, models would be judged on what they were trained on.
    assert [hash_split(name) for name in ("hamlet", "6", "11")] == ["train", "test", "valid"]


def test_shares():
    counts = Counter(hash_split(f"piece {i}") for i in range(20_000))
    assert 17_800 < counts["train"] < 18_200
    assert 900 < counts["valid"] < 1100
    assert 900 < counts["test"] < 1100


@given(st.text())
def test_any_name_has_a_split(name):
    assert hash_split(name) in SPLITS


def test_names_of_files_that_are_not_utf8_have_a_split():
    assert hash_split(b"caf\xe9.mid".decode("utf-8", "surrogateescape")) in SPLITS
