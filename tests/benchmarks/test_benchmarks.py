"""Every benchmark runs at a tiny size and reports whole rows; the figures mean nothing."""

import json
import math

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import harness, plain_tokenizer
from mt3.vocabularies import VocabularyConfig, build_codec
from musax.events.indexed import encode_and_index_events
from musax.events.spec import NOTES_WITH_TIES
from tests.cases import slow_but


@pytest.mark.parametrize("name", slow_but(["tokenisation"], {name: name for name in command.NAMES}))
def test_benchmark_reports_figures_of_both_sides(name):
    (rows,) = command.run([name], tiny=True).values()
    assert rows
    for row in rows:
        assert row.case
        assert row.reference_name
        assert row.unit
        assert math.isfinite(row.ratio)
        assert min(row.ours, row.reference) > 0
    assert len(command.make_table({name: rows}).rows) == len(rows)


def test_command_writes_json_and_prints_a_line_for_each_row(tmp_path, capsys):
    path = tmp_path / "deeper" / "benchmarks.json"
    command.main(["tokenisation", "--tiny", "--json", str(path)])
    written = json.loads(path.read_text())["benchmarks"]["tokenisation"]
    assert len(written) == 3
    assert {"case", "ours", "reference", "ratio", "goal_met", "unit"} <= set(written[0])
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
    harness.save_rows(tmp_path / "b.json", results)
    assert results == {"log_mel": "no librosa"}
    saved = json.loads((tmp_path / "b.json").read_text())
    assert saved["benchmarks"]["log_mel"] == {"unavailable": "no librosa"}
    assert command.make_table(results).rows == [
        {"Benchmark": "log_mel", "Case": "not run: no librosa"}
    ]


def test_ratio_and_goal_follow_the_direction():
    faster = harness.Row("a", "s / CPU s", 30.0, 10.0, "b", goal=2.0)
    assert (faster.ratio, faster.goal_met) == (3.0, True)
    shorter = harness.Row("a", "CPU s", 5.0, 4.0, "b", higher_is_better=False, goal=6.0)
    assert (shorter.ratio, shorter.goal_met) == (0.8, False)
    absolute = harness.Row(
        "a", "CPU s", 5.0, 4.0, "b", higher_is_better=False, goal=6.0, goal_is_ratio=False
    )
    assert absolute.goal_met
    assert harness.Row("a", "s", 1.0, 1.0, "b").goal_met is None


def test_cpu_seconds_grow_with_the_work():
    def work(rounds):
        return lambda: sum(range(rounds))

    short, long = (harness.cpu_seconds(work(n), repeats=3) for n in (10**4, 10**6))
    assert long > 10 * short


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
