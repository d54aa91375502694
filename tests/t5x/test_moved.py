"""Names of earlier versions: modules that moved, and every gin file that names modules."""

import copy
import importlib
import json
import subprocess
import sys
from pathlib import Path

import gin
import pytest

import t5x.eval
import t5x.export
import t5x.infer
from t5x import decoding, gin_utils, models, train
from t5x.examples.shakespeare import fill_in
from t5x.moved import MOVED, moved_names, register_moved

ROOT = Path(__file__).resolve().parent.parent.parent
#: Module -> its public names, as they stood before modules moved into folders.
PUBLIC_NAMES = json.loads((Path(__file__).parent / "public_names.json").read_text())
GIN_FILES = [
    file
    for folder in ("configs", "t5x", "tests/t5x", "pretrained")
    for file in sorted((ROOT / folder).rglob("*.gin"))
]

#: How the names of gin files for programs other than `t5x.train` begin.
SCRIPTS = {"eval": t5x.eval, "infer": t5x.infer, "export": t5x.export, "fill_in": fill_in}


@pytest.fixture(autouse=True)
def own_gin():
    """Leave neither a configuration behind nor what files of all kinds have registered."""
    registry, inverse = gin.config._REGISTRY, gin.config._INVERSE_REGISTRY
    before = dict(registry._selector_map), copy.deepcopy(registry._selector_tree), dict(inverse)
    yield
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]
    registry._selector_map, registry._selector_tree = before[:2]
    inverse.clear()
    inverse.update(before[2])


def test_public_names_of_earlier_versions():
    missing = []
    for module, names in PUBLIC_NAMES.items():
        if names:
            found = importlib.import_module(module)
            missing += [f"{module}.{name}" for name in names.split() if not hasattr(found, name)]
    assert not missing


def test_moved_modules_are_the_same_objects():
    for old, new in MOVED.items():
        spec = importlib.import_module(new).__spec__
        assert importlib.import_module(old) is sys.modules[new]
        assert sys.modules[new].__spec__ is spec
        assert spec.name == new


def test_two_places_for_one_name():
    with pytest.raises(ValueError, match=r"'t5x\.flops' moved to 't5x\.training\.flops' already"):
        register_moved({"t5x.flops": "t5x.losses"})


def test_moved_names():
    get = moved_names("some.module", {"sin": "math"})
    assert get("sin")(0) == 0
    with pytest.raises(AttributeError, match=r"module 'some\.module' has no attribute 'cos'"):
        get("cos")


def test_old_modules_are_not_imported_with_the_package():
    code = "import sys, t5x; sys.exit(any(name.startswith('t5x.d') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("file", GIN_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_gin_files_parse(file):
    if "seqio" in file.name:
        pytest.importorskip("seqio")
    gin.clear_config()
    main = next((m for name, m in SCRIPTS.items() if file.name.startswith(name)), train)
    with gin_utils._standing_for_main(main):
        gin_utils._read([ROOT, ROOT / "t5x" / "configs"], [file], [], main)


SAVED = """
from __gin__ import dynamic_registration
import t5x.{decode_module}
from t5x import base_models
from t5x import decoding
from t5x import models
from t5x import train
import t5x.decoder_only_model

MODEL = @models.EncoderDecoderModel()
decoding.temperature_sample.topk = 3
models.EncoderDecoderModel.decode_fn = @{decode_module}.beam_search
base_models.DecoderParams.num_decodes = 2
t5x.decoder_only_model.DecoderOnlyModel.label_smoothing = 0.1
train.train.model = %MODEL
"""


@pytest.mark.parametrize("decode_module", ["decoding", "beam_search"])
def test_a_saved_configuration_with_old_modules(tmp_path, decode_module):
    text = SAVED.format(decode_module=decode_module).replace(
        f"@{decode_module}", f"@t5x.{decode_module}"
    )
    (tmp_path / "config.gin").write_text(text)
    gin_utils.parse([tmp_path / "config.gin"], [], [], train.train)
    assert gin.query_parameter("DecoderParams.num_decodes") == 2
    assert gin.query_parameter("DecoderOnlyModel.label_smoothing") == 0.1
    decode_fn = gin.query_parameter("EncoderDecoderModel.decode_fn")
    assert decode_fn.configurable.wrapped is decoding.beam_search
    assert gin.get_configurable(models.DecoderParams)().num_decodes == 2
