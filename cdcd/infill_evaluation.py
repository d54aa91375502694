"""Gaps that runs and models fill in: tokens of held-out rows, and words of texts."""

from collections.abc import Sequence

import numpy as np

from cdcd import metrics
from cdcd.contents import Letters
from cdcd.evaluation import BATCH, Runs, contents_of_run, make_rows, read_rows, sampler_options
from cdcd.sample_evaluation import TEMPERATURES
from musax.metrics import Progress, no_progress
from musax.runs import TrainedRun
from musax.tables import Report, Table

#: Gaps as shares of a row.
GAPS = (0.1, 0.3, 0.5)
_SEED = 1


def _fill(run: TrainedRun, truth: np.ndarray, gaps: np.ndarray, options: dict) -> np.ndarray:
    return make_rows(run, truth, gaps, options, _SEED, key_step=BATCH)


def evaluate_gaps(
    runs: Runs,
    *,
    split: str = "test",
    count: int = 64,
    steps: int = 64,
    progress: Progress = no_progress,
) -> Report:
    """Measure how much of one gap in each row is found again, by run and share of the row.

    Args:
      runs: by name in tables.
      split: of held-out rows.
      count: rows.
      steps: network evaluations; an autoregressive model has no such option.
      progress: called after each kind of gap.

    Returns:
      A table of `cdcd.metrics.infilling_scores`; the data has it as "infilling".
    """
    found: dict[str, dict] = {}
    for done, (name, run) in enumerate(runs.items(), start=1):
        truth = read_rows(run.evaluate_task, split, run.length, count)
        found[name] = {}
        for share in GAPS:
            gaps = metrics.span_masks(np.random.default_rng(0), (len(truth), run.length), share)
            filled = _fill(run, truth, gaps, sampler_options(run, steps))
            found[name][share] = metrics.infilling_scores(truth, filled, gaps)
            progress(f"{name}, gaps of {share:.0%}", done, len(runs))
    rows = [
        {"model": name, "gap": share, **scores}
        for name, by_share in found.items()
        for share, scores in by_share.items()
    ]
    return Report([Table("Gaps filled in", rows, {"gap": ".0%"})], {"infilling": found})


def evaluate_words(
    runs: Runs,
    *,
    split: str = "test",
    count: int = 64,
    steps: int = 64,
    temperatures: Sequence[float] = TEMPERATURES,
    progress: Progress = no_progress,
) -> Report:
    """Measure the filling in of one word of 3 to 5 letters in each row.

    Args:
      runs, split, count, steps, progress: see `evaluate_gaps`.
      temperatures: of samplers, a row each.

    Returns:
      A table of `cdcd.metrics.word_scores`; the data has it as "words".

    Raises:
      ValueError: a run's model is not one of letters, or no row has such a word.
    """
    found = []
    for done, (name, run) in enumerate(runs.items(), start=1):
        contents = contents_of_run(run, Letters)
        truth = read_rows(run.evaluate_task, split, run.length, count)
        texts = [contents.decode(row) for row in truth]
        gaps = metrics.word_gaps(np.random.default_rng(0), texts)
        training = read_rows(run.evaluate_task, "train", run.length)
        # The first and the last word of a row may be parts of words.
        known = {word for row in training for word in contents.decode(row).split(" ")[1:-1]}
        for temperature in temperatures:
            options = sampler_options(run, steps, temperature)
            filled = _fill(run, truth, gaps, options)
            scores = metrics.word_scores(texts, [contents.decode(r) for r in filled], gaps, known)
            words = int(gaps.any(1).sum())
            found.append({"model": name, "T": temperature, "words": words} | scores)
            progress(f"{name}, T={temperature}", done, len(runs))
    return Report([Table("Words filled in", found, {"T": "g"})], {"words": found})
