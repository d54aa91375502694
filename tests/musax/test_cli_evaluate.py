"""Command lines of `musax evaluate` that are wrong, and the choices that it repeats."""

import pytest

from cdcd.translation.mbr import UTILITIES
from drums.vocabularies import LEVELS
from mt3.prediction import DECODES
from musax import cli
from musax.commands.evaluate import TASKS, compose, drums, pronounce, score, transcribe
from musax.datasets import pieces
from musax.events.spec import GRANULARITIES
from musax.tables import FORMATS
from perceiver_ar.evaluation import BUCKETS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "TASK"),
        (["listen"], "invalid choice: 'listen'"),
        (["transcribe"], "no recordings: give --folder NAME=DIR"),
        (["transcribe", "--folder", "here"], "'here': expected NAME=VALUE"),
        (["transcribe", "--rendered", "a=b"], "--pop909"),
        (["transcribe", "--bands", "a=b"], "--lakh64"),
        (["transcribe", "--folder", "a=nowhere"], "nowhere: no such folder"),
        (["transcribe", "--folder", "a=.", "--model", "drums-small"], "transcribe needs one of"),
        (["transcribe", "--folder", "a=.", "-o", "x.csv"], "suffix '.csv', expected one of .json"),
        (["transcribe", "--folder", "a=.", "-o", "none/x.md"], "no folder that can be written to"),
        (["drums"], "no recordings: give --takes NAME=DIR"),
        (["score", "--model", "cdcd-melody"], "give its data with --data"),
        (["score", "--model", "cdcd-text", "--data", ".", "--stride", "4"], "--stride: an option"),
        (["score", "--model=cdcd-text", "--model=perceiver_ar-pop909"], "models of several"),
        (["pronounce", "--model", "."], "no config.gin"),
    ],
)
def test_wrong_command_lines_have_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(["evaluate", *arguments])
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_choices_are_those_of_the_packages():
    assert {x.replace("-", "_") for x in transcribe.GRANULARITIES} == set(GRANULARITIES)
    assert {x.replace("-", "_") for x in transcribe.DECODES} == set(DECODES)
    assert drums.LEVELS == LEVELS
    assert set(pronounce.UTILITIES) == set(UTILITIES)
    assert set(score.BUCKETS) == set(BUCKETS)
    assert all(callable(getattr(pieces, name)) for name in score.CORPORA)
    assert len({module.NAME for module in (*TASKS, compose)}) == len(TASKS)
    assert FORMATS == ("text", "markdown", "json")


def test_help_of_every_task(capsys):
    for module in TASKS:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["evaluate", module.NAME, "--help"])
        assert exit_.value.code == 0
        assert "examples:" in capsys.readouterr().out
