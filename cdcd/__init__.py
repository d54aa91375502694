"""CDCD: continuous diffusion for categorical data, such as text and melodies.

Dieleman et al., "Continuous diffusion for categorical data" (2022, arXiv 2211.15089).
"""
