"""`musax.transcribe(path)` and its like: a task in one call."""

import re

import numpy as np
import pytest

import musax
from musax import pretrained, shortcuts


class Model:
    """Records what it is asked for."""

    def __getattr__(self, name):
        return lambda *given, **options: (self, name, given, options)


@pytest.fixture
def loaded(monkeypatch):
    """The arguments of every load."""
    calls = []

    def load(name, *, task):
        calls.append((name, task))
        return Model()

    monkeypatch.setattr(pretrained, "load", load)
    shortcuts._loaded.cache_clear()
    yield calls
    shortcuts._loaded.cache_clear()


def test_each_task_calls_the_method_of_its_default_model(loaded):
    assert musax.transcribe("a.wav", decode="greedy")[1:] == (
        "transcribe_file", ("a.wav",), {"decode": "greedy"},
    )  # fmt: skip
    assert musax.drums("a.wav")[1] == "transcribe_file"
    assert musax.compose(seed=1)[1:] == ("compose", (), {"seed": 1})
    assert musax.infill("a_c")[1:] == ("infill", ("a_c",), {})
    assert musax.score(np.zeros(3))[1] == "score"
    assert loaded == [
        ("mt3-piano-tiny", "transcribe"),
        ("drums-small", "drums"),
        ("perceiver_ar-pop909", "compose"),
        ("cdcd-text", "infill"),
        ("cdcd-melody", "score"),
    ]


def test_models_are_kept(loaded):
    first, again = musax.score("text"), musax.score("other")
    assert first[0] is again[0]
    musax.score("text", model="mine")
    assert loaded == [("cdcd-text", "score"), ("mine", "score")]


def test_a_model_of_another_task_is_refused():
    with pytest.raises(pretrained.PretrainedError, match=r"model of mt3 .*drums needs one of"):
        musax.drums("a.wav", model="mt3-piano-tiny")


def test_the_names_of_the_package():
    assert re.fullmatch(r"\d+\.\d+.*", musax.__version__)
    assert set(musax.__all__) <= set(dir(musax))
    assert musax.load is pretrained.load
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        musax.sing  # noqa: B018
