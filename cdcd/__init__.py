"""CDCD: continuous diffusion for categorical data, such as text and melodies.

Dieleman et al., "Continuous diffusion for categorical data" (2022, arXiv 2211.15089).
"""

from t5x.moved import register_moved

# Module names of earlier versions.
register_moved(
    {
        "cdcd.mbr": "cdcd.translation.mbr",
        "cdcd.pronunciation": "cdcd.translation.pronunciation",
        "cdcd.translation_network": "cdcd.translation.network",
    }
)
