"""Baselines: unigram and n-gram models of tokens.

Both give the cost in nats, -log p, of every target of sequences of n + 1 tokens. The first token of
a sequence, such as SOS, is given; the others are its targets.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

Sequences = Sequence[np.ndarray]

#: Weights of an order are shared by contexts of similar mean counts, in buckets.
_BUCKETS_PER_OCTAVE, _BUCKETS = 8, 128


@dataclasses.dataclass(frozen=True)
class Unigram:
    """Unigram model: frequencies of tokens, one added to each count.

    Attributes:
      probability: float64 [V].
    """

    probability: np.ndarray

    @classmethod
    def fit(cls, sequences: Sequences, vocabulary_size: int) -> "Unigram":
        """Count the targets of sequences, int [n + 1] each."""
        targets = _checked(np.concatenate([tokens[1:] for tokens in sequences]), vocabulary_size)
        count = np.bincount(targets, minlength=vocabulary_size) + 1.0
        return cls(count / count.sum())

    def nats(self, sequences: Sequences) -> list[np.ndarray]:
        """Return the cost of every target, float64 [n] each."""
        cost = -np.log(self.probability)
        return [cost[_checked(tokens[1:], len(cost))] for tokens in sequences]


@dataclasses.dataclass(frozen=True)
class _Level:
    """The n-grams of one order. A context and a token are one number together, sorted.

    Attributes:
      contexts: int64 [C], a context is the one shorter by its oldest token, and that token.
      grams: int64 [G], a context and the token after it.
      share: float64 [G], the fraction of the context's occurrences that the token followed.
      bucket: int64 [C], from 1, whose weight a context has.
    """

    contexts: np.ndarray
    grams: np.ndarray
    share: np.ndarray
    bucket: np.ndarray


class NGram:
    """Interpolated n-grams of up to `order` tokens (Jelinek & Mercer 1980).

    p_k(w | c) = λ count(c w) / count(c) + (1 - λ) p_{k-1}(w | c without its oldest token), down to
    a uniform p_0. Contexts share their λ by the mean count of the tokens that followed them (Chen &
    Goodman 1998, section 2.3); EM finds those under which held-out sequences are likeliest.

    Args:
      training: sequences to count, int [n + 1] each.
      held_out: others, to tune the weights on.
      vocabulary_size: V.
      order: tokens of the longest n-gram.
      iterations: of EM.

    Raises:
      ValueError: a token is not in the vocabulary, or numbers do not fit.
    """

    def __init__(
        self,
        training: Sequences,
        held_out: Sequences,
        vocabulary_size: int,
        order: int = 6,
        iterations: int = 30,
    ):
        if order < 1 or not training or not held_out:
            raise ValueError(
                f"order={order}, {len(training)} training and {len(held_out)} held-out sequences: "
                "expected at least one of each"
            )
        self.vocabulary_size, self.order = vocabulary_size, order
        self._levels = self._count(training)
        self._weights = [np.full(_BUCKETS + 1, 0.5) for _ in self._levels]
        for weights in self._weights:
            weights[0] = 0.0  # contexts that were never seen
        looked_up = list(self._look_up(held_out))
        for _ in range(iterations):
            self._weights = _expectation_maximization(self._weights, looked_up, self._uniform)

    @property
    def _uniform(self) -> float:
        return 1.0 / self.vocabulary_size

    def nats(self, sequences: Sequences) -> list[np.ndarray]:
        """Return the cost of every target, float64 [n] each."""
        probability = _interpolate(self._weights, self._look_up(sequences), self._uniform)[-1]
        ends = np.cumsum([len(tokens) - 1 for tokens in sequences])
        return np.split(-np.log(probability), ends[:-1])

    def _columns(self, sequences: Sequences) -> Iterator[np.ndarray]:
        """Return int64 [M] each: targets, then the token before each, and so on; V before SOS."""
        before = np.full(self.order - 1, self.vocabulary_size)
        rows = [_checked(np.asarray(tokens), self.vocabulary_size) for tokens in sequences]
        flat = np.concatenate([part for tokens in rows for part in (before, tokens)])
        ends = np.cumsum([self.order - 1 + len(tokens) for tokens in sequences])
        target = np.ones(len(flat), bool)
        for end, tokens in zip(ends, sequences):
            target[end - len(tokens) - self.order + 1 : end - len(tokens) + 1] = False
        at = np.flatnonzero(target)
        return (flat[at - k].astype(np.int64) for k in range(self.order))

    def _count(self, sequences: Sequences) -> list[_Level]:
        size, columns = self.vocabulary_size, self._columns(sequences)
        targets = next(columns)
        contexts, context = np.zeros(1, np.int64), np.zeros(len(targets), np.int64)
        levels = []
        for k in range(self.order):
            if k:
                keys = context * (size + 1) + next(columns)
                contexts, context = np.unique(keys, return_inverse=True)
            grams, count = np.unique(context * size + targets, return_counts=True)
            total = np.bincount(grams // size, weights=count)
            mean = total / np.bincount(grams // size)
            bucket = 1 + np.minimum(_BUCKETS_PER_OCTAVE * np.log2(mean), _BUCKETS - 1).astype(int)
            levels.append(_Level(contexts, grams, count / total[grams // size], bucket))
        return levels

    def _look_up(self, sequences: Sequences) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (share of each target after its context, bucket of the context), [M], by order."""
        size, columns = self.vocabulary_size, self._columns(sequences)
        targets = next(columns)
        context, seen = np.zeros(len(targets), np.int64), np.ones(len(targets), bool)
        for k, level in enumerate(self._levels):
            if k:
                context, found = _find(level.contexts, context * (size + 1) + next(columns))
                seen &= found
            gram, found = _find(level.grams, context * size + targets)
            share = np.where(found & seen, level.share[gram], 0.0)
            yield share, np.where(seen, level.bucket[context], 0)


def _checked(tokens: np.ndarray, size: int) -> np.ndarray:
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < size:
        raise ValueError(f"tokens {tokens.min()} to {tokens.max()}: expected 0 to {size - 1}")
    return tokens


def _find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places in sorted keys, and whether the given keys occur."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def _interpolate(weights, looked_up, uniform: float) -> list[np.ndarray]:
    """Return p_0 to p_order of every target."""
    found = [np.array(uniform)]
    for weight, (share, bucket) in zip(weights, looked_up):
        chosen = weight[bucket]
        found.append(chosen * share + (1 - chosen) * found[-1])
    return found


def _expectation_maximization(weights, looked_up, uniform: float) -> list[np.ndarray]:
    """Return weights of each order by one step of EM, with half a count of prior."""
    probability = _interpolate(weights, looked_up, uniform)
    reach: np.ndarray = np.ones(len(looked_up[0][0]))  # that a target came from this order or less
    better = []
    for k in reversed(range(len(weights))):
        share, bucket = looked_up[k]
        here = reach * weights[k][bucket] * share / probability[k + 1]
        ours, reached = (np.bincount(bucket, x, len(weights[k])) for x in (here, reach))
        better.append((ours + 0.5) / (reached + 1.0))
        better[-1][0] = 0.0
        reach = reach - here
    return better[::-1]
