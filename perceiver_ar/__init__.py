"""Perceiver AR: autoregressive modelling of long sequences of tokens.

Hawthorne et al., "General-purpose, long-context autoregressive modeling with Perceiver AR" (ICML
2022, arXiv 2202.07765).
"""
