#!/usr/bin/env python
"""How likely training runs of perceiver_ar find held-out data, or what their samples are like.

Examples:
  # a run with less and less context, a plain decoder, and models that count, in one table
  scripts/evaluate_perceiver_ar.py --run runs/pop909 --run runs/pop909_decoder \\
      --context 256 1024 --latents 256 --baselines --buckets position --plot nats.png

  # the likelihood under which the sampler itself would have made the pieces
  scripts/evaluate_perceiver_ar.py --run runs/pop909 --sampler

  # MIDI files that a model made up (without prompts), beside the data
  scripts/evaluate_perceiver_ar.py --samples out/samples --data data/pop909 --plot samples.png

A run's `config.gin` says what it is: the macros MODEL, TRAIN_TASK, EVALUATE_TASK and
TASK_FEATURE_LENGTHS, and ENCODING for music. Intervals are of 95 %, by bootstrap of whole
sequences; differences are from the first row, for the same tokens.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from musax.datasets import pieces as corpora
from musax.events.pieces import MULTITRACK, PERFORMANCE
from musax.metrics import generated
from musax.metrics.bootstrap import bootstrap_mean
from musax.midi import load_midi
from musax.ngrams import NGram, Unigram
from musax.plots import save_figure
from perceiver_ar import likelihood, plots
from perceiver_ar.blocks import LatentSchedule
from perceiver_ar.preprocessors import restart_positions
from t5x.checkpoints.loading import checkpoint_step, load_params, run_checkpoint
from t5x.data.tasks import Task
from t5x.data.vocabularies import (
    NUM_SPECIAL_IDS,
    ByteVocabulary,
    SentencePieceVocabulary,
    TokenVocabulary,
)
from t5x.files import write_json
from t5x.run_config import read_macros

READERS = ("pop909", "maestro", "asap", "giant_midi", "lakh", "lakh64_trios", "midi_folder")
ENCODINGS = {"performance": PERFORMANCE, "multitrack": MULTITRACK}
COPY_LENGTHS = (8, 16, 32)
SPLITS = ("train", "validation", "test")
BUCKETS = {
    "position": "position of the token",
    "inputs": "tokens to look at",
    "latents": "latents among them",
}


# -------------------------------------------------------------------------------------- likelihood


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run trained, on what, with how much context."""

    name: str
    model: Any
    params: Any
    train_task: Task
    task: Task
    context: int

    @classmethod
    def read(cls, folder: str, step: int | None) -> "Run":
        checkpoint = run_checkpoint(folder, step)
        names = ("MODEL", "TRAIN_TASK", "EVALUATE_TASK", "TASK_FEATURE_LENGTHS")
        model, train_task, task, lengths = read_macros(folder, *names)
        name = f"{Path(folder).resolve().name} ({checkpoint_step(checkpoint)} steps)"
        return cls(name, model, load_params(checkpoint), train_task, task, lengths["targets"])

    @property
    def num_parameters(self) -> int:
        return sum(np.size(x) for x in jax.tree.leaves(self.params))


@dataclasses.dataclass(frozen=True)
class Row:
    """What a model made of the data."""

    name: str
    nats: list[np.ndarray]
    scores: list[likelihood.Scores] | None = None
    num_parameters: int | None = None


def score_run(run: Run, sequences: Sequence[dict], args: argparse.Namespace) -> Iterable[Row]:
    """A row for each context that the run has at least, the longest first."""
    shorter = {context for context in args.context if context < run.context}
    for context in (run.context, *sorted(shorter, reverse=True)):
        latents = min(args.latents or run.model.num_latents or context, context)
        stride = None if args.sampler else min(args.stride or max(latents // 2, 1), latents)
        label = "as sampled" if stride is None else f"stride {stride}"
        found = score_with_progress(
            f"{run.name}, context {context}, {latents} latents, {label}",
            run.model,
            run.params,
            sequences,
            context=context,
            num_latents=latents,
            stride=stride,
            schedule=LatentSchedule(latents) if stride is None else None,
            restart=restart_positions in run.task.preprocessors,
            batch_size=args.batch_size,
        )
        yield dataclasses.replace(found, num_parameters=run.num_parameters)


def score_with_progress(name: str, *data: Any, **options: Any) -> Row:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name)
        found = likelihood.score_sequences(
            *data,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **options,
        )
    return Row(name, [s.nats for s in found], found)


def score_baselines(run: Run, sequences: Sequence[dict], args: argparse.Namespace) -> list[Row]:
    """Unigrams and n-grams, fit on the training split as often varied as asked for."""
    training = tokens_of(likelihood.whole_sequences(run.task, "train"))
    varied = [
        tokens
        for epoch in range(1, args.copies)
        for tokens in tokens_of(likelihood.whole_sequences(run.train_task, "train", epoch=epoch))
    ]
    tuned = "test" if args.split == "validation" else "validation"
    held_out = tokens_of(likelihood.whole_sequences(run.task, tuned))
    size = run.task.output_features["inputs"].vocabulary.vocab_size
    tokens = tokens_of(sequences)
    return [
        Row("unigram", Unigram.fit(training, size).nats(tokens)),
        Row(
            f"{args.order}-gram, {args.copies} x training split, tuned on {tuned}",
            NGram(training + varied, held_out, size, args.order).nats(tokens),
        ),
    ]


def tokens_of(sequences: Iterable[dict]) -> list[np.ndarray]:
    return [np.asarray(sequence["tokens"]) for sequence in sequences]


def count_units(folder: str, task: Task, tokens: Sequence[np.ndarray]) -> tuple[str, int] | None:
    """What the tokens stand for: ("note" or "byte", how many); None for pictures and the like."""
    vocabulary: Any = task.output_features["inputs"].vocabulary
    ids = [row[row >= NUM_SPECIAL_IDS] for row in tokens]
    if isinstance(vocabulary, TokenVocabulary):
        (encoding,) = read_macros(folder, "ENCODING")
        return "note", sum(len(encoding.decode(row - NUM_SPECIAL_IDS).notes) for row in ids)
    if isinstance(vocabulary, ByteVocabulary):
        return "byte", sum(map(len, ids))
    if isinstance(vocabulary, SentencePieceVocabulary):
        return "byte", sum(len(vocabulary.decode(row).encode()) for row in ids)
    return None


def summary(row: Row, first: Row, units: tuple[str, int] | None, by: str | None) -> dict[str, Any]:
    """Numbers of a row, in nats unless they are called otherwise."""
    mean = likelihood.mean_nats(row.nats)
    found = {
        "parameters": row.num_parameters,
        "targets": len(likelihood.counted(row.nats)),
        "nats per token": mean,
        "interval": bootstrap_mean(row.nats).interval,
        "difference": mean - likelihood.mean_nats(first.nats),
        "interval of the difference": bootstrap_mean(row.nats, first.nats).interval,
        "bits per token": likelihood.bits(mean),
        "perplexity": likelihood.perplexity(mean),
    }
    if units is not None:
        name, count = units
        found[f"nats per {name}"] = likelihood.nats_per(row.nats, count)
        if name == "byte":
            found["bits per byte"] = likelihood.bits_per_byte(row.nats, count)
    if by == "position" or (by and row.scores):
        found["buckets"] = [dataclasses.asdict(bucket) for bucket in buckets_of(row, by)]
    return found


def buckets_of(row: Row, by: str) -> list[likelihood.Bucket]:
    if by == "position" or row.scores is None:
        return likelihood.buckets(row.nats)
    edges = likelihood.LATENT_EDGES if by == "latents" else likelihood.EDGES
    return likelihood.buckets(row.nats, [getattr(score, by) for score in row.scores], edges)


def evaluate_runs(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Summaries of all models, by their names."""
    rows: list[Row] = []
    sequences: list[dict] = []
    runs = []
    for folder in args.run:
        run = Run.read(folder, args.step)
        theirs = list(likelihood.whole_sequences(run.task, args.split, args.limit))
        if runs and not same_tokens(sequences, theirs):
            raise ValueError(
                f"{folder}: its data are not those of {args.run[0]}; evaluate it alone"
            )
        runs.append(run)
        sequences = theirs
        rows += score_run(run, sequences, args)
    if args.baselines:
        rows += score_baselines(runs[0], sequences, args)
    units = count_units(args.run[0], runs[0].task, tokens_of(sequences))
    return {row.name: summary(row, rows[0], units, args.buckets) for row in rows}


def same_tokens(ours: Sequence[dict], theirs: Sequence[dict]) -> bool:
    pairs = zip(tokens_of(ours), tokens_of(theirs))
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in pairs)


# ----------------------------------------------------------------------------------------- samples


def read_sets(args: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Note arrays of the samples, the split, the training split, and another held-out split."""
    paths = sorted(p for p in Path(args.samples).rglob("*") if p.suffix in (".mid", ".midi"))
    if not paths:
        raise ValueError(f"{args.samples}: no .mid or .midi files there; --samples is their folder")
    encoding = ENCODINGS[args.encoding]

    def read(split: str, limit: int | None = None) -> list[np.ndarray]:
        reader = getattr(corpora, args.corpus)
        found = reader(args.data, "valid" if split == "validation" else split)
        return [piece.load_or_empty() for piece in found[:limit]]

    def rounded(pieces: list[np.ndarray]) -> list[np.ndarray]:
        # Velocities and times as a model of events has them.
        return [encoding.decode(encoding.encode(notes)).notes for notes in pieces]

    samples = [load_midi(path) for path in paths]
    other = "test" if args.split == "validation" else "validation"
    return {
        "samples": rounded(samples),
        args.split: rounded(read(args.split, args.limit)),
        other: rounded(read(other))[: len(samples)],
        "train": read("train"),
    }


def evaluate_samples(sets: dict[str, list[np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Distances from the split and copies of the training split, of samples and held-out pieces.

    Held-out pieces are cut to the mean length of samples, where the longest copies are sought.
    """
    (_, samples), (split, reference), (other, floor), (_, training) = sets.items()
    size = int(np.mean([len(notes) for notes in samples]))
    found: dict[str, dict[str, Any]] = {
        f"distance from {split}": {
            name: {
                feature: dataclasses.asdict(distance)
                for feature, distance in generated.compare(pieces, reference).items()
            }
            for name, pieces in (("samples", samples), (f"{len(floor)} of {other}", floor))
        }
    }
    for view in generated.VIEWS:
        rows = {}
        for name, pieces in (("samples", samples), (split, reference)):
            shares = {
                f"of {n} notes": generated.copy_rate(pieces, training, n, view)
                for n in COPY_LENGTHS
            }
            longest = generated.longest_copies([p[:size] for p in pieces], training, view)
            rows[name] = shares | {
                "median longest": float(np.median(longest)),
                "longest": float(max(longest)),
            }
        found[f"copies of train, {view}"] = rows
    return found


# --------------------------------------------------------------------------------------- reporting


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; numbers to the right."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=max(Console().width, 160)).print(table)


def cell(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{x:.3f}" for x in value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def show_runs(found: dict[str, dict[str, Any]], title: str) -> None:
    """Prints the numbers, and the buckets if there are some."""
    header = [name for name in next(iter(found.values())) if name != "buckets"]
    show(title, ["model", *header], ([k, *(cell(v[h]) for h in header)] for k, v in found.items()))
    curves = bucket_curves(found)
    if curves:
        longest = max(curves.values(), key=len)
        rows = (
            [name, *(cell(bucket.nats) for bucket in buckets)] for name, buckets in curves.items()
        )
        show("Nats per token by bucket", ["model", *(b.name for b in longest)], rows)


def bucket_curves(found: dict[str, dict[str, Any]]) -> dict[str, list[likelihood.Bucket]]:
    return {
        name: [likelihood.Bucket(**bucket) for bucket in values["buckets"]]
        for name, values in found.items()
        if "buckets" in values
    }


def show_samples(found: dict[str, dict[str, Any]]) -> None:
    """Prints a table of distances and one of copies."""
    (title, distances), *copies = found.items()
    sets = list(distances)
    header = [f"{name}: {kind}" for kind in ("overlap", "kl", "wasserstein") for name in sets]
    rows = []
    for feature in generated.FEATURES:
        values = [distances[s][feature][k] for k in ("overlap", "kl", "wasserstein") for s in sets]
        rows.append([feature, *map(cell, values)])
    show(title.capitalize(), ["feature", *header], rows)
    for title, rows in copies:
        header = list(next(iter(rows.values())))
        lines = ([name, *(cell(values[h]) for h in header)] for name, values in rows.items())
        show(f"Share of runs of notes that are {title}", ["pieces", *header], lines)


# ------------------------------------------------------------------------------------ command line


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", action="append", default=[], metavar="RUN_DIR", help="MODEL_DIR of a training run")
    add("--step", type=int, help="of the checkpoint; the last by default")
    add("--split", default="test", choices=SPLITS, help="what is evaluated (test)")
    add("--limit", type=int, help="sequences or pieces of the split; all by default")
    add("--context", type=int, nargs="+", default=[], help="inputs; also the run's own, always")
    add("--latents", type=int, help="of a window; the network's, as far as the context allows it")
    add("--stride", type=int, help="targets scored by a window; half the latents by default")
    add("--sampler", action="store_true", help="the windows of the sampler, instead of a stride")
    add("--batch_size", type=int, default=8, help="windows at a time (8)")
    add("--baselines", action="store_true", help="also unigrams and n-grams")
    add("--order", type=int, default=6, help="of the n-grams (6)")
    add("--copies", type=int, default=4, help="of the training split for them, all but one varied")
    add("--buckets", choices=BUCKETS, help="also by position, or by inputs or latents in sight")
    add("--samples", metavar="DIR", help="MIDI files that a model made up")
    add("--data", metavar="DIR", help="the corpus they are compared with")
    add("--corpus", default="pop909", choices=READERS, help="its kind (pop909)")
    add("--encoding", default="performance", choices=ENCODINGS, help="of events (performance)")
    add("--plot", metavar="FILE.png", help="picture of the runs' buckets, or of the statistics")
    add("--json", metavar="FILE", help="all numbers")
    args = parser.parse_args(arguments)
    if bool(args.run) == bool(args.samples):
        parser.error("give either --run RUN_DIR, once or more, or --samples DIR")
    if args.samples and not args.data:
        parser.error("--samples needs --data, the corpus to compare with")
    if args.plot and args.run and not args.buckets:
        args.buckets = "position"
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the evaluation that the command line asks for."""
    args = parse(arguments)
    try:
        if args.run:
            found = evaluate_runs(args)
            show_runs(found, f"{args.split} split")
        else:
            sets = read_sets(args)
            found = evaluate_samples(sets)
            show_samples(found)
        if args.json:
            write_json(args.json, found)
        if args.plot and args.run:
            runs = {name: row for name, row in found.items() if row["parameters"]}
            figure = plots.plot_buckets(bucket_curves(runs), by=BUCKETS[args.buckets])
            save_figure(figure, args.plot)
        elif args.plot:
            shown = {name: sets[name] for name in (args.split, "samples")}
            save_figure(plots.plot_statistics(shown), args.plot)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"evaluate_perceiver_ar: {error}") from error


if __name__ == "__main__":
    main()
