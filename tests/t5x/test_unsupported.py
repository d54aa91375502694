"""Names of upstream that are not here: every one is explained, in the code and in the guide."""

import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import gin
import pytest

import t5x
from t5x import gin_utils, train
from t5x.unsupported import TABLE, UNSUPPORTED, explanation

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "t5x.md"


#: Names that exist, and raise when they are called.
CALLABLE = ("t5x.partitioning.ModelBasedPjitPartitioner", "t5x.optimizers.amos")


@pytest.mark.parametrize("module", sorted({name.rpartition(".")[0] for name in UNSUPPORTED}))
def test_names_are_explained(module):
    found = importlib.import_module(module)
    names = [n.rpartition(".")[2] for n in UNSUPPORTED if n.rpartition(".")[0] == module]
    for name in names:
        full = f"{module}.{name}"
        expected = re.escape(explanation(full))
        if full in CALLABLE:
            with pytest.raises(NotImplementedError, match=expected):
                getattr(found, name)()
            continue
        with pytest.raises(ImportError, match=expected):
            exec(f"from {module} import {name}")
        assert not hasattr(found, name)
        if not module.startswith("t5x.examples."):
            with pytest.raises(AttributeError, match=expected):
                getattr(found, name)


def test_modules_below_missing_ones_are_explained():
    with pytest.raises(ImportError, match=r"t5x\.contrib of upstream's t5x is not here"):
        importlib.import_module("t5x.contrib.moe.partitioning")


def test_what_to_use_instead_exists():
    for names, text in TABLE:
        for name in re.findall(r"`([\w.]+\.\w+)`", text):
            pkgutil.resolve_name(name)
        assert len(names.split()) == len(set(names.split())), names


def test_the_guide_has_the_same_table():
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", GUIDE.read_text().partition("not here")[2], re.M)
    found = [(re.findall(r"`([\w.]+)`", names), text) for names, text in rows]
    header = (["t5x."], "use instead")
    assert [row for row in found if row != header] == [(n.split(), text) for n, text in TABLE]


def test_other_names_have_pythons_own_errors():
    with pytest.raises(ImportError, match=r"cannot import name 'absent' from 't5x\.utils'"):
        exec("from t5x.utils import absent")
    with pytest.raises(ImportError, match=r"cannot import name 'absent' from 't5x'"):
        exec("from t5x import absent")
    with pytest.raises(AttributeError, match=r"module 't5x\.models' has no attribute 'absent'"):
        _ = importlib.import_module("t5x.models").absent
    with pytest.raises(ModuleNotFoundError, match=r"No module named 't5x\.absent'"):
        importlib.import_module("t5x.absent")
    assert importlib.util.find_spec("t5x.absent") is None


def test_submodules_are_attributes_of_the_package():
    assert t5x.state_utils is importlib.import_module("t5x.state_utils")  # type: ignore
    assert t5x.sampling is importlib.import_module("t5x.decoding.sampling")  # type: ignore
    assert not hasattr(t5x, "absent")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("utils.get_infer_fn.x = 1", "t5x.utils.get_infer_fn"),
        ("from t5x.contrib.moe import models", "t5x.contrib"),
    ],
)
def test_gin_files_are_told_too(tmp_path, line, name):
    text = "from __gin__ import dynamic_registration\nfrom t5x import utils\n" + line
    (tmp_path / "run.gin").write_text(text)
    try:
        with pytest.raises(gin_utils.GinError, match=re.escape(explanation(name))):
            gin_utils.parse(["run.gin"], [], [tmp_path], train.train)
    finally:
        gin.clear_config()
        gin.config._LOCATION_PREFIXES[:] = [""]
