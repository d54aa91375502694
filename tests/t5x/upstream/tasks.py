"""A user's module: a small text task, and its vocabulary."""

import functools

import numpy as np

from t5x.data import ByteVocabulary, Feature, TaskRegistry
from t5x.data.preprocessors import append_eos, tokenize

TASK = "upstream_user_reverse"
WORDS = [f"{first}{second}" for first in "abcdefgh" for second in "stuvwxyz"]


def vocabulary() -> ByteVocabulary:
    """Bytes."""
    return ByteVocabulary()


def accuracy(targets, predictions):
    """Fraction of predictions that are right."""
    return {"accuracy": np.mean([t == p for t, p in zip(targets, predictions)])}


def likelihood(targets, scores):
    """Mean score."""
    del targets
    return {"likelihood": float(np.mean(scores))}


def reverse(example, lm):
    """A word, and the same word from its end."""
    word = example["word"]
    pair = {"inputs": word, "targets": word[::-1]}
    return {"targets": pair["targets"]} if lm else pair


def register(name: str, lm: bool) -> None:
    """Registers the task, for encoder-decoders or for language models."""
    if name in TaskRegistry.names():
        return
    features = {"targets": Feature(vocabulary())}
    TaskRegistry.add(
        name,
        source={
            "train": [{"word": word} for word in WORDS[:48]],
            "validation": [{"word": word} for word in WORDS[48:]],
        },
        preprocessors=[functools.partial(reverse, lm=lm), tokenize, append_eos],
        output_features=features if lm else {"inputs": Feature(vocabulary()), **features},
        metric_fns=[accuracy, likelihood],
    )


register(TASK, lm=False)
register(f"{TASK}_lm", lm=True)
