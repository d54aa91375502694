"""The error of everything that reads checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint is absent, damaged, or does not fit the model."""
