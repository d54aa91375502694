"""What the musax model packages share: audio, notes, spectrograms, rendering, metrics, plots."""
