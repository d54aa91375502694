"""Tempo of hits, as `musax.tempo` estimates it."""

from musax.tempo import Tempo, estimate_tempo

__all__ = ["Tempo", "estimate_tempo"]
