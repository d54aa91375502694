"""Tasks, mixtures and their registries."""

import numpy as np
import pytest

from t5x.data import (
    Feature,
    Mixture,
    MixtureRegistry,
    PassThroughVocabulary,
    Task,
    TaskRegistry,
    get_mixture_or_task,
    mixing_rate_num_examples,
)
from t5x.data.features import trim_features, validate_features

TOKENS = Feature(PassThroughVocabulary(10))


@pytest.fixture
def registered():
    names = []

    def add(registry, name, *args, **kwargs):
        entry = registry.add(name, *args, **kwargs)
        names.append((registry, entry.name))
        return entry

    yield add
    for registry, name in names:
        registry.remove(name)


def _source(n):
    return {"train": [{"targets": [i + 1]} for i in range(n)]}


def _add_tasks(add, **sizes):
    for name, n in sizes.items():
        add(TaskRegistry, name, _source(n), output_features={"targets": TOKENS})


def test_names_lead_to_tasks_and_mixtures(registered):
    _add_tasks(registered, reg_piano=3)
    mixture = registered(MixtureRegistry, "reg_all", [("reg_piano", 1)])
    assert TaskRegistry.get("reg_piano").num_input_examples("train") == 3
    assert get_mixture_or_task("reg_piano").splits == ("train",)
    assert get_mixture_or_task("reg_all") is mixture
    assert get_mixture_or_task(mixture) is mixture
    assert "reg_piano" in TaskRegistry.names()
    assert MixtureRegistry.names() == ["reg_all"]


def test_unknown_names_say_did_you_mean(registered):
    _add_tasks(registered, reg_maestro_train=3)
    with pytest.raises(ValueError, match="did you mean 'reg_maestro_train'"):
        get_mixture_or_task("reg_maestro_tran")
    with pytest.raises(ValueError, match="did you mean 'reg_maestro_train'"):
        TaskRegistry.get("reg_mastro_train")
    with pytest.raises(ValueError, match="none is registered; import the module"):
        MixtureRegistry.get("anything")
    with pytest.raises(ValueError, match="expected a Task"):
        get_mixture_or_task(3)


def test_a_name_is_used_once(registered):
    _add_tasks(registered, reg_once=1)
    with pytest.raises(ValueError, match="exists already"):
        TaskRegistry.add("reg_once", _source(1))
    with pytest.raises(ValueError, match="exists already"):
        MixtureRegistry.add("reg_once", [("reg_once", 1)])


def test_mixture_rates(registered):
    _add_tasks(registered, reg_a=8, reg_b=1000, reg_c=1)
    inner = registered(MixtureRegistry, "reg_inner", [("reg_a", 1), ("reg_b", 3)])
    outer = Mixture("outer", ["reg_inner", ("reg_a", 2), ("reg_c", lambda task: 5)], default_rate=8)
    assert [task.name for task in outer.tasks] == ["reg_a", "reg_b", "reg_c"]
    assert [outer.rate(task) for task in outer.tasks] == [2 + 8 / 4, 6, 5]
    assert inner.total_rate == 4
    assert outer.total_rate == 15
    by_size = Mixture("size", ["reg_a", "reg_b"], mixing_rate_num_examples)
    assert [by_size.rate(task) for task in by_size.tasks] == [8, 1000]
    a, b = by_size.tasks
    assert mixing_rate_num_examples(a, scale=2, temperature=2) == pytest.approx(4)
    assert mixing_rate_num_examples(b, maximum=27, temperature=3) == pytest.approx(3)


def test_bad_mixtures(registered):
    _add_tasks(registered, reg_d=1)
    registered(TaskRegistry, "reg_other", _source(1), output_features={"inputs": TOKENS})
    with pytest.raises(ValueError, match="no rate for 'reg_d'"):
        Mixture("m", ["reg_d"])
    with pytest.raises(ValueError, match="must be positive"):
        Mixture("m", [("reg_d", 0)]).rate(TaskRegistry.get("reg_d"))
    with pytest.raises(ValueError, match="'reg_other' has output features"):
        Mixture("m", [("reg_d", 1), ("reg_other", 1)])
    more = {"targets": Feature(PassThroughVocabulary(size=77))}
    registered(TaskRegistry, "reg_more", _source(1), output_features=more)
    with pytest.raises(ValueError, match=r"'targets' of task 'reg_more' is written in .*77"):
        Mixture("m", [("reg_d", 1), ("reg_more", 1)])
    with pytest.raises(ValueError, match="has no tasks"):
        Mixture("m", [])


def test_postprocess_is_optional():
    assert Task("t", {}).postprocess(3, example={}, is_target=True) == 3
    task = Task("t", {}, postprocess_fn=lambda value, example, is_target: (value, is_target))
    assert task.postprocess(3, example={}, is_target=True) == (3, True)


def test_validation_names_task_and_feature():
    features = {"targets": TOKENS, "extra": Feature(TOKENS.vocabulary, required=False)}
    checked = validate_features({"targets": np.array([1, 2], np.int64), "id": "x"}, features, "t")
    assert checked["targets"].dtype == np.int32
    assert checked["id"] == "x"
    with pytest.raises(ValueError, match="task 't' is missing the output feature 'targets'"):
        validate_features({}, features, "t")
    with pytest.raises(ValueError, match="'targets' after preprocessing has incorrect type"):
        validate_features({"targets": np.array([0.5])}, features, "t")
    with pytest.raises(ValueError, match="incorrect type"):
        validate_features({"targets": np.array([2**40])}, features, "t")
    with pytest.raises(ValueError, match=r"incorrect rank: got 2 \(shape \(1, 1\)\), expected 1"):
        validate_features({"targets": np.array([[1]])}, features, "t")


def test_trim():
    example = {"a": np.ones((4, 5)), "b": np.ones(3), "c": np.ones(9)}
    trimmed = trim_features(example, {"a": (2, 3), "b": None, "c": 2}, ["a", "b"])
    assert {name: value.shape for name, value in trimmed.items()} == {
        "a": (2, 3),
        "b": (3,),
        "c": (9,),
    }
    assert trim_features(example, None, ["a"]) is example


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        __import__("t5x.data").data.nothing  # noqa: B018
