import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.tables import FORMATS, Report, Table, format_value

ROWS = [
    {"system": "mt3|tiny", "notes": 1234, "F1": 0.5, "interval": (0.25, 0.75)},
    {"system": "cqt", "notes": 7, "F1": math.nan},
]
TABLE = Table("Scores", ROWS, {"F1": ".2f", "interval": ".1f"})


def test_text_is_aligned():
    assert TABLE.to_text().splitlines() == [
        "Scores",
        "system    notes    F1    interval",
        "--------  -----  ----  ----------",
        "mt3|tiny  1,234  0.50  0.2 to 0.8",
        "cqt           7     -           -",
    ]


def test_markdown_escapes_bars():
    assert TABLE.to_markdown().splitlines() == [
        "**Scores**",
        "",
        "| system | notes | F1 | interval |",
        "| --- | ---: | ---: | ---: |",
        "| mt3\\|tiny | 1,234 | 0.50 | 0.2 to 0.8 |",
        "| cqt | 7 | - | - |",
    ]


def test_reports_are_saved_by_suffix(tmp_path):
    report = Report([Table("a", ROWS[:1]), Table("", [{"x": np.float32(2)}])])
    for suffix, kind in ((".txt", "text"), (".md", "markdown"), (".json", "json")):
        path = tmp_path / "new" / f"scores{suffix}"
        report.save(path)
        assert path.read_text() == report.render(kind) + "\n"
    assert json.loads(report.render("json"))[1] == {"title": "", "rows": [{"x": 2.0}]}
    assert json.loads(Report([TABLE], {"all": np.arange(2)}).render("json")) == {"all": [0, 1]}
    with pytest.raises(ValueError, match=r"suffix '\.csv', expected one of \.json"):
        report.save(tmp_path / "scores.csv")
    with pytest.raises(ValueError, match="format 'html': expected one of text"):
        report.render("html")


def test_values():
    assert format_value(None) == format_value(float("nan"), ".2f") == "-"
    assert format_value(0.0123, lambda x: f"{1000 * x:.1f} ms") == "12.3 ms"
    values = (1000, np.int64(1000), 0.5, np.float32(0.5), np.float32("nan"), "a", True)
    assert [format_value(x) for x in values] == [
        *("1,000", "1,000", "0.5000", "0.5000", "-", "a", "yes"),
    ]


CELLS = st.one_of(st.none(), st.integers(), st.floats(), st.sampled_from(["", "a", "b c", "|"]))
TABLES = st.lists(
    st.dictionaries(st.sampled_from("xyz"), CELLS, min_size=1), min_size=1, max_size=4
).map(lambda rows: Table("t", rows))


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_every_table_has_a_line_for_each_row(table):
    header, rule, *lines = table.to_text().split("\n")[1:]
    assert len(lines) == len(table.rows)
    assert max(map(len, (header, rule, *lines))) == len(rule)
    marked = table.to_markdown().splitlines()[2:]
    assert len(marked) == len(table.rows) + 2
    assert {line.replace("\\|", "").count("|") for line in marked} == {len(table.columns) + 1}
    assert all(Report([table]).render(kind) for kind in FORMATS)
