"""Sequences given inputs: translation by continuous diffusion, and the task of pronunciation."""

from t5x.moved import moved_names

# `cdcd.translation` was the module of the model.
__getattr__ = moved_names(
    __name__,
    dict.fromkeys(
        ("TranslationDenoising", "TranslationModel", "cut_at_eos"), "cdcd.translation.model"
    ),
)
