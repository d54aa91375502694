"""Samples of runs and models: under a judge, their variety and copies, their notes, their speed.

A judge is an autoregressive run on data that the others were not trained on.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cdcd.contents import Melody
from cdcd.evaluation import BATCH, Runs, contents_of_run, make_rows, read_rows, sampler_options
from cdcd.inference import TEMPERATURE
from cdcd.model_config import kind_of
from cdcd.sampler import rows_from_nothing
from cdcd.scoring import EXACT, window_nats
from musax.metrics import Progress, generated, no_progress, sequences
from musax.metrics.bootstrap import bootstrap_mean
from musax.runs import TrainedRun
from musax.tables import Report, Table

COPY_LENGTHS = (16, 32)
TEMPERATURES = (0.8, 0.9, 0.95, 1.0)
#: Network evaluations whose speed is measured.
EVALUATIONS = (16, 64, 200)


def judged_nats(judge: TrainedRun, rows: np.ndarray) -> np.ndarray:
    """Return -log p of each row under an autoregressive run, float64 [rows].

    Rows that are longer than the judge's are cut into parts of its length, each judged alone.

    Raises:
      ValueError: they cannot be cut so.
    """
    count, length = rows.shape
    part = min(length, judge.length)
    if length % part:
        raise ValueError(
            f"rows of {length} tokens and a judge of {part}: expected a judge whose length divides "
            "theirs"
        )
    parts = rows.reshape(-1, part)
    nats = window_nats(judge.model, judge.params, parts, EXACT, jax.random.key(0))
    return nats.reshape(count, -1).sum(axis=1)


def sample(run: TrainedRun, count: int, options: Mapping[str, Any], seed: int = 0) -> np.ndarray:
    """Return rows sampled without given tokens, int32 [count, length]."""
    rows = rows_from_nothing(count, run.length)
    return make_rows(run, np.asarray(rows.tokens), np.asarray(rows.noisy), options, seed)


def describe(rows: np.ndarray, judge: TrainedRun, training: Sequence[np.ndarray]) -> dict:
    """Return nats per token under a judge, entropies, and shares of n-grams copied from training.

    Args:
      rows: int [B, L].
      judge: see `judged_nats`.
      training: int [n] each.
    """
    mean, low, high = bootstrap_mean(judged_nats(judge, rows) / rows.shape[1])
    return {
        "judge_nats": mean,
        "judge_low": low,
        "judge_high": high,
        "unigram_entropy": sequences.ngram_entropy(rows, 1),
        "entropy": sequences.ngram_entropy(rows, 2),
    } | {
        f"copied_{n}": sequences.copied_share(rows, training, n)
        for n in COPY_LENGTHS
        if n <= rows.shape[1]
    }


def evaluate_samples(
    runs: Runs,
    judge: TrainedRun,
    *,
    split: str = "test",
    count: int = 64,
    steps: int = 64,
    temperatures: Sequence[float] | None = TEMPERATURES,
    options: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Describe samples of each run, and rows of a held-out split for comparison.

    Args:
      runs: by name in tables; the held-out and training rows are those of the first.
      judge: an autoregressive run.
      split: of the held-out rows.
      count: rows of each setting.
      steps: network evaluations; an autoregressive model has no such option.
      temperatures: a setting each; None for one setting, of `options` alone.
      options: of samplers, above all others.
      progress: called after each setting.

    Returns:
      A table; the data has it as "samples", by the name of the run, and "data".
    """
    first = next(iter(runs.values()))
    training = list(read_rows(first.evaluate_task, "train", first.length))
    held_out = read_rows(first.evaluate_task, split, first.length, count)
    found = {"data": [{"label": split, **describe(held_out, judge, training)}]}
    for done, (name, run) in enumerate(runs.items(), start=1):
        found[name] = []
        given, renamed = dict(options or {}), TEMPERATURE[kind_of(run.model)]
        sweep = [given]
        if temperatures is not None:
            sweep = [sampler_options(run, steps) | given | {renamed: t} for t in temperatures]
        for setting in sweep:
            label = ", ".join(f"{k}={v}" for k, v in setting.items() if k != "steps") or "as is"
            rows = sample(run, count, setting)
            point = {"label": label.replace(f"{renamed}=", "T="), "options": str(setting)}
            found[name].append(point | describe(rows, judge, training))
            progress(f"{name}, {label}", done, len(runs))
    flat = [{"model": name, **point} for name, points in found.items() for point in points]
    table = Table("Samples", [{k: v for k, v in row.items() if k != "options"} for row in flat])
    return Report([table], {"samples": found})


def evaluate_notes(
    runs: Runs,
    *,
    split: str = "test",
    count: int = 64,
    steps: int = 64,
    temperatures: Sequence[float] = TEMPERATURES,
    progress: Progress = no_progress,
) -> Report:
    """Measure the notes of sampled melodies by `musax.metrics.generated.evaluate`.

    Beside them stand the held-out split, and its tokens shuffled over all rows; arguments are those
    of `evaluate_samples`.

    Raises:
      ValueError: a run's model is not one of melodies.
    """
    found = []

    def add(name: str, temperature: float | None, melody: Melody, rows: np.ndarray) -> None:
        measured = generated.evaluate([melody.decode(row) for row in rows])
        found.append({"model": name, "T": temperature, **measured})

    for done, (name, run) in enumerate(runs.items(), start=1):
        melody = contents_of_run(run, Melody)
        if not found:
            rows = read_rows(run.evaluate_task, split, run.length, count)
            add(split, None, melody, rows)
            shuffled = np.random.default_rng(0).permutation(rows.ravel()).reshape(rows.shape)
            add(f"{split}, tokens shuffled over all rows", None, melody, shuffled)
        for temperature in temperatures:
            rows = sample(run, count, sampler_options(run, steps, temperature))
            add(name, temperature, melody, rows)
            progress(f"{name}, T={temperature}", done, len(runs))
    return Report([Table("Notes of melodies", found, {"T": "g"})], {"notes": found})


def evaluate_speed(runs: Runs, progress: Progress = no_progress) -> Report:
    """Measure seconds of 1,000 tokens of a batch of rows, by run and network evaluations."""
    found = []
    for done, (name, run) in enumerate(runs.items(), start=1):
        for steps in EVALUATIONS if sampler_options(run, 1) else (run.length,):
            options = sampler_options(run, steps)
            rows, key = rows_from_nothing(BATCH, run.length), jax.random.key(0)
            jax.block_until_ready(run.model.make(run.params, rows, key, **options))
            start = time.perf_counter()
            jax.block_until_ready(run.model.make(run.params, rows, key, **options))
            seconds = (time.perf_counter() - start) / (BATCH * run.length) * 1000
            found.append({"model": name, "evaluations": steps, "seconds per 1,000 tokens": seconds})
            progress(f"{name}, {steps} evaluations", done, len(runs))
    return Report([Table(f"Speed, {BATCH} rows at once", found)], {"speed": found})
