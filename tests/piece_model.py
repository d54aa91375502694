"""SentencePiece models that are trained in a moment."""

import io
from pathlib import Path

import pytest


def write_piece_model(path: Path, sentences: list[str], vocab_size: int) -> str:
    """Trains a model with the special ids of `t5x.data.vocabularies`; skips without the package."""
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=vocab_size,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return str(path)
