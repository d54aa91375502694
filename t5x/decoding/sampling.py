"""How the next token is drawn from logits: temperature, top-k, nucleus, min-p, repetition.

Letters in shapes: B rows (batch times decodes), V vocabulary. Every option is one number, or an
array or sequence [B] with one for each row.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from jax import Array, lax

from t5x.decoding.logit_masks import minp_mask, topk_mask, topp_mask
from t5x.reductions import argmax

#: Below this temperature the most likely token is taken.
MIN_TEMPERATURE = 1e-4


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """The distribution of the next token; the arguments of `temperature_sample` of these names.

    The logits of tokens seen before are penalised, all are divided by the temperature, and what
    top-k, top-p and min-p each keep of the result is sampled from.
    """

    temperature: float | Array = 1.0
    topk: int | Array = 0
    topp: float | Array = 0.0
    min_p: float | Array = 0.0
    repetition_penalty: float | Array = 1.0
    rescale_log_probs: bool = True

    def __post_init__(self):
        """Take sequences as arrays; raise ValueError for a penalty that is not positive."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (list, tuple)):
                kind = jnp.int32 if field.name == "topk" else jnp.float32
                object.__setattr__(self, field.name, jnp.asarray(value, kind))
        penalty = self.repetition_penalty
        if _is_number(penalty) and penalty <= 0:
            raise ValueError(f"repetition_penalty must be positive (1 is none), got {penalty}")

    @property
    def greedy(self) -> bool:
        """Whether it is known before tracing that nothing is random."""
        temperature, topk = self.temperature, self.topk
        return (_is_number(temperature) and temperature <= MIN_TEMPERATURE) or (
            _is_number(topk) and topk == 1
        )

    @property
    def penalises(self) -> bool:
        """Whether tokens seen before matter."""
        return not (_is_number(self.repetition_penalty) and self.repetition_penalty == 1)

    def expand(self, expand: Callable[[Array], Array]) -> "SamplingOptions":
        """These options for several decodes of each row."""
        rows = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rows = {k: expand(v) if getattr(v, "ndim", 0) == 1 else v for k, v in rows.items()}
        return dataclasses.replace(self, **rows)

    def choose(self, logits: Array, seen: Array | None, rng: Array | None) -> tuple[Array, Array]:
        """The next tokens.

        Args:
          logits: float32 [B, V].
          seen: bool [B, V], tokens of each row so far; None if nothing is penalised.
          rng: random key; None if greedy.

        Returns:
          (tokens int32 [B], their log-probabilities float32 [B]): in the distribution sampled
          from if `rescale_log_probs` (0 for greedy rows), else in softmax(logits).
        """
        penalised = logits
        if self.penalises:
            assert seen is not None
            penalised = penalise_repetition(logits, seen, self.repetition_penalty)
        if self.greedy:
            tokens = argmax(penalised)
            certain = jnp.zeros(tokens.shape, jnp.float32)
            return tokens, certain if self.rescale_log_probs else _log_prob(logits, tokens)
        assert rng is not None
        temperature = jnp.broadcast_to(jnp.asarray(self.temperature), logits.shape[:1])
        scaled = penalised / jnp.maximum(temperature, MIN_TEMPERATURE)[:, None]
        candidates, ids = self._candidates(scaled)
        drawn = jax.random.categorical(rng, candidates).astype(jnp.int32)
        tokens = drawn if ids is None else _at(ids, drawn)
        log_probs = _log_prob(candidates, drawn)
        if not _is_number(self.temperature):
            greedy = temperature <= MIN_TEMPERATURE
            tokens = jnp.where(greedy, argmax(penalised), tokens)
            log_probs = jnp.where(greedy, 0.0, log_probs)
        return tokens, log_probs if self.rescale_log_probs else _log_prob(logits, tokens)

    def _candidates(self, logits: Array) -> tuple[Array, Array | None]:
        """Logits [B, N] to draw from, and the tokens they are of, int32 [B, N]; None: 0 .. V - 1.

        With top-k as one number they are those k alone (of equal ones, the tokens that come first),
        so that nothing is drawn for the rest of the vocabulary.
        """
        ids = None
        if _is_number(self.topk) and 0 < self.topk < logits.shape[-1]:
            logits, ids = lax.top_k(logits, int(self.topk))
        elif not _is_number(self.topk):
            logits = topk_mask(logits, jnp.where(self.topk > 0, self.topk, logits.shape[-1]))
        if not _is_number(self.topp):
            logits = topp_mask(logits, jnp.where(self.topp > 0, self.topp, 2.0))
        elif self.topp > 0:
            logits = topp_mask(logits, self.topp)
        if not _is_number(self.min_p) or self.min_p > 0:
            logits = minp_mask(logits, self.min_p)
        return logits, ids


def _at(x: Array, places: Array) -> Array:
    """x[b, places[b]] of `x` [B, N]."""
    return jnp.take_along_axis(x, places[:, None], axis=1)[:, 0]


def _log_prob(logits: Array, places: Array) -> Array:
    """Log-probabilities [B] of `places` int [B] in softmax(logits [B, N])."""
    return _at(logits, places) - jax.nn.logsumexp(logits, axis=-1)


def penalise_repetition(logits: Array, seen: Array, penalty: float | Array) -> Array:
    """Divide positive logits of seen tokens by `penalty`, and multiply negative ones by it.

    Args:
      logits: float [B, V].
      seen: bool [B, V].
      penalty: above 1 against repetition, below 1 for it; a number, or float [B].

    Keskar et al. 2019, "CTRL", section 4.1 (with the sign of the logit taken into account).
    """
    penalty = jnp.broadcast_to(jnp.asarray(penalty, logits.dtype), logits.shape[:1])[:, None]
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def mark_seen(seen: Array, tokens: Array) -> Array:
    """`seen` bool [B, V] with int `tokens` [B, N] marked; 0 (BOS, padding) never is."""
    marked = jnp.put_along_axis(seen, tokens, True, axis=1, inplace=False)
    return marked.at[:, 0].set(False)


def _is_number(x: Any) -> TypeGuard[float]:
    return isinstance(x, (int, float))
