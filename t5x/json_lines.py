"""JSON lines of arrays and text, written whole or not at all."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


class ArrayEncoder(json.JSONEncoder):
    """Arrays and NumPy numbers as lists and numbers, bytes as text."""

    def default(self, o: Any) -> Any:
        if isinstance(o, bytes):
            return o.decode("utf-8", errors="replace")
        if isinstance(o, np.generic | np.ndarray) or hasattr(o, "__array__"):
            array = np.asarray(o)
            if array.dtype.kind not in "biufSUO":  # bfloat16 and its like
                array = array.astype(np.float32)
            return array.tolist()
        if isinstance(o, set | frozenset):
            return sorted(o)
        return super().default(o)


class BriefArrayEncoder(ArrayEncoder):
    """As `ArrayEncoder`, but an array of more than 1024 numbers gives its type and shape only."""

    def default(self, o: Any) -> Any:
        if hasattr(o, "shape") and hasattr(o, "dtype") and np.prod(o.shape) > 1024:
            return f"{o.dtype}{list(o.shape)}"
        return super().default(o)


def write_json_lines(
    path: str | os.PathLike[str],
    lines: Iterable[Mapping[str, Any]],
    encoder: type[json.JSONEncoder] = ArrayEncoder,
) -> int:
    """Writes one JSON object a line, through a temporary file; returns how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line, cls=encoder, ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes one JSON value, indented, through a temporary file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    text = json.dumps(value, cls=ArrayEncoder, indent=2, ensure_ascii=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All lines of a file.

    Raises:
      ValueError: naming the file and line that is not JSON.
    """
    values = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not a line of JSON ({error})") from error
    return values
