"""The error of everything that reads checkpoints."""

from collections.abc import Mapping


class CheckpointError(ValueError):
    """A checkpoint is absent, damaged, or does not fit the model.

    Attributes:
      problems: of one that does not fit: name of an array -> what is wrong with it.
    """

    def __init__(self, message: str = "", problems: Mapping[str, str] | None = None):
        super().__init__(message)
        self.problems = dict(problems or {})
