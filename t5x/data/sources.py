"""Random-access sources: for each split a sequence with `len()` and `[i]`."""

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from t5x.data.features import Example
from t5x.data.records import deserialize_example


@runtime_checkable
class Source(Protocol):
    """Where a task's raw examples come from."""

    @property
    def splits(self) -> tuple[str, ...]: ...

    def sequence(self, split: str) -> Sequence[Example]:
        """The examples of a split: an object with `len()` and `[i]`, safe to send to a process."""
        ...


def check_split(split: str, splits: Sequence[str], where: str) -> None:
    if split not in splits:
        raise ValueError(f"{where} has no split {split!r}; it has {sorted(splits)}")


class FunctionSource:
    """Examples from Python: {split: sequence} or {split: function that makes the sequence}.

    A function is called at most once, when its split is first asked for.
    """

    def __init__(self, splits: Mapping[str, Sequence[Example] | Callable[[], Sequence[Example]]]):
        self._splits = dict(splits)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        value: Any = self._splits[split]
        if callable(value) and not hasattr(value, "__getitem__"):
            value = value()
            if not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
                raise ValueError(
                    f"split {split!r}: expected a sequence with len() and [i], "
                    f"got {type(value).__name__}"
                )
            self._splits[split] = value
        return value  # type: ignore[return-value]


class _Generated:
    def __init__(self, function, split: str, size: int):
        self._function, self._split, self._size = function, split, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        return self._function(self._split, index)


class GeneratedSource:
    """Examples made when they are read, such as rendered audio: `function(split, index)`.

    `function` must be pure: the same split and index give the same example.
    """

    def __init__(self, function: Callable[[str, int], Example], num_examples: Mapping[str, int]):
        self._function = function
        self._sizes = dict(num_examples)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._sizes)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        return _Generated(self._function, split, self._sizes[split])  # type: ignore[return-value]


def expand_patterns(patterns: str | os.PathLike | Sequence, what: str) -> list[str]:
    """Sorted files that match any of the glob patterns (`**` goes into folders).

    Raises:
      FileNotFoundError: naming the pattern that matches no file.
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = [patterns]
    found: set[str] = set()
    for pattern in patterns:
        pattern = os.path.expanduser(os.fspath(pattern))
        matches = [p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p)]
        if not matches:
            raise FileNotFoundError(f"{what}: no file matches {pattern!r}")
        found.update(matches)
    return sorted(found)


class _ArrayRecords:
    """Opens its files on first use, so that it can be sent to a worker process."""

    def __init__(self, paths: list[str]):
        self._paths = paths
        self._reader = None

    def _open(self):
        if self._reader is None:
            from array_record.python.array_record_data_source import ArrayRecordDataSource

            self._reader = ArrayRecordDataSource(self._paths)
        return self._reader

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, index: int) -> Example:
        return deserialize_example(self._open()[index])

    def __getstate__(self):
        return {"_paths": self._paths, "_reader": None}


class ArrayRecordSource:
    """{split: file pattern or patterns} of ArrayRecord files written by `records`."""

    def __init__(self, patterns: Mapping[str, str | os.PathLike | Sequence]):
        self._patterns = dict(patterns)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        paths = expand_patterns(self._patterns[split], f"split {split!r}")
        return _ArrayRecords(paths)  # type: ignore[return-value]


class _Files:
    def __init__(self, paths: list[str], read: Callable[[Path], Example]):
        self._paths, self._read = paths, read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        return self._read(Path(self._paths[index]))


def _path_example(path: Path) -> Example:
    return {"path": str(path)}  # type: ignore[dict-item]


class FileSource:
    """One example a file: {split: folder, pattern or patterns}, in sorted order.

    Args:
      patterns: for each split glob patterns; a folder means every file below it.
      read: makes the example of a path; by default {"path": str}.
    """

    def __init__(
        self,
        patterns: Mapping[str, str | os.PathLike | Sequence],
        read: Callable[[Path], Example] = _path_example,
    ):
        self._patterns = dict(patterns)
        self._read = read

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        patterns: Any = self._patterns[split]
        if isinstance(patterns, str | os.PathLike):
            patterns = [patterns]
        globs = [Path(p) / "**" / "*" if os.path.isdir(p) else p for p in patterns]
        paths = expand_patterns(globs, f"split {split!r}")
        return _Files(paths, self._read)  # type: ignore[return-value]
