"""Automatic music transcription as sequence-to-sequence modelling (MT3; ISMIR 2021 piano)."""
