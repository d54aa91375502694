"""Likelihoods of held-out rows under runs and models, compared with each other and with n-grams.

    runs = {"cdcd": load("runs/melody/cdcd"), "ar": load("runs/melody/ar")}
    print(evaluate_likelihood(runs, rows=64).render())

`cdcd.sample_evaluation` and `cdcd.infill_evaluation` have what else is measured of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cdcd.contents import contents_of
from cdcd.inference import TEMPERATURE
from cdcd.likelihood import in_batches, variational_bound
from cdcd.model_config import kind_of
from cdcd.runs import load_model, load_run
from cdcd.sampler import Rows
from cdcd.scoring import BOUND, LEFT_TO_RIGHT, estimates_of, window_nats
from musax.metrics import Progress, no_progress
from musax.metrics.bootstrap import bootstrap_mean
from musax.ngrams import NGram, Unigram
from musax.runs import TrainedRun
from musax.tables import Report, Table
from t5x.data.pipeline import task_examples

#: Rows that are sampled or scored together.
BATCH = 32
#: Noise levels of a bound, forward passes of the mean over orders.
_LEVELS, _PASSES = 64, 32

Runs = Mapping[str, TrainedRun]


def load(
    name_or_dir: str, data: str | None = None, train_part: tuple[int, int] | None = None
) -> TrainedRun:
    """Read a training run, or load a model with data.

    Args:
      name_or_dir: MODEL_DIR of a run, or the name or folder of a model.
      data: of a model: DATA_DIR of configs/cdcd/melody.gin or letters.gin.
      train_part: of a model: TRAIN_PART there.

    Raises:
      ValueError: a model without data, or see `load_run` and `load_model`.
    """
    if (Path(name_or_dir) / "config.gin").is_file():
        return load_run(name_or_dir)
    if data is None:
        raise ValueError(f"{name_or_dir}: a model, not a training run: give its data with --data")
    return load_model(name_or_dir, data, train_part)


def read_rows(task: Any, split: str, length: int, limit: int | None = None) -> np.ndarray:
    """Return examples of a task without padding, int32 [rows, length], spread over the split.

    Raises:
      ValueError: no example has this length.
    """
    examples = task_examples(task, split, {"targets": length}, seed=0)
    rows = [np.asarray(x["targets"]) for x in examples]
    rows = [row for row in rows if len(row) == length]
    if not rows:
        raise ValueError(f"task {task.name!r}, split {split}: no example of {length} tokens")
    if limit is not None and limit < len(rows):
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, limit).astype(int)]
    return np.stack(rows)


def sampler_options(
    run: TrainedRun, steps: int, temperature: float | None = None
) -> dict[str, Any]:
    """Return options of a run's sampler; an autoregressive model has no steps."""
    kind = kind_of(run.model)
    options: dict[str, Any] = {} if kind == "ar" else {"steps": steps}
    return options if temperature is None else options | {TEMPERATURE[kind]: temperature}


def make_rows(
    run: TrainedRun,
    rows: np.ndarray,
    noisy: np.ndarray,
    options: Mapping[str, Any],
    seed: int = 0,
    key_step: int = 1,
) -> np.ndarray:
    """Return rows int32 [B, L] with `noisy` positions, bool [B, L], sampled by a run's model.

    Batch n of `BATCH` rows draws from the key of the seed, folded with `n * key_step`.
    """
    parts = []
    for number, first in enumerate(range(0, len(rows), BATCH)):
        part = slice(first, first + BATCH)
        given = Rows(jnp.asarray(rows[part]), jnp.asarray(noisy[part]))
        key = jax.random.fold_in(jax.random.key(seed), number * key_step)
        parts.append(np.asarray(run.model.make(run.params, given, key, **options)))
    return np.concatenate(parts)


def contents_of_run(run: TrainedRun, kind: type) -> Any:
    """Return what a run's tokens stand for.

    Raises:
      ValueError: it is not of a kind of `cdcd.contents`.
    """
    contents = contents_of(run.evaluate_task.output_features["targets"].vocabulary)
    if not isinstance(contents, kind):
        raise ValueError(
            f"expected a model of {kind.__name__.lower()}, got one of "
            f"{type(contents).__name__.lower()}"
        )
    return contents


# -------------------------------------------------------------------------------------- likelihood


def evaluate_likelihood(
    runs: Runs,
    *,
    split: str = "test",
    rows: int | None = 256,
    ordered_rows: int = 32,
    baseline_order: int | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Measure bits per token of a split by each model and estimate of `cdcd.scoring`.

    Args:
      runs: by name in tables; the data are those of the first.
      split: "train", "validation" or "test".
      rows: rows of the split, spread over it; None for all.
      ordered_rows: number of these rows that are decoded from left to right too.
      baseline_order: tokens of n-grams fit on the training split, in rows of their own beside
        unigrams; None for none.
      progress: called after each estimate.

    Returns:
      A table with 95 % bootstrap intervals over rows; the data has it as "likelihood".

    Raises:
      ValueError: a run's model or data are of another kind.
    """
    first = next(iter(runs.values()))
    tokens = read_rows(first.evaluate_task, split, first.length, rows)
    found = []

    def add(name: str, estimate: str, nats: np.ndarray, parameters: int | None = None) -> None:
        bits = bootstrap_mean(nats / first.length / math.log(2))
        found.append(
            {"model": name, "estimate": estimate, "parameters": parameters, "rows": len(nats)}
            | dict(zip(("bits per token", "low", "high"), bits))
        )

    for done, (name, run) in enumerate(runs.items(), start=1):
        size = sum(np.size(x) for x in jax.tree.leaves(run.params))
        for estimate, nats in _likelihoods(run, tokens, ordered_rows):
            add(name, estimate, nats, size)
            progress(f"{name}, {estimate}: {found[-1]['bits per token']:.3f}", done, len(runs))
    if baseline_order is not None:
        for name, nats in _baselines(first, tokens, baseline_order):
            add(name, "exact", nats)
    formats = {"bits per token": ".3f", "low": ".3f", "high": ".3f"}
    table = Table(f"Bits per token, {split} split", found, formats)
    return Report([table], {"likelihood": found})


def _likelihoods(
    run: TrainedRun, tokens: np.ndarray, ordered_rows: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name of the estimate, -log p of rows in nats), for those that the model has."""
    model, params, key = run.model, run.params, jax.random.key(0)
    for estimate in estimates_of(model):
        rows = tokens[:ordered_rows] if estimate == LEFT_TO_RIGHT else tokens
        if len(rows):
            passes = _LEVELS if estimate == BOUND else _PASSES
            nats = window_nats(model, params, rows, estimate, key, passes)
            yield estimate.replace("_", " "), nats
    if kind_of(model) == "cdcd":

        def bound(rows: jax.Array, key: jax.Array) -> jax.Array:
            distribution = model.distribution(params)
            return variational_bound(
                model.denoising,
                params,
                rows,
                key,
                distribution=distribution,
                levels=_LEVELS,
                iterations=2,
            )

        nats = in_batches(bound, jnp.asarray(tokens), key, min(BATCH, len(tokens)))
        yield "bound, 2 evaluations", np.asarray(nats, np.float64)


def _baselines(run: TrainedRun, tokens: np.ndarray, order: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, -log p of rows in nats) of models that count tokens."""
    vocabulary = run.evaluate_task.output_features["targets"].vocabulary.vocab_size
    splits = (read_rows(run.evaluate_task, s, run.length) for s in ("train", "validation"))
    # Counting needs a token before the first, as networks have.
    training, held_out, rows = ([np.insert(r, 0, 0) for r in p] for p in (*splits, tokens))
    yield "unigram", _sums(Unigram.fit(training, vocabulary).nats(rows))
    yield f"{order}-gram", _sums(NGram(training, held_out, vocabulary, order).nats(rows))


def _sums(nats: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([row.sum() for row in nats])
