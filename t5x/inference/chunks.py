"""Output in chunks that survive a kill: a chunk counts when its marker is there.

    tmp-<task>-<shard>-of-<shards>/
        settings.json                        what the chunks were made with
        <name>-chunk00000                    written by the write function
        <name>-chunk00000.COMPLETED          JSON: examples so far, position of the next example
    <name>                                   all chunks, in order, in the end
    <name>.COMPLETED                         the settings, once it is whole

A process that is killed leaves at most one chunk without marker, which is written again.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from t5x.checkpoints.locks import FolderLock, lock_folder
from t5x.files import atomic_path, write_json
from t5x.gin_utils import GinError

COMPLETED = ".COMPLETED"
MergeFn = Callable[[Sequence[str], str], None]


@dataclasses.dataclass
class Chunks:
    """The chunks of one output file.

    Args:
      folder: where the work folder and the output go.
      work_name: name of the work folder.
      name: of the output file.
      settings: JSON; output made with others is not continued.
      writer: whether this process writes (the first does).

    Attributes:
      count: chunks that are whole.
      examples: examples in them.
      position: where the next example is, None at the start.
    """

    folder: Path
    work_name: str
    name: str
    settings: dict[str, Any]
    writer: bool = True
    count: int = 0
    examples: int = 0
    position: dict[str, int] | None = None

    def __post_init__(self):
        self.work = self.folder / self.work_name
        self.output = self.folder / self.name
        self._done = self.folder / (self.name + COMPLETED)
        self._lock: FolderLock | None = None

    def open(self) -> bool:
        """Find the chunks already written; return False when all are.

        Raises:
          GinError: the chunks were written with other settings.
          FolderInUseError: another process is writing them.
        """
        if self._done.is_file():
            self._check(self._done)
            return False
        if self.writer:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self.work, "Wait for its end, or give it another shard_id.")
        settings = self.work / "settings.json"
        if settings.is_file():
            self._check(settings)
        elif self.writer:
            write_json(settings, self.settings)
        while (marker := self._marker(self.count)).is_file():
            state = self._read(marker)
            self.position, self.examples = state.get("position"), state.get("examples", 0)
            self.count += 1
        return True

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            value = json.loads(file.read_bytes())
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise GinError(
                f"{file}: damaged, expected a JSON object. Remove {self.output} with its marker "
                f"and {self.work} to start over."
            )
        return value

    def _check(self, file: Path) -> None:
        before = self._read(file)
        now = json.loads(json.dumps(self.settings))
        different = [
            f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
            for key in sorted(before)  # earlier versions noted less
            if before.get(key) != now.get(key)
        ]
        if different:
            raise GinError(
                f"{file}: output of another configuration ({'; '.join(different)}). Choose another "
                f"output_dir, or remove {self.output} with its marker and {self.work} to start "
                "over."
            )

    def path(self, number: int) -> Path:
        """File of chunk `number`."""
        return self.work / f"{self.name}-chunk{number:05}"

    def _marker(self, number: int) -> Path:
        path = self.path(number)
        return path.with_name(path.name + COMPLETED)

    def complete(self, examples: int, position: dict[str, int]) -> None:
        """The next chunk, with so many examples, is written; `position` is after it."""
        self.examples += examples
        self.position = position
        if self.writer:
            state = {"examples": self.examples, "position": position}
            write_json(self._marker(self.count), state)
        self.count += 1

    def close(self) -> None:
        """Let other processes write the chunks."""
        if self._lock is not None:
            self._lock.close()

    def finish(self, merge_fn: MergeFn | None) -> None:
        """Merge the chunks (None leaves them) and mark the output as complete."""
        if not self.writer:
            return
        if merge_fn is not None:
            merge_fn([str(self.path(i)) for i in range(self.count)], str(self.output))
        write_json(self._done, self.settings)
        if merge_fn is not None:
            shutil.rmtree(self.work)


def merge_chunks_to_file(chunks: Sequence[str], output: str) -> None:
    """Join the bytes of the files `chunks` to the file `output`, complete or not at all."""
    with atomic_path(output) as temporary, temporary.open("wb") as whole:
        for chunk in chunks:
            with Path(chunk).open("rb") as part:
                shutil.copyfileobj(part, whole)
