"""Two tasks on the plays: `shakespeare_spans` to pretrain on, `shakespeare_verse` to fine-tune for.

Import this module to register them (`MIXTURE_OR_TASK_MODULE` in gin).
"""

import functools
from collections.abc import Sequence

from t5x.data import ByteVocabulary, Feature, FunctionSource, TaskRegistry
from t5x.data.denoising import span_corruption
from t5x.data.preprocessors import append_eos, append_eos_after_trim, tokenize
from t5x.examples.shakespeare import plays

#: Bytes, and 125 sentinels: 384 ids, as ByT5 has.
VOCABULARY = ByteVocabulary(extra_ids=125)
FEATURES = {"inputs": Feature(VOCABULARY), "targets": Feature(VOCABULARY)}

#: Three tokens of T5 are about a dozen bytes; ByT5 (arXiv 2105.13626) takes spans of 20 bytes.
MEAN_SPAN_BYTES = 20.0


def verse_scores(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """How often speeches are called rightly, in percent.

    Returns:
      accuracy; balanced_accuracy, the mean of the accuracies of verse and of prose, which is 50
      for whoever always says the same; majority, the accuracy of always saying the commoner kind.
    """
    right = {kind: [] for kind in sorted(set(targets))}
    for target, prediction in zip(targets, predictions, strict=True):
        right[target].append(prediction == target)
    total = max(len(targets), 1)
    return {
        "accuracy": 100.0 * sum(map(sum, right.values())) / total,
        "balanced_accuracy": 100.0
        * sum(sum(row) / len(row) for row in right.values())
        / max(len(right), 1),
        "majority": 100.0 * max(map(len, right.values()), default=0) / total,
    }


TaskRegistry.add(
    "shakespeare_spans",
    source=FunctionSource({s: functools.partial(plays.passages, s) for s in plays.SPLITS}),
    preprocessors=[
        functools.partial(tokenize, copy_pretokenized=False),
        functools.partial(span_corruption, mean_span_length=MEAN_SPAN_BYTES),
        append_eos,
    ],
    output_features=FEATURES,
)

TaskRegistry.add(
    "shakespeare_verse",
    source=FunctionSource({s: functools.partial(plays.verse_or_prose, s) for s in plays.SPLITS}),
    preprocessors=[tokenize, append_eos_after_trim],
    output_features=FEATURES,
    metric_fns=[verse_scores],
)
