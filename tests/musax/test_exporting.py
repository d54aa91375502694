"""What the packages' `export` modules share; they themselves are tested with their packages."""

import functools

import gin
import pytest

from musax import cli
from musax.exporting import export_run, package_of_run, run_export


def test_arguments_reach_the_function_by_name(tmp_path, capsys):
    (tmp_path / "card.md").write_text("# Ça va\n", encoding="utf-8")
    got = {}

    def export(**options):
        got.update(options)
        return options["out_dir"]

    assert run_export(export, "Help.", None, ["run", "models/mine"]) == 0
    assert got == {
        "run_dir": "run",
        "out_dir": "models/mine",
        "card": "# mine\n",
        "step": None,
        "dtype": "float32",
    }
    assert capsys.readouterr().out == "models/mine\n"

    def add(parser):
        parser.add_argument("--takes", type=int)

    options = ["--card", str(tmp_path / "card.md"), "--step", "7", "--dtype", "float16"]
    run_export(export, "Help.", add, ["run", "models/mine", *options, "--takes", "3"])
    assert (got["card"], got["step"], got["dtype"], got["takes"]) == ("# Ça va\n", 7, "float16", 3)


def test_mistakes_are_one_line(capsys):
    def export(**options):
        raise FileNotFoundError("run: no checkpoint; there are []")

    assert run_export(export, "Help.", None, ["run", "out"]) == 2
    assert run_export(export, "Help.", None, ["run", "out", "--card", "missing.md"]) == 2
    unread = functools.partial(export_run, lambda run_dir, step: pytest.fail("was read"))
    assert run_export(unread, "Help.", None, ["run", "out", "--dtype", "float33"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "export: error: run: no checkpoint; there are []"
    assert "missing.md" in lines[1]
    assert lines[2] == "export: error: dtype='float33': expected such as float32 or bfloat16"


@pytest.fixture
def _clear_gin(monkeypatch):
    """Forget the configuration, and names that two packages have, such as `network.T5Config`."""
    for registry in ("_REGISTRY", "_INVERSE_REGISTRY"):
        monkeypatch.setattr(gin.config, registry, getattr(gin.config, registry).copy())
    yield
    gin.clear_config()


@pytest.mark.usefixtures("_clear_gin")
@pytest.mark.parametrize(
    ("package", "config"),
    [
        ("mt3", "configs/mt3/tiny_piano.gin"),
        ("drums", "configs/drums/small.gin"),
        ("perceiver_ar", "configs/perceiver_ar/pop909_decoder.gin"),
        ("cdcd", "configs/cdcd/melody.gin"),
    ],
)
def test_the_package_of_a_run_is_that_of_its_model(package, config, tmp_path):
    macros = "".join(f"{name} = '.'\n" for name in ("DATA_DIR", "MODEL_DIR"))
    (tmp_path / "config.gin").write_text(f"include '{config}'\n{macros}")
    assert package_of_run(tmp_path) == package


@pytest.mark.usefixtures("_clear_gin")
def test_a_run_that_cannot_be_exported_is_named(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert f"{tmp_path}/config.gin" in capsys.readouterr().err
    (tmp_path / "config.gin").write_text(
        "from __gin__ import dynamic_registration\nimport t5x.metrics\nMODEL = @t5x.metrics.Sum()"
    )
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "MODEL is t5x.metrics.Sum" in line
    assert "cdcd, drums, mt3, perceiver_ar" in line
    assert not (tmp_path / "out").exists()


def test_help_needs_no_run(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "--help"])
    assert stop.value.code == 0
    assert "RUN_DIR" in capsys.readouterr().out
