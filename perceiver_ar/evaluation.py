"""Likelihoods of held-out data under runs and models, compared with each other and with n-grams.

    runs = [load_run("runs/pop909"), load_run("runs/pop909_decoder")]
    print(evaluate(runs, baselines=Baselines()).render())

Intervals are of 95 %, by bootstrap of whole sequences; differences are from the first row, for the
same tokens.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musax.datasets import pieces
from musax.metrics import Progress, no_progress
from musax.metrics.bootstrap import bootstrap_mean
from musax.ngrams import NGram, Unigram
from musax.runs import TrainedRun, load_trained_run
from musax.tables import Report, Table
from musax.trust import read_macros
from perceiver_ar import likelihood
from perceiver_ar.blocks import LatentSchedule
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.music import music_task, piece_source
from perceiver_ar.network import PerceiverAR
from perceiver_ar.optimizers import optimizer
from perceiver_ar.preprocessors import restart_positions
from t5x.data.vocabularies import (
    NUM_SPECIAL_IDS,
    ByteVocabulary,
    SentencePieceVocabulary,
    TokenVocabulary,
)

#: What buckets are of, and how that is said.
BUCKETS = {
    "position": "position of the token",
    "inputs": "inputs of the block",
    "latents": "latents of the block",
}


def load_run(run_dir: str | Path, step: int | None = None) -> TrainedRun:
    """Read a training run, see `musax.runs.load_trained_run`; for music, with ENCODING.

    Raises:
      FileNotFoundError: no `config.gin`, or no such checkpoint.
      ValueError: the configuration lacks a macro.
    """
    run = load_trained_run(run_dir, step)
    if not isinstance(run.evaluate_task.output_features["inputs"].vocabulary, TokenVocabulary):
        return run
    (encoding,) = read_macros(run_dir, "ENCODING")
    return dataclasses.replace(run, encoding=encoding)


def load_model(name_or_dir: str | Path, data: str, corpus: str = "pop909") -> TrainedRun:
    """Load a model folder, with a corpus of music as its data.

    Args:
      name_or_dir: see `musax.pretrained.load`.
      data: folder of the corpus.
      corpus: its reader, a function of `musax.datasets.pieces`.

    Raises:
      PretrainedError: the model is unknown or damaged.
    """
    from perceiver_ar.inference import Composer

    composer = Composer.from_pretrained(name_or_dir)
    network, encoding = composer.config.network, composer.config.encoding
    source = piece_source(getattr(pieces, corpus), data)
    train_task, task = (
        music_task(source, encoding, num_latents=network.z_index_dim, purpose=purpose)
        for purpose in ("train", "evaluate")
    )
    model = PerceiverARModel(PerceiverAR(network), None, optimizer())
    name, context = Path(name_or_dir).name, network.max_context_length
    return TrainedRun(model, composer.params, train_task, task, context, 0, name, encoding)


@dataclasses.dataclass(frozen=True)
class Windows:
    """How sequences are cut into blocks; see `likelihood.score_sequences`.

    Attributes:
      contexts: inputs of a block, besides a run's own context; longer ones are left out.
      latents: of a block; None for the network's, as far as the context allows.
      stride: targets scored by a block; None for half of the latents.
      as_sampled: cut as the sampler does, in place of a stride.
      batch_size: blocks at a time.
    """

    contexts: Sequence[int] = ()
    latents: int | None = None
    stride: int | None = None
    as_sampled: bool = False
    batch_size: int = 8


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Models that count tokens, fit on the training split of the first run.

    Attributes:
      order: tokens of the longest n-gram.
      copies: of the training split, all but one varied as in training.
    """

    order: int = 6
    copies: int = 4


@dataclasses.dataclass(frozen=True)
class _Row:
    """The costs of all targets under a model, as `likelihood.Scores.nats` has them."""

    name: str
    nats: list[np.ndarray]
    scores: list[likelihood.Scores] | None = None
    num_parameters: int | None = None


def evaluate(
    runs: Sequence[TrainedRun],
    *,
    split: str = "test",
    limit: int | None = None,
    windows: Windows = Windows(),
    baselines: Baselines | None = None,
    buckets: str | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Score a split with all runs.

    Args:
      runs: with the same data.
      split: "train", "validation" or "test".
      limit: sequences of the split; None for all.
      windows: how they are cut.
      baselines: models that count, in further rows; None for none.
      buckets: key of `BUCKETS`: means by this property of targets too; None for none.
      progress: called while scoring, with targets.

    Returns:
      A table of nats and bits per token, perplexity, and nats per note or bits per byte, and one of
      buckets; the data has all numbers by the name of the row.

    Raises:
      ValueError: runs have different data, or the windows do not fit.
    """
    rows: list[_Row] = []
    sequences: Sequence[Mapping[str, Any]] = []
    for run in runs:
        own = list(likelihood.whole_sequences(run.evaluate_task, split, limit))
        if rows and not _same_tokens(sequences, own):
            raise ValueError(
                f"{run.name}: other data than those of {runs[0].name}: evaluate it alone"
            )
        sequences = own
        rows += _score_run(run, sequences, windows, progress)
    if baselines is not None:
        rows += _score_baselines(runs[0], sequences, split, baselines)
    units = _count_units(runs[0], _tokens_of(sequences))
    data = {row.name: _summary(row, rows[0], units, buckets) for row in rows}
    return Report(_tables(data, split), data)


def bucket_curves(data: Mapping[str, Mapping[str, Any]]) -> dict[str, list[likelihood.Bucket]]:
    """Return the buckets of each row of `Report.data` that has some."""
    return {
        name: [likelihood.Bucket(**bucket) for bucket in values["buckets"]]
        for name, values in data.items()
        if "buckets" in values
    }


# ---------------------------------------------------------------------------------------- scoring


def _score_run(
    run: TrainedRun, sequences: Sequence[Mapping[str, Any]], windows: Windows, progress: Progress
) -> Iterator[_Row]:
    """Yield a row for each context, the longest first."""
    shorter = {context for context in windows.contexts if context < run.length}
    for context in (run.length, *sorted(shorter, reverse=True)):
        latents = min(windows.latents or run.model.num_latents or context, context)
        stride = min(windows.stride or max(latents // 2, 1), latents)
        label = "as sampled" if windows.as_sampled else f"stride {stride}"
        name = f"{run.name}, context {context}, {latents} latents, {label}"
        found = likelihood.score_sequences(
            run.model,
            run.params,
            sequences,
            context=context,
            num_latents=latents,
            stride=None if windows.as_sampled else stride,
            schedule=LatentSchedule(latents) if windows.as_sampled else None,
            restart=restart_positions in run.evaluate_task.preprocessors,
            batch_size=windows.batch_size,
            progress=lambda done, total, title=name: progress(title, done, total),
        )
        yield _Row(name, [s.nats for s in found], found, run.num_parameters)


def _score_baselines(
    run: TrainedRun, sequences: Sequence[Mapping[str, Any]], split: str, options: Baselines
) -> list[_Row]:
    training = _tokens_of(likelihood.whole_sequences(run.evaluate_task, "train"))
    varied = [
        tokens
        for epoch in range(1, options.copies)
        for tokens in _tokens_of(likelihood.whole_sequences(run.train_task, "train", epoch=epoch))
    ]
    tuned = "test" if split == "validation" else "validation"
    held_out = _tokens_of(likelihood.whole_sequences(run.evaluate_task, tuned))
    size = run.evaluate_task.output_features["inputs"].vocabulary.vocab_size
    tokens = _tokens_of(sequences)
    name = f"{options.order}-gram, {options.copies} x training split, tuned on {tuned}"
    ngram = NGram(training + varied, held_out, size, options.order)
    unigram = Unigram.fit(training, size)
    return [_Row("unigram", unigram.nats(tokens)), _Row(name, ngram.nats(tokens))]


def _tokens_of(sequences: Iterable[Mapping[str, Any]]) -> list[np.ndarray]:
    return [np.asarray(sequence["tokens"]) for sequence in sequences]


def _same_tokens(ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> bool:
    pairs = zip(_tokens_of(ours), _tokens_of(theirs))
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------------------------------- results


def _count_units(run: TrainedRun, tokens: Sequence[np.ndarray]) -> tuple[str, int] | None:
    """Return ("note" or "byte", number of units) of tokens; None for pictures and other data."""
    vocabulary: Any = run.evaluate_task.output_features["inputs"].vocabulary
    ids = [row[row >= NUM_SPECIAL_IDS] for row in tokens]
    if run.encoding is not None:
        return "note", sum(len(run.encoding.decode(row - NUM_SPECIAL_IDS).notes) for row in ids)
    if isinstance(vocabulary, ByteVocabulary):
        return "byte", sum(map(len, ids))
    if isinstance(vocabulary, SentencePieceVocabulary):
        return "byte", sum(len(vocabulary.decode(row).encode()) for row in ids)
    return None


def _summary(
    row: _Row, first: _Row, units: tuple[str, int] | None, by: str | None
) -> dict[str, Any]:
    """Return the numbers of a row, in nats unless they are named otherwise."""
    mean, *interval = bootstrap_mean(row.nats)
    difference, *interval_of_difference = bootstrap_mean(row.nats, first.nats)
    found = {
        "parameters": row.num_parameters,
        "targets": len(likelihood.counted(row.nats)),
        "nats per token": mean,
        "interval": tuple(interval),
        "difference": difference,
        "interval of the difference": tuple(interval_of_difference),
        "bits per token": likelihood.bits(mean),
        "perplexity": likelihood.perplexity(mean),
    }
    if units is not None:
        name, count = units
        found[f"nats per {name}"] = likelihood.nats_per(row.nats, count)
        if name == "byte":
            found["bits per byte"] = likelihood.bits_per_byte(row.nats, count)
    if by == "position" or (by and row.scores):
        found["buckets"] = [dataclasses.asdict(bucket) for bucket in _buckets_of(row, by)]
    return found


def _buckets_of(row: _Row, by: str) -> list[likelihood.Bucket]:
    if by == "position" or row.scores is None:
        return likelihood.buckets(row.nats)
    edges = likelihood.LATENT_EDGES if by == "latents" else likelihood.EDGES
    return likelihood.buckets(row.nats, [getattr(score, by) for score in row.scores], edges)


def _tables(data: Mapping[str, Mapping[str, Any]], split: str) -> list[Table]:
    rows = [
        {"model": name} | {k: v for k, v in values.items() if k != "buckets"}
        for name, values in data.items()
    ]
    formats = {"interval": ".3f", "interval of the difference": ".3f"}
    tables = [Table(f"{split} split", rows, formats)]
    curves = bucket_curves(data)
    if curves:
        cells = [{"model": k} | {b.name: b.nats for b in v} for k, v in curves.items()]
        tables.append(Table("Nats per token by bucket", cells))
    return tables
