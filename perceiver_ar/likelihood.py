"""Likelihoods of whole sequences under a model: the cost of every target, and averages.

A sequence is scored in blocks (`perceiver_ar.blocks`): strided ones, or those of sampling, for the
likelihood under which it was sampled. Costs are in nats, -log p. Averages are over the targets of
all sequences together.

    scores = score_sequences(model, params, sequences, context=4096, stride=256)
    mean_nats([s.nats for s in scores])
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from perceiver_ar.blocks import LatentSchedule
from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from perceiver_ar.models import SequenceModel
from perceiver_ar.preprocessors import (
    Example,
    crop,
    evaluation_windows,
    number_positions,
    restart_positions,
)
from t5x.data.preprocessors import PreprocessorChain
from t5x.data.tasks import Task

#: Lower edges of buckets of positions (those of the reference, 0 to 131,072).
EDGES = (0, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)

#: Those of numbers of latents.
LATENT_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

#: (targets scored, targets in all)
Progress = Callable[[int, int], None]


class Scores(NamedTuple):
    """The targets of one sequence of n + 1 tokens; those that were given have NaN, 0 and 0.

    Attributes:
      nats: float32 [n], -log p of tokens 1 to n.
      inputs: int32 [n], number of visible tokens.
      latents: int32 [n], how many of them were latents of the block.
    """

    nats: np.ndarray
    inputs: np.ndarray
    latents: np.ndarray


def whole_sequences(
    task: Task, split: str, limit: int | None = None, epoch: int = 0
) -> Iterator[Example]:
    """Yield the sequences of a task of `perceiver_ar.tasks.sequence_task`, before they are cut.

    Args:
      task: to train or to evaluate.
      split: of its source.
      limit: examples of the source that are read; None is all.
      epoch: of a training task, whose random changes differ by epoch.

    Raises:
      ValueError: the task does not cut anything, or has no such split.
    """
    steps = task.preprocessors
    cuts = [i for i, s in enumerate(steps) if getattr(s, "func", s) in (crop, evaluation_windows)]
    if not cuts:
        raise ValueError(f"task {task.name!r} is none of perceiver_ar.tasks.sequence_task")
    whole = PreprocessorChain(steps[: cuts[0]], task.output_features, None, seed=0)
    raw = task.sequence(split)
    for i in range(len(raw) if limit is None else min(limit, len(raw))):
        yield from whole(raw[i], epoch, i)


# ------------------------------------------------------------------------------------ scoring


def score_sequences(
    model: SequenceModel,
    params: Any,
    sequences: Sequence[Mapping[str, Any]],
    *,
    context: int,
    num_latents: int | None = None,
    stride: int | None = None,
    schedule: LatentSchedule | None = None,
    restart: bool = False,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> list[Scores]:
    """Return scores of all targets of sequences, in float32.

    There is one program for each power of two of a block's length, from the latents on.

    Args:
      model: a `PerceiverARModel` or `PlainDecoderModel`.
      params: of its network.
      sequences: `tokens` int [n + 1]; optionally `positions` [n + 1, C] and `prefix_lengths`,
        tokens that are given. See `perceiver_ar.preprocessors`.
      context: inputs of a block.
      num_latents: of a block, up to the model's, or the schedule's, and the context.
      stride, schedule: see `preprocessors.evaluation_windows`.
      restart: count positions from the beginning of a block, `preprocessors.restart_positions`.
      batch_size: blocks scored together.
      progress: called after every batch.

    Raises:
      ValueError: a sequence has fewer than two tokens or the padding id 0; latents or the stride
        do not fit, or there is a schedule too.
    """
    latents = _latents(model, context, num_latents, schedule)
    examples = [_checked(i, sequence) for i, sequence in enumerate(sequences)]
    scores = [_empty_scores(example) for example in examples]
    windows = functools.partial(
        evaluation_windows,
        sequence_length={"targets": context},
        num_latents=latents,
        stride=stride,
        schedule=schedule,
    )
    pieces = _pieces(examples, scores, windows, restart)
    params = jax.device_put(params)
    done, total = 0, sum(len(score.nats) for score in scores)
    for width, rows in _batches(pieces, latents, context, batch_size):
        batch = _padded_batch([row.example for row in rows], width, batch_size)
        nats, weights = jax.device_get(_target_nats(model, latents, params, batch))
        for row, found, counted in zip(rows, nats, weights):
            row.nats[:] = found[counted > 0]
        done += sum(len(row.nats) for row in rows)
        if progress is not None:
            progress(done, total)
    return scores


@functools.partial(jax.jit, static_argnums=(0, 1))
def _target_nats(
    model: SequenceModel, num_latents: int, params: Any, batch: Mapping[str, Any]
) -> tuple[Array, Array]:
    scorer = copy.copy(model)
    scorer.num_latents = num_latents
    return scorer.target_nats(params, batch)


def _latents(
    model: SequenceModel, context: int, wanted: int | None, schedule: LatentSchedule | None
) -> int:
    most = min(model.num_latents or context, context)
    wanted = schedule.num_latents if schedule is not None else wanted or most
    if not 1 <= wanted <= most:
        raise ValueError(
            f"{wanted} latents: expected 1 to {most}, of the model and the context={context}"
        )
    return wanted


class _Piece(NamedTuple):
    """A block of a sequence, and the part of its scores that it fills."""

    example: Example
    nats: np.ndarray


def _checked(number: int, sequence: Mapping[str, Any]) -> Example:
    tokens = np.asarray(sequence["tokens"])
    if tokens.ndim != 1 or len(tokens) < 2 or not tokens.all():
        raise ValueError(
            f"sequence {number}: expected tokens [n + 1] with n >= 1 and no padding (0), got "
            f"{list(tokens.shape)} with {np.count_nonzero(tokens == 0)} zeros"
        )
    return number_positions({**sequence, "tokens": tokens})


def _empty_scores(example: Example) -> Scores:
    length = len(example["tokens"]) - 1
    none = np.zeros(length, np.int32)
    return Scores(np.full(length, np.nan, np.float32), none, none.copy())


def _pieces(
    examples: Sequence[Example],
    scores: Sequence[Scores],
    windows: Callable[[Example], Iterator[Example]],
    restart: bool,
) -> Iterator[_Piece]:
    """Yield all blocks of all sequences; fill in how many inputs and latents their targets see."""
    for example, score in zip(examples, scores):
        at = max(int(example.get("prefix_lengths", 0)), 1) - 1
        for window in windows(example):
            scored = int(window["loss_weights"].sum())
            after = np.arange(1 - scored, 1)
            score.inputs[at : at + scored] = len(window["inputs"]) + after
            score.latents[at : at + scored] = window["latent_counts"] + after
            window = restart_positions(window) if restart else window
            yield _Piece(window, score.nats[at : at + scored])
            at += scored


def _batches(
    pieces: Iterator[_Piece], num_latents: int, context: int, batch_size: int
) -> Iterator[tuple[int, list[_Piece]]]:
    """Yield (width, pieces of up to that many inputs); the last batch of a width may be short."""
    waiting: dict[int, list[_Piece]] = {}
    for piece in pieces:
        width = num_latents
        while width < len(piece.example["inputs"]):
            width *= 2
        width = min(width, context)
        rows = waiting.setdefault(width, [])
        rows.append(piece)
        if len(rows) == batch_size:
            yield width, waiting.pop(width)
    yield from waiting.items()


def _padded_batch(examples: Sequence[Example], width: int, rows: int) -> dict[str, np.ndarray]:
    converter = PerceiverARFeatureConverter()
    batch = converter.convert(converter.collate(examples, {"inputs": width, "targets": width}))
    missing = rows - len(examples)
    return {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}


# ----------------------------------------------------------------------------------- summaries


def counted(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return float64 [M], the values of all sequences that are not NaN."""
    joined = np.concatenate([np.asarray(x, np.float64) for x in values])
    return joined[~np.isnan(joined)]


def mean_nats(nats: Sequence[np.ndarray]) -> float:
    """Return nats per target: [n] each sequence, NaN where a target does not count."""
    return float(counted(nats).mean())


def bits(nats: float) -> float:
    """Return nats as bits: bits per token, or per dimension of an image (section 5.3)."""
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """Return the perplexity of nats per token, or per word (section 5.4)."""
    return math.exp(nats)


def nats_per(nats: Sequence[np.ndarray], units: float) -> float:
    """Return all nats over a number of notes, words, bytes or seconds, whatever tokens they are.

    Models with different tokens can be compared by it.

    Raises:
      ValueError: the number is not positive.
    """
    if not units > 0:
        raise ValueError(f"nats_per: {units} units, expected a positive number")
    return float(counted(nats).sum() / units)


def bits_per_byte(nats: Sequence[np.ndarray], num_bytes: int) -> float:
    """Return bits per byte of the UTF-8 text that the tokens stand for."""
    return bits(nats_per(nats, num_bytes))


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Targets whose value is from `low` to below `high`.

    Attributes:
      low, high: its edges; the last bucket has no upper one (None).
      count: of targets.
      nats: their mean; NaN without any.
    """

    low: int
    high: int | None
    count: int
    nats: float

    @property
    def name(self) -> str:
        """Such as "512-1023"."""
        if self.high is None:
            return f"{self.low}+"
        return str(self.low) if self.high == self.low + 1 else f"{self.low}-{self.high - 1}"


def buckets(
    nats: Sequence[np.ndarray],
    values: Sequence[np.ndarray] | None = None,
    edges: Sequence[int] = EDGES,
) -> list[Bucket]:
    """Return mean nats by a property of the targets, each of which is in one bucket.

    Args:
      nats: [n] each sequence.
      values: int [n] each, such as `Scores.latents`; by default positions, counted from 0.
      edges: ascending lower edges; empty buckets after the last target are left out.

    Raises:
      ValueError: edges do not ascend, or a value is below the first.
    """
    if list(edges) != sorted(set(edges)):
        raise ValueError(f"edges={tuple(edges)}: expected ascending numbers")
    values = [np.arange(len(x)) for x in nats] if values is None else values
    cost = np.concatenate([np.asarray(x, np.float64) for x in nats])
    kept = ~np.isnan(cost)
    cost, value = cost[kept], np.concatenate(values)[kept]
    if value.size and value.min() < edges[0]:
        raise ValueError(f"a target has the value {value.min()}, below the first edge {edges[0]}")
    place = np.searchsorted(edges, value, side="right") - 1
    count = np.bincount(place, minlength=1)
    total = np.bincount(place, weights=cost, minlength=1)
    means = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    upper = [*edges[1:], None]
    return [Bucket(edges[i], upper[i], int(count[i]), float(means[i])) for i in range(len(count))]
