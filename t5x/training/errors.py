"""The error of a run that cannot go on."""


class TrainingError(RuntimeError):
    """A run ended before its last step; the message says where, why, and how to go on."""
