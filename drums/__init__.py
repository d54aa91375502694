"""Drum transcription: recordings of drums to hits with class, time and velocity.

OaF Drums and the Expanded Groove MIDI Dataset: Callender, Hawthorne, Engel, "Improving Perceptual
Quality of Drum Transcription with the Expanded Groove MIDI Dataset" (2020).
"""
