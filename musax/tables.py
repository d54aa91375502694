"""Tables of results: aligned text for a terminal, Markdown, JSON.

    table = Table("Onsets", [{"system": "mt3-piano-tiny", "F1": 0.912}], {"F1": ".3f"})
    print(table.to_text())
    Report([table]).save("scores.md")

Lines of text are never wrapped, so they can be piped to other programs.
"""

import csv
import dataclasses
import io
import json
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: How a column is written: a format specification, or a function from a value to text.
Format = str | Callable[[Any], str]

#: Ways in which a `Report` is printed.
FORMATS = ("text", "markdown", "json")
_KINDS = {".json": "json", ".md": "markdown", ".txt": "text"}
#: Suffixes of files that `Report.save` writes.
SUFFIXES = tuple(_KINDS)

_NONE = "-"


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of values with named columns.

    Attributes:
      title: one line above the table; "" for none.
      rows: values by column. Columns are those of all rows, in the order in which they first occur.
        None, NaN and absent values are written "-"; tuples as an interval, "low to high".
      formats: by column; by default text as it is, whole numbers with commas, others ".4f".
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    formats: Mapping[str, Format] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def cells(self) -> list[list[str]]:
        """Return the header and the rows as text."""
        names = self.columns
        formats = [self.formats.get(name) for name in names]
        body = [[format_value(row.get(n), f) for n, f in zip(names, formats)] for row in self.rows]
        return [names, *body]

    def _is_text(self, column: str) -> bool:
        """Return whether a column is aligned to the left: it has text in it."""
        return any(isinstance(row.get(column), str) for row in self.rows)

    def to_text(self) -> str:
        """Return the table as lines of aligned columns, a rule below the header."""
        cells = self.cells()
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        align = [str.ljust if self._is_text(name) else str.rjust for name in self.columns]
        cells.insert(1, ["-" * width for width in widths])
        lines = ("  ".join(a(c, w) for c, a, w in zip(row, align, widths)) for row in cells)
        return "\n".join([*filter(None, [self.title]), *(line.rstrip() for line in lines)])

    def to_markdown(self) -> str:
        """Return the table as Markdown, its title in bold."""
        header, *body = ([cell.replace("|", "\\|") for cell in row] for row in self.cells())
        rule = ["---" if self._is_text(name) else "---:" for name in self.columns]
        table = "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))
        return f"**{self.title}**\n\n{table}" if self.title else table

    def to_csv(self) -> str:
        """Return the rows as CSV below their header, values as they are."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Return the title and the rows, values as they are."""
        return {"title": self.title, "rows": [dict(row) for row in self.rows]}


@dataclasses.dataclass(frozen=True)
class Report:
    """Tables, and all numbers behind them.

    Attributes:
      tables: the printed ones.
      data: what JSON holds; None for the rows of the tables.
    """

    tables: Sequence[Table]
    data: Any = None

    @classmethod
    def joined(cls, reports: Sequence["Report"]) -> "Report":
        """Return the tables of reports one after the other; their data, mappings, become one."""
        data = {key: value for report in reports for key, value in report.data.items()}
        return cls([table for report in reports for table in report.tables], data)

    def render(self, kind: str = "text") -> str:
        """Return the report as one of `FORMATS`.

        Raises:
          ValueError: another format.
        """
        if kind == "text":
            return "\n\n".join(table.to_text() for table in self.tables)
        if kind == "markdown":
            return "\n\n".join(table.to_markdown() for table in self.tables)
        if kind == "json":
            from t5x.files import ArrayEncoder

            return json.dumps(self._data(), cls=ArrayEncoder, indent=2, ensure_ascii=False)
        raise ValueError(f"format {kind!r}: expected one of {', '.join(FORMATS)}")

    def _data(self) -> Any:
        return [table.to_json() for table in self.tables] if self.data is None else self.data

    def save(self, path: str | os.PathLike) -> None:
        """Write .json, .md or .txt by the suffix, complete or not at all; makes the folder.

        Raises:
          ValueError: another suffix.
          OSError: the file cannot be written.
        """
        from t5x.files import write_text

        text = self.render(_KINDS[check_suffix(path)])
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text + "\n")


def check_suffix(path: str | os.PathLike) -> str:
    """Return the suffix of a file that `Report.save` writes.

    Raises:
      ValueError: it is none of `SUFFIXES`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: suffix {suffix!r}, expected one of {', '.join(SUFFIXES)}")
    return suffix


def format_value(value: Any, how: Format | None = None) -> str:
    """Return a value as the text of a cell; see `Table`."""
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return _NONE
    if callable(how):
        return how(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " to ".join(format_value(x, how) for x in value)
    if not isinstance(value, numbers.Real):
        return str(value)
    return format(value, how or ("," if isinstance(value, numbers.Integral) else ".4f"))
