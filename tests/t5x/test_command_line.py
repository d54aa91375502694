"""Flags and start-up that the entry points share."""

import pytest

from t5x import command_line, export, infer, main, train
from t5x import eval as eval_script
from t5x.gin_utils import GinError

ENTRIES = {
    "t5x.train": (train.main, "train"),
    "t5x.eval": (eval_script.main, "evaluate"),
    "t5x.infer": (infer.main, "infer"),
    "t5x.export": (export.main, "save"),
}
FLAGS = [
    "--gin_file",
    "--gin_bindings",
    "--gin_search_paths",
    "--dry_run",
    "--tfds_data_dir",
    "--seqio_additional_cache_dirs",
    "--coordinator_address",
    "--process_count",
    "--process_index",
    "--multiprocess_gpu",
    "--initialization_timeout",
]


@pytest.mark.parametrize("program", ENTRIES)
def test_help_shows_all_flags_and_an_example(program, capsys):
    run, entry = ENTRIES[program]
    with pytest.raises(SystemExit) as exited:
        run(["--help"])
    assert exited.value.code == 0
    printed = capsys.readouterr().out
    assert all(flag in printed for flag in FLAGS)
    assert f"example:\n  python -m {program} " in printed
    assert f".{entry}; its docstring" in printed


def test_nothing_configured_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exited:
        train.main(["--dry_run"])
    assert exited.value.code == 2
    assert "give --gin_file=FILE" in capsys.readouterr().err


def parse(*flags):
    parser = command_line.make_parser(train.train, "t5x.train", None, "")
    return parser.parse_args(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--process_count=2"], "go with --coordinator_address"),
        (
            ["--coordinator_address=localhost:1", "--process_count=2", "--process_index=2"],
            "processes are counted from 0",
        ),
    ],
)
def test_process_flags_that_do_not_fit(flags, message):
    with pytest.raises(GinError, match=message):
        command_line.start_processes(parse(*flags))


@pytest.mark.parametrize("flag", ["--multiprocess_gpu", "--coordinator_address=localhost:1"])
def test_without_a_cluster_the_flags_say_where_the_others_are(flag, monkeypatch):
    def initialize(*args, **kwargs):
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    with pytest.raises(GinError, match=r"must be defined.*give --coordinator_address"):
        command_line.start_processes(parse(flag))


def test_one_process_needs_no_flags():
    command_line.start_processes(parse())
    command_line.set_seqio_folders(parse())


def test_folders_of_seqio_without_seqio(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "seqio", None)
    with pytest.raises(GinError, match="extra `seqio`"):
        command_line.set_seqio_folders(parse("--tfds_data_dir=data"))


@pytest.mark.parametrize("mode", ["train", "eval", "infer", "export"])
def test_main_hands_over_to_the_entry_point(mode, capsys):
    with pytest.raises(SystemExit):
        main.main([f"--run_mode={mode}", "--help"])
    assert f"usage: python -m t5x.{mode} " in capsys.readouterr().out


def test_another_command_may_name_itself(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"], command="musax train", example="musax train --dry_run")
    text = capsys.readouterr().out
    assert text.startswith("usage: musax train ")
    assert "python -m" not in text


def test_main_says_what_to_use_for_what_is_left_out(capsys):
    with pytest.raises(SystemExit):
        main.main(["--run_mode=precompile"])
    assert "--run_mode=train --dry_run" in capsys.readouterr().err
