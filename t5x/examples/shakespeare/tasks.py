"""Tasks on the plays: `shakespeare_spans` to pretrain on, `shakespeare_punctuation` to fine-tune.

Import this module to register them (`MIXTURE_OR_TASK_MODULE` in gin).
"""

import functools
from collections.abc import Mapping

import numpy as np

from t5x.data import ByteVocabulary, Feature, FunctionSource, TaskRegistry
from t5x.data.denoising import span_corruption
from t5x.data.preprocessors import append_eos, append_eos_after_trim, tokenize
from t5x.examples.shakespeare import plays, punctuation

#: Bytes, and 125 sentinels: 384 ids, as ByT5 has.
VOCABULARY = ByteVocabulary(extra_ids=125)
FEATURES = {"inputs": Feature(VOCABULARY), "targets": Feature(VOCABULARY)}

#: Of the bytes of a window, cut out in spans of this many on average.
NOISE_DENSITY = 0.3
MEAN_SPAN_BYTES = 3.0

#: Windows fill a whole, a half or a quarter of the inputs, and packing puts the short ones side by
#: side. From short ones the decoder learns to look for a gap in the encoder, and then finds it in
#: long ones; from long ones alone it learned in the same time to write without looking.
WINDOW_SHARES = (1, 2, 4)


def corrupt_window(
    example: dict,
    rng: np.random.Generator,
    sequence_length: Mapping[str, int],
    output_features: Mapping[str, Feature],
) -> dict | None:
    """A preprocessor: span corruption of a window of a random one of `WINDOW_SHARES`."""
    share = rng.choice(WINDOW_SHARES)
    lengths = {name: length // share for name, length in sequence_length.items()}
    return span_corruption(example, rng, lengths, output_features, NOISE_DENSITY, MEAN_SPAN_BYTES)


TaskRegistry.add(
    "shakespeare_spans",
    source=FunctionSource({s: functools.partial(plays.passages, s) for s in plays.SPLITS}),
    preprocessors=[
        functools.partial(tokenize, copy_pretokenized=False),
        corrupt_window,
        append_eos,
    ],
    output_features=FEATURES,
)

TaskRegistry.add(
    "shakespeare_punctuation",
    source=FunctionSource({s: functools.partial(punctuation.pieces, s) for s in plays.SPLITS}),
    preprocessors=[punctuation.with_sentinels, append_eos_after_trim],
    output_features=FEATURES,
    metric_fns=[punctuation.mark_scores],
)
