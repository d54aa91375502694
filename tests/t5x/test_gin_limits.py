"""The configuration of another's run: no code of theirs, no file outside its folder."""

import sys

import gin
import pytest

from musax import cli
from musax.spectrograms import SpectrogramConfig
from musax.trust import read_macros
from t5x import gin_limits, run_config

DYNAMIC = "from __gin__ import dynamic_registration\n"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    for registry in ("_REGISTRY", "_INVERSE_REGISTRY"):
        monkeypatch.setattr(gin.config, registry, getattr(gin.config, registry).copy())
    yield
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run folder, beside which lies a module that leaves a trace when it is imported."""
    trace = tmp_path / "trace"
    for name in ("evil.py", "evilpackage/__init__.py"):
        path = tmp_path / "modules" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"open({str(trace)!r}, 'w').close()\ndef task(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder = tmp_path / "run"
    folder.mkdir()
    yield folder
    for name in ("evil", "evilpackage"):
        sys.modules.pop(name, None)


ATTACKS = {
    "import": "import evil\nMODEL = @evil.task()",
    "import os": "import os\nMODEL = @os.system()\nos.system.command = 'touch {trace}'",
    "from": "from os import path\nMODEL = 1",
    "alias": "import subprocess as t5x\nMODEL = @t5x.call()",
    "attribute": "from t5x import utils\nMODEL = @utils.importlib.import_module()\n"
    "utils.importlib.import_module.name = 'evil'",
    "module of ours": "from t5x import command_line\nMODEL = @command_line.argparse._os.system()",
    "gin": "from t5x import gin_utils\nMODEL = @gin_utils.gin.parse_config()\n"
    "gin_utils.gin.parse_config.bindings = 'import evil'",
    "import by a function": "from t5x import utils\nMODEL = @utils.import_module()\n"
    "utils.import_module.module = 'evil'",
    "import by a dataset": "from t5x import utils\nMODEL = @utils.DatasetConfig()\n"
    "utils.DatasetConfig:\n  mixture_or_task_name = 'x'\n  task_feature_lengths = None\n"
    "  split = 'train'\n  batch_size = 1\n  shuffle = False\n  module = 'evil'",
    "write": "from t5x import files\nMODEL = @files.write_text()\n"
    "files.write_text.path = '{trace}'\nfiles.write_text.text = 'x'",
    "write further on": "from t5x import files\nfrom t5x import optimizers\n"
    "A = @files.write_text()\nB = %A\nMODEL = @optimizers.chain()\n"
    "optimizers.chain.transformations = [{{'a': (%B,)}}]\n"
    "files.write_text.path = '{trace}'\nfiles.write_text.text = 'x'",
    "write in a scope": "from t5x import files\nfrom t5x.examples.t5 import network\n"
    "MODEL = @x/network.T5Config()\nx/network.T5Config.vocab_size = @files.write_text()\n"
    "files.write_text.path = '{trace}'\nfiles.write_text.text = 'x'",
    "train": "from t5x import train\nMODEL = @train.main()\n",
    "main": "import __main__ as script\nMODEL = @script.main()",
    "program": "import musax.__main__\nMODEL = 1",
    "builtins": "from t5x.examples.t5 import network\nMODEL = @network.T5Config.__class__()",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_code_of_a_strangers_configuration_runs(attack, run_dir, tmp_path):
    trace = tmp_path / "trace"
    (run_dir / "config.gin").write_text(DYNAMIC + attack.format(trace=trace))
    with pytest.raises(ValueError, match=r"config.gin: .* read it with --trust") as error:
        read_macros(run_dir, "MODEL")
    assert "evil" not in sys.modules
    assert not trace.exists()
    assert "\n" not in str(error.value)


def test_what_our_modules_import_counts_as_imported(run_dir):
    (run_dir / "config.gin").write_text(DYNAMIC + ATTACKS["attribute"])
    with pytest.raises(ValueError, match=r"config\.gin: imports importlib, which may run any code"):
        read_macros(run_dir, "MODEL")


def test_other_packages_are_allowed_by_the_reader_alone(run_dir):
    text = "from musax import spectrograms\nMODEL = @spectrograms.SpectrogramConfig()"
    (run_dir / "config.gin").write_text(DYNAMIC + text)
    with pytest.raises(
        ValueError, match=r"imports musax\.spectrograms, .* imports t5x, optax only"
    ):
        run_config.read_macros(run_dir, "MODEL")
    gin.clear_config()
    assert read_macros(run_dir, "MODEL") == [SpectrogramConfig()]


def test_without_dynamic_registration_too(run_dir):
    (run_dir / "config.gin").write_text("import evil\nMODEL = 1")
    with pytest.raises(ValueError, match="imports evil"):
        read_macros(run_dir, "MODEL")
    assert "evil" not in sys.modules


def test_a_trusted_run_may_import_what_it_likes(run_dir, capsys):
    (run_dir / "config.gin").write_text(DYNAMIC + "import evil\nMODEL = @evil.task()")
    command = ["export", str(run_dir), str(run_dir / "out")]
    assert cli.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.gin: imports evil" in line
    assert cli.main([*command, "--trust"]) == 2  # it is read, and is no model
    assert "MODEL is builtins.int" in capsys.readouterr().err
    with gin_limits.trusting():
        assert read_macros(run_dir, "MODEL") == [1]
    with pytest.raises(ValueError, match="imports evil"):
        read_macros(run_dir, "MODEL")


def test_values_that_cannot_be_made_are_one_line(run_dir):
    network = DYNAMIC + "from t5x.examples.t5 import network\n"
    for text, message in (
        ("MODEL = %MODEL", "MODEL refers to itself"),
        (network + "MODEL = @network.T5Config()", "missing .* 'vocab_size'|cannot be made"),
    ):
        (run_dir / "config.gin").write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            read_macros(run_dir, "MODEL")
        assert "\n" not in str(error.value)
        gin.clear_config()


def test_files_outside_the_folder_are_not_included(run_dir, tmp_path):
    (tmp_path / "secret.gin").write_text("MODEL = 'secret'")
    (run_dir / "part.gin").write_text("MODEL = 3")
    (run_dir / "link.gin").symlink_to(tmp_path / "secret.gin")
    for name in ("../secret.gin", f"{tmp_path}/secret.gin", "link.gin"):
        (run_dir / "config.gin").write_text(f"include '{name}'")
        with pytest.raises(ValueError, match=r"config.gin: includes .*, outside its folder"):
            read_macros(run_dir, "MODEL")
    (run_dir / "config.gin").write_text("include 'evilpackage.deeper/x.gin'\nMODEL = 1")
    with pytest.raises(ValueError, match="Unable to open file"):
        read_macros(run_dir, "MODEL")
    assert "evilpackage" not in sys.modules
    (run_dir / "config.gin").write_text("include 'part.gin'\nUNUSED = 1")
    assert read_macros(run_dir, "MODEL") == [3]
