"""Every benchmark runs at a tiny size and reports whole rows; the figures mean nothing."""

import json
import math

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import harness, plain_tokenizer, report
from mt3.vocabularies import VocabularyConfig, build_codec
from musax.events.indexed import encode_and_index_events
from musax.events.spec import NOTES_WITH_TIES
from tests.cases import slow_but


@pytest.mark.parametrize("name", slow_but(["tokenisation"], {name: name for name in command.NAMES}))
def test_benchmark_reports_figures_of_both_sides(name):
    (rows,) = command.run([name], tiny=True).values()
    assert isinstance(rows, list)
    assert rows
    for row in rows:
        assert row.case
        assert row.measure
        assert math.isfinite(row.figure)
        assert row.figure > 0
    assert len(report.make_table(rows).rows) == len(rows)
    assert f"<!-- begin {name} -->" in report.README.read_text()


def test_command_writes_json_and_prints_a_line_for_each_row(tmp_path, capsys):
    path = tmp_path / "deeper" / "benchmarks.json"
    command.main(["tokenisation", "--tiny", "--json", str(path)])
    written = json.loads(path.read_text())["benchmarks"]["tokenisation"]
    assert len(written) == 3
    assert {"case", "measure", "figure", "goal", "goal_met", "upstream"} <= set(written[0])
    printed = capsys.readouterr().out
    assert all(row["case"].split()[0] in printed for row in written)


def test_unknown_benchmark_is_named(capsys):
    with pytest.raises(SystemExit):
        command.main(["tokenization"])
    assert "tokenization" in capsys.readouterr().err


def test_missing_parts_are_reported_and_saved(tmp_path, monkeypatch):
    from benchmarks import log_mel

    def fail(tiny=False):
        raise harness.UnavailableError("no librosa")

    monkeypatch.setattr(log_mel, "measure", fail)
    results = command.run(["log_mel"])
    report.save_json(tmp_path / "b.json", results)
    assert results == {"log_mel": "no librosa"}
    saved = json.loads((tmp_path / "b.json").read_text())
    assert saved["benchmarks"]["log_mel"] == {"unavailable": "no librosa"}
    assert report.to_text(results) == "log_mel: not run, no librosa"


def test_goals_are_bounds_below_or_above():
    assert harness.Row("a", "share of peak", 0.5, goal=0.4).goal_met
    assert not harness.Row("a", "share of peak", 0.5, goal=0.6).goal_met
    assert harness.Row("a", "times upstream", 0.5, goal=0.6, at_most=True).goal_met
    assert harness.Row("a", "share of peak", 0.5).goal_met is None


ROWS = [
    harness.Row("step", "share of peak", 0.321, upstream=0.28, goal=0.45),
    harness.Row("tokens", "tokens per GFLOP", 1234.5, goal=480),
]
TEXT = "prose\n<!-- begin a -->\nold\n<!-- end a -->\n<!-- begin b -->\nkept\n<!-- end b -->\nend\n"


def test_tables_are_written_between_the_markers_of_what_was_run(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    report.write_tables({"a": ROWS, "b": "not here"}, path)
    written = path.read_text()
    assert "| step | share of peak | 0.32 | 0.28 | ≥ 0.45 | MISSED |" in written
    assert "| tokens | tokens per GFLOP | 1,234 |  | ≥ 480 | met |" in written
    assert written.startswith("prose\n<!-- begin a -->\n| Case |")
    assert written.endswith("\n<!-- end a -->\n<!-- begin b -->\nkept\n<!-- end b -->\nend\n")


def test_missing_markers_leave_the_file_alone(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    with pytest.raises(ValueError, match="<!-- begin c -->"):
        report.write_tables({"a": ROWS, "c": ROWS}, path)
    assert path.read_text() == TEXT


def test_time_ratio_is_that_of_the_work():
    def work(rounds):
        return lambda: sum(range(rounds))

    ratio = harness.time_ratio(work(10**5), work(10**4), repeats=5, min_seconds=0.02)
    assert 5 < ratio < 20


def test_tiny_figures_are_not_written(capsys):
    with pytest.raises(SystemExit):
        command.main(["tokenisation", "--tiny", "--write"])
    assert "--write with --tiny" in capsys.readouterr().err


def test_failure_of_a_pinned_process_shows_its_error():
    with pytest.raises(RuntimeError, match="no_such_folder"):
        harness.run_pinned("os:listdir", path="no_such_folder")


def test_plain_indexing_is_the_array_codes():
    codec = build_codec(VocabularyConfig(num_velocity_bins=1))
    notes = plain_tokenizer.random_notes(np.random.default_rng(3), 80, 6.0)
    times = np.arange(0, 6.0, 1 / 125)
    ours = encode_and_index_events(notes, times, codec, NOTES_WITH_TIES)
    events, starts, _, _ = plain_tokenizer.encode_and_index(notes.tolist(), times.tolist(), codec)
    # The array code may end with one unused shift less or more.
    shared = min(len(events), len(ours.events))
    assert shared >= max(len(events), len(ours.events)) - 2
    np.testing.assert_array_equal(events[:shared], ours.events[:shared])
    np.testing.assert_array_equal(starts, ours.event_start_indices[: len(starts)])
