#!/usr/bin/env python
"""Compares models of cdcd: likelihoods, samples under a judge, gaps filled in, copies, speed.

Examples:
  # all of it; the judge is an autoregressive run on data that the others were not trained on
  scripts/evaluate_cdcd.py --run runs/melody/ar --run runs/melody/mdlm --run runs/melody/cdcd \\
      --judge runs/melody/judge --plot melody --json melody.json

  # how likely the test split is alone, beside models that count
  scripts/evaluate_cdcd.py --run runs/melody/cdcd --parts likelihood --baselines

  # samples of one setting, for ablations
  scripts/evaluate_cdcd.py --run runs/melody/cdcd --judge runs/melody/judge --parts samples \\
      --set steps=200 --set warp=False

  # the models that come with the project; text has words, of which one a row is filled in
  scripts/evaluate_cdcd.py --run cdcd-melody --data data/lakh64 --parts likelihood infill notes
  scripts/evaluate_cdcd.py --run cdcd-text --data data/letters --train-part 0 2 --parts words
"""

import argparse
import ast
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from cdcd import inference, metrics, plots
from cdcd.contents import Letters, Melody, contents_of
from cdcd.likelihood import in_batches, variational_bound
from cdcd.model_config import kind_of
from cdcd.runs import TrainedRun, load_model, load_run
from cdcd.sampler import Rows, rows_from_nothing
from cdcd.scoring import BOUND, EXACT, LEFT_TO_RIGHT, estimates_of, window_nats
from musax.metrics import generated, sequences
from musax.metrics.bootstrap import bootstrap_mean
from musax.ngrams import NGram, Unigram
from musax.plots import save_figure
from t5x.data.examples import task_examples
from t5x.files import write_json

PARTS = ("likelihood", "frontier", "samples", "infill", "notes", "words", "speed")
GAPS = (0.1, 0.3, 0.5)
COPY_LENGTHS = (16, 32)
TEMPERATURES = (0.8, 0.9, 0.95, 1.0)
EVALUATIONS = (16, 64, 200)
BATCH = 32
#: Noise levels of a bound, forward passes of the mean over orders.
LEVELS, PASSES = 64, 32


# -------------------------------------------------------------------------------------------- data


def read_rows(task: Any, split: str, length: int, limit: int | None = None) -> np.ndarray:
    """Examples of a task without padding, int32 [rows, length]; spread over the split."""
    examples = task_examples(task, split, {"targets": length}, seed=0)
    rows = [np.asarray(x["targets"]) for x in examples]
    rows = [row for row in rows if len(row) == length]
    if limit is not None and limit < len(rows):
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, limit).astype(int)]
    return np.stack(rows)


def judged_nats(judge: TrainedRun, rows: np.ndarray) -> np.ndarray:
    """-log p of each row under an autoregressive run, float64 [rows].

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


# -------------------------------------------------------------------------------------- likelihood


def likelihoods(
    run: TrainedRun, tokens: np.ndarray, ordered_rows: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(name of the estimate, -log p of rows in nats), for those that the run's model has."""
    model, params, key = run.model, run.params, jax.random.key(0)
    for estimate in estimates_of(model):
        rows = tokens[:ordered_rows] if estimate == LEFT_TO_RIGHT else tokens
        if len(rows):
            passes = LEVELS if estimate == BOUND else PASSES
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
                levels=LEVELS,
                iterations=2,
            )

        nats = in_batches(bound, jnp.asarray(tokens), key, min(BATCH, len(tokens)))
        yield "bound, 2 evaluations", np.asarray(nats, np.float64)


def evaluate_likelihood(runs: dict[str, TrainedRun], args: argparse.Namespace) -> list[dict]:
    """Bits per token of the split, by each model and estimate."""
    first = next(iter(runs.values()))
    tokens = read_rows(first.evaluate_task, args.split, first.length, args.rows)
    found = []

    def add(name: str, estimate: str, nats: np.ndarray, parameters: int | None = None) -> None:
        bits = bootstrap_mean(nats / first.length / math.log(2))
        found.append(
            {"model": name, "estimate": estimate, "parameters": parameters, "rows": len(nats)}
            | dict(zip(("bits per token", "low", "high"), bits))
        )
        say(f"{name}, {estimate}: {bits[0]:.3f} bits per token")

    for name, run in runs.items():
        size = sum(np.size(x) for x in jax.tree.leaves(run.params))
        for estimate, nats in likelihoods(run, tokens, args.ordered_rows):
            add(name, estimate, nats, size)
    if args.baselines:
        vocabulary = first.evaluate_task.output_features["targets"].vocabulary.vocab_size
        training = read_rows(first.evaluate_task, "train", first.length)
        held_out = read_rows(first.evaluate_task, "validation", first.length)
        # What counts tokens wants a token before the first, as networks have.
        training, held_out, rows = (
            [np.insert(row, 0, 0) for row in part] for part in (training, held_out, tokens)
        )
        add("unigram", "exact", sum_nats(Unigram.fit(training, vocabulary), rows))
        ngram = NGram(training, held_out, vocabulary, args.order)
        add(f"{args.order}-gram", "exact", sum_nats(ngram, rows))
    return found


def sum_nats(model: Any, rows: list[np.ndarray]) -> np.ndarray:
    return np.array([nats.sum() for nats in model.nats(rows)])


# ----------------------------------------------------------------------------------------- samples


def make_samples(run: TrainedRun, count: int, options: dict[str, Any], seed: int = 0) -> np.ndarray:
    """Rows from nothing, int32 [count, length]."""
    parts = []
    for number, first in enumerate(range(0, count, BATCH)):
        rows = rows_from_nothing(min(BATCH, count - first), run.length)
        key = jax.random.fold_in(jax.random.key(seed), number)
        parts.append(np.asarray(run.model.make(run.params, rows, key, **options)))
    return np.concatenate(parts)


def describe(rows: np.ndarray, judge: TrainedRun, training: Sequence[np.ndarray]) -> dict:
    """What a judge, counts and the training data say of rows."""
    per_token = judged_nats(judge, rows) / rows.shape[1]
    mean, low, high = bootstrap_mean(per_token)
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


def steps_of(run: TrainedRun, steps: int) -> dict[str, int]:
    """The option that sets the number of network evaluations; an autoregressive model has none."""
    return {} if kind_of(run.model) == "ar" else {"steps": steps}


def evaluate_samples(
    runs: dict[str, TrainedRun], judge: TrainedRun, args: argparse.Namespace
) -> dict[str, list[dict]]:
    """Of every run: samples over temperatures (frontier), or of the options that were set."""
    first = next(iter(runs.values()))
    training = list(read_rows(first.evaluate_task, "train", first.length))
    held_out = read_rows(first.evaluate_task, args.split, first.length, args.samples)
    found = {"data": [{"label": args.split, **describe(held_out, judge, training)}]}
    for name, run in runs.items():
        found[name] = []
        given = dict(args.set)
        sweep = [given]
        option = inference.TEMPERATURE[kind_of(run.model)]
        if "frontier" in args.parts:
            base = steps_of(run, args.steps) | given
            sweep = [base | {option: t} for t in args.temperatures]
        for options in sweep:
            label = ", ".join(f"{k}={v}" for k, v in options.items() if k != "steps") or "as is"
            label = label.replace(f"{option}=", "T=")
            rows = make_samples(run, args.samples, options)
            point = {"label": label, "options": str(options), **describe(rows, judge, training)}
            found[name].append(point)
            say(f"{name}, {options}: judge {point['judge_nats']:.3f}, H2 {point['entropy']:.3f}")
    return found


# --------------------------------------------------------------------------------- gaps and speed


def fill_in(
    run: TrainedRun, truth: np.ndarray, gaps: np.ndarray, options: dict[str, Any]
) -> np.ndarray:
    """Rows int32 [count, length] with what a model makes in their gaps."""
    parts = []
    for i in range(0, len(truth), BATCH):
        rows = Rows(jnp.asarray(truth[i : i + BATCH]), jnp.asarray(gaps[i : i + BATCH]))
        key = jax.random.fold_in(jax.random.key(1), i)
        parts.append(np.asarray(run.model.make(run.params, rows, key, **options)))
    return np.concatenate(parts)


def evaluate_infilling(runs: dict[str, TrainedRun], args: argparse.Namespace) -> dict:
    """Accuracy in gaps by run and share of the row."""
    found: dict[str, dict] = {}
    for name, run in runs.items():
        truth = read_rows(run.evaluate_task, args.split, run.length, args.samples)
        found[name] = {}
        for share in GAPS:
            gaps = metrics.span_masks(np.random.default_rng(0), truth.shape, share)
            filled = fill_in(run, truth, gaps, steps_of(run, args.steps))
            found[name][share] = metrics.infilling_scores(truth, filled, gaps)
            say(f"{name}, gap {share:.0%}: {found[name][share]['accuracy']:.3f}")
    return found


def evaluate_words(runs: dict[str, TrainedRun], args: argparse.Namespace) -> list[dict]:
    """By run and temperature, what is filled in for a word of 3 to 5 letters of each row."""
    found = []
    for name, run in runs.items():
        contents = contents_of_run(run, Letters, "words")
        truth = read_rows(run.evaluate_task, args.split, run.length, args.samples)
        texts = [contents.decode(row) for row in truth]
        gaps = metrics.word_gaps(np.random.default_rng(0), texts)
        training = read_rows(run.evaluate_task, "train", run.length)
        # The first and the last word of a row may be parts of words.
        known = {word for row in training for word in contents.decode(row).split(" ")[1:-1]}
        for temperature in args.temperatures:
            option = inference.TEMPERATURE[kind_of(run.model)]
            options = steps_of(run, args.steps) | {option: temperature}
            filled = [contents.decode(row) for row in fill_in(run, truth, gaps, options)]
            scores = metrics.word_scores(texts, filled, gaps, known)
            found.append(
                {"model": name, "T": temperature, "words": int(gaps.any(1).sum())} | scores
            )
    return found


def evaluate_notes(runs: dict[str, TrainedRun], args: argparse.Namespace) -> list[dict]:
    """By run and temperature, the share of notes in the major scale that fits a melody best."""
    found = []

    def add(name: str, temperature: float | None, rows: np.ndarray) -> None:
        measured = generated.evaluate([melody.decode(row) for row in rows])
        found.append({"model": name, "T": temperature, **measured})

    for name, run in runs.items():
        melody = contents_of_run(run, Melody, "notes")
        if not found:
            rows = read_rows(run.evaluate_task, args.split, run.length, args.samples)
            add(args.split, None, rows)
            shuffled = np.random.default_rng(0).permutation(rows.ravel()).reshape(rows.shape)
            add(f"{args.split}, tokens shuffled over all rows", None, shuffled)
        option = inference.TEMPERATURE[kind_of(run.model)]
        for temperature in args.temperatures:
            options = steps_of(run, args.steps) | {option: temperature}
            add(name, temperature, make_samples(run, args.samples, options))
    return found


def contents_of_run(run: TrainedRun, kind: type, part: str) -> Any:
    """What a run's tokens stand for; raises ValueError unless it is of a kind."""
    contents = contents_of(run.evaluate_task.output_features["targets"].vocabulary)
    if not isinstance(contents, kind):
        raise ValueError(
            f"--parts {part}: expected a model of {kind.__name__.lower()}, this is one of "
            f"{type(contents).__name__.lower()}"
        )
    return contents


def evaluate_speed(runs: dict[str, TrainedRun]) -> list[dict]:
    """Seconds of 1,000 tokens, by run and network evaluations, with a batch of rows at once."""
    found = []
    for name, run in runs.items():
        choices = EVALUATIONS if steps_of(run, 1) else (run.length,)
        for steps in choices:
            options = steps_of(run, steps)
            rows, key = rows_from_nothing(BATCH, run.length), jax.random.key(0)
            jax.block_until_ready(run.model.make(run.params, rows, key, **options))
            start = time.perf_counter()
            jax.block_until_ready(run.model.make(run.params, rows, key, **options))
            seconds = (time.perf_counter() - start) / (BATCH * run.length) * 1000
            found.append({"model": name, "evaluations": steps, "seconds per 1,000 tokens": seconds})
            say(f"{name}, {steps} evaluations: {seconds:.3f} s per 1,000 tokens")
    return found


# --------------------------------------------------------------------------------------- reporting


def say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False)


def show(title: str, rows: Sequence[dict]) -> None:
    """Prints rows with the same keys as a table."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else f"{v}" for v in row.values()))
    Console(width=max(Console().width, 140)).print(table)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--run",
        action="append",
        required=True,
        help="MODEL_DIR of a run, or a model's name or folder",
    )
    add("--data", metavar="DATA_DIR", help="of models that are no runs: that of configs/cdcd")
    add("--train-part", type=int, nargs=2, metavar=("INDEX", "COUNT"), help="and their TRAIN_PART")
    add("--judge", metavar="RUN_DIR", help="autoregressive run that judges samples")
    add("--parts", nargs="+", choices=PARTS, default=["likelihood", "frontier", "infill", "speed"])
    add("--split", default="test", choices=("train", "validation", "test"))
    add("--rows", type=int, default=256, help="rows of the split for likelihoods (256)")
    add("--ordered-rows", type=int, default=32, help="rows decoded from left to right (32)")
    add("--samples", type=int, default=64, help="rows made for each setting (64)")
    add("--steps", type=int, default=64, help="network evaluations of samplers (64)")
    add("--temperatures", type=float, nargs="+", default=TEMPERATURES)
    add("--set", type=_option, action="append", default=[], metavar="OPTION=VALUE")
    add("--baselines", action="store_true", help="also models that count tokens")
    add("--order", type=int, default=6, help="of the n-gram model (6)")
    add("--json", metavar="FILE", help="writes all numbers")
    add("--plot", metavar="PREFIX", help="writes PREFIX_frontier.png and PREFIX_infilling.png")
    args = parser.parse_args(arguments)
    if {"frontier", "samples"} & set(args.parts) and not args.judge:
        parser.error("samples are judged: give --judge RUN_DIR, or other --parts")
    return args


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def load(folder: str, args: argparse.Namespace) -> TrainedRun:
    """The run, or the model, that is called so."""
    if (Path(folder) / "config.gin").is_file():
        return load_run(folder)
    if args.data is None:
        raise ValueError(
            f"{folder}: no config.gin there; expected the MODEL_DIR of a run, or a model and --data"
        )
    return load_model(folder, args.data, args.train_part and tuple(args.train_part))


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """All parts that were asked for, printed and returned."""
    runs = {Path(folder).resolve().name: load(folder, args) for folder in args.run}
    found: dict[str, Any] = {}
    if "likelihood" in args.parts:
        found["likelihood"] = evaluate_likelihood(runs, args)
        show(f"Bits per token, {args.split} split", found["likelihood"])
    if {"frontier", "samples"} & set(args.parts):
        found["samples"] = evaluate_samples(runs, load_run(args.judge), args)
        flat = [{"model": k, **point} for k, points in found["samples"].items() for point in points]
        show("Samples", [{k: v for k, v in row.items() if k != "options"} for row in flat])
        if args.plot and "frontier" in args.parts:
            curves = {k: v for k, v in found["samples"].items() if k != "data"}
            figure = plots.plot_frontier(curves, found["samples"]["data"][0])
            save_figure(figure, f"{args.plot}_frontier.png")
    if "infill" in args.parts:
        found["infilling"] = evaluate_infilling(runs, args)
        rows = [
            {"model": name, "gap": share, **scores}
            for name, by_share in found["infilling"].items()
            for share, scores in by_share.items()
        ]
        show("Gaps filled in", rows)
        if args.plot:
            figure = plots.plot_infilling(found["infilling"])
            save_figure(figure, f"{args.plot}_infilling.png")
    if "notes" in args.parts:
        found["notes"] = evaluate_notes(runs, args)
        show("Notes of melodies", found["notes"])
    if "words" in args.parts:
        found["words"] = evaluate_words(runs, args)
        show("Words filled in", found["words"])
    if "speed" in args.parts:
        found["speed"] = evaluate_speed(runs)
        show(f"Speed, {BATCH} rows at once", found["speed"])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    try:
        found = evaluate(args)
        if args.json:
            write_json(args.json, found)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"evaluate_cdcd: {error}") from error


if __name__ == "__main__":
    main()
