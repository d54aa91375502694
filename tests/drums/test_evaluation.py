import json

import numpy as np
import pytest

from drums import evaluation
from drums.evaluation import System
from drums.vocabularies import map_notes
from musax import cli
from musax.notes import make_notes
from t5x.data.records import write_array_record
from tests.musax.datasets.test_mdb_drums import write as write_mdb

ONSETS = 0.1 * np.arange(1, 9)
HITS = make_notes(ONSETS, ONSETS + 0.05, [36, 42, 38, 42] * 2, 10 * np.arange(4, 12), 0, True)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder of prepared takes, and one of MDB Drums whose only track has three hits."""
    takes = tmp_path_factory.mktemp("takes")
    take = {name: HITS[name] for name in HITS.dtype.names}
    take |= {"audio": np.zeros(44100, np.int16), "sample_rate": np.int64(44100)}
    write_array_record(takes / "test-00000-of-00001.array_record", [take] * 2)
    return takes, write_mdb(tmp_path_factory.mktemp("mdb"))


def hearing(notes, velocity=None, **options):
    """A system that hears the same notes in everything."""

    def transcribe(audio, rate, level):
        found = map_notes(notes, level)
        if velocity is not None:
            found["velocity"] = velocity
        return found

    return System(f"velocity {velocity}", transcribe, **options)


def test_takes_are_scored_with_their_velocities(places):
    seen = []
    report = evaluation.evaluate(
        {"mine": str(places[0])},
        [hearing(HITS), hearing(HITS, 80, velocities_only=True)],
        level="5",
        classes=True,
        progress=lambda *done: seen.append(done),
    )
    right, constant = report.data["mine"].values()
    assert right["onset F1 micro"] == constant["onset F1 micro"] == 1.0
    assert right["absolute velocity F1 macro"] == 1.0 > constant["absolute velocity F1 macro"]
    assert seen[-1][1:] == (2, 2)
    overall, by_class = report.tables
    assert overall.rows[0]["timing MAE"] == 0.0
    assert "0.0 ms" in overall.to_text()
    assert sorted(row["hits"] for row in by_class.rows) == [0, 0, 4, 4, 8]


def test_mdb_is_scored_by_kinds_of_hits(places):
    three = make_notes([0.1, 0.1, 0.3], [0.2, 0.2, 0.4], [36, 42, 37], 100, 0, True)
    report = evaluation.evaluate(
        {}, [hearing(three), hearing(three[:2], 80, velocities_only=True)], mdb=str(places[1])
    )
    (scores,) = report.data[evaluation.MDB_NAME].values()
    assert scores["any onset F1 macro"] == scores["any hit F1 macro"] == 1.0
    assert scores["3-hit F1 macro"] == scores["5 F1 micro"] == 1.0
    # The classes call the side stick another sound, which a level takes for a snare.
    assert scores["kick, snare, hi-hat F1 micro"] == pytest.approx(0.8)


def test_command_scores_models(places, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "load_systems", lambda name, threshold: [hearing(HITS)])
    path = tmp_path / "scores.json"
    arguments = ["evaluate", "drums", "--takes", f"mine={places[0]}", "--limit", "1"]
    assert cli.main([*arguments, "--level", "3-hit", "--classes", "-o", str(path)]) == 0
    assert json.loads(path.read_text())["mine"]["velocity None"]["onset F1 macro"] == 1.0
    assert "mine (classes 3-hit)" in capsys.readouterr().out
    assert cli.main([*arguments, "--model", "mt3-piano-tiny"]) == 2
    assert "drums needs one of: drums-small" in capsys.readouterr().err
