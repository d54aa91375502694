"""Readers of real datasets, and datasets rendered from MIDI."""
