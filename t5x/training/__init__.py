"""The parts of a training run: its state, statistics, evaluations and end."""
