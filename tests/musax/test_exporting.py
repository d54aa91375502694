"""What the packages' `export` modules share; they themselves are tested with their packages."""

import functools

import pytest

from musax.exporting import export_trained, run_export


def test_arguments_reach_the_function_by_name(tmp_path, capsys):
    (tmp_path / "card.md").write_text("# Ça va\n", encoding="utf-8")
    got = {}

    def export(**options):
        got.update(options)
        return options["out_dir"]

    run_export(export, "Help.", None, ["run", "models/mine"])
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


def test_mistakes_are_one_line():
    def export(**options):
        raise FileNotFoundError("run: no checkpoint; there are []")

    with pytest.raises(SystemExit, match="export: run: no checkpoint"):
        run_export(export, "Help.", None, ["run", "out"])
    with pytest.raises(SystemExit, match=r"export: .*missing\.md"):
        run_export(export, "Help.", None, ["run", "out", "--card", "missing.md"])


def test_a_type_that_there_is_not():
    export = functools.partial(export_trained, lambda run_dir, step: pytest.fail("was read"))
    with pytest.raises(SystemExit, match="export: dtype='float33': expected such as float32"):
        run_export(export, "Help.", None, ["run", "out", "--dtype", "float33"])
