"""Continuations of prompts: the sampler's steps in one compiled loop.

Letters in shapes: B batch, K decodes, L tokens.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from perceiver_ar import masks
from perceiver_ar.sampler import Sampler, SamplerCache
from t5x import decoding
from t5x.decoding.cache import DecodingState
from t5x.models.base import DecodeFn

#: Padding and SOS.
NEVER_SAMPLED = (0, 2)


def sample(
    sampler: Sampler,
    params: Any,
    prompts: Array,
    *,
    eos_id: int = 1,
    never: Sequence[int] = NEVER_SAMPLED,
    decode_fn: DecodeFn = decoding.temperature_sample,
    constraint: decoding.Constraint | None = None,
    **options: Any,
) -> tuple[Array, Array]:
    """Continue prompts of any lengths; everything is traced.

    Args:
      sampler: of the network; a sequence gets at most `sampler.max_inputs` + 1 tokens.
      params: of the network.
      prompts: int [B, L], rows begin with a token and end before their first 0.
      eos_id: the id that ends a row.
      never: ids that are never sampled.
      decode_fn: `t5x.decoding.temperature_sample`, or another with its interface.
      constraint: which tokens may follow which, from the beginning of the prompts.
      options: of `decode_fn`, such as `temperature`, `topk`, `topp`, `num_decodes`,
        `decode_rng`, `stream_fn`.

    Returns:
      (prompts and continuations int32 [B, K, max_inputs + 1], padded with 0; log-probabilities
      float32 [B, K] of the continuations), in ascending order of these.
    """
    prompts = prompts[:, : sampler.max_inputs]
    room = sampler.max_inputs - prompts.shape[1]
    buffer = jnp.pad(prompts, ((0, 0), (0, room))).astype(jnp.int32)
    params = sampler.parameters(params)

    def tokens_to_logits(state: DecodingState) -> tuple[Array, SamplerCache]:
        return sampler.step(
            params, state.cache, state.sequences, state.cur_index, state.cur_token[:, 0]
        )

    if constraint is not None:
        options["constraint"] = _AfterPrompts(constraint, prompts)
    inner = options.pop("logit_callback_fn", None)

    def only_data(logits: Array, state: Any) -> Array:
        logits = inner(logits, state) if inner else logits
        return logits.at[:, jnp.asarray(tuple(never), jnp.int32)].set(decoding.NEG_INF)

    sequences, scores = decode_fn(
        inputs=buffer,
        cache=sampler.prefill(params, prompts),
        tokens_to_logits=tokens_to_logits,
        eos_id=eos_id,
        initial_index=masks.lengths_of(prompts) - 1,
        logit_callback_fn=only_data if never else inner,
        **options,
    )
    first = jnp.broadcast_to(prompts[:, None, :1], (*sequences.shape[:2], 1))
    return jnp.concatenate([first, sequences], axis=2), scores


class _AfterPrompts:
    """A constraint that has seen prompts int [B, L]."""

    def __init__(self, constraint: decoding.Constraint, prompts: Array):
        self._constraint, self._prompts = constraint, prompts
        self.mask, self.update = constraint.mask, constraint.update

    def init(self, batch_size: int) -> Any:
        """Return the state after the prompts."""

        def read(state: Any, tokens: Array) -> tuple[Any, None]:
            seen = self._constraint.update(state, tokens)

            def keep(old: Array, new: Array) -> Array:
                return jnp.where((tokens > 0).reshape(-1, *[1] * (new.ndim - 1)), new, old)

            return jax.tree.map(keep, state, seen), None

        state = self._constraint.init(batch_size)
        return jax.lax.scan(read, state, self._prompts.T)[0]


@functools.partial(jax.jit, static_argnames=("sampler", "eos_id", "never", "static"))
def _compiled_sample(
    params: Any,
    prompts: Array,
    arrays: Mapping[str, Any],
    *,
    sampler: Sampler,
    eos_id: int,
    never: tuple[int, ...],
    static: tuple[tuple[str, Any], ...],
) -> tuple[Array, Array]:
    return sample(
        sampler, params, prompts, eos_id=eos_id, never=never, **dict(static), **dict(arrays)
    )


def generate(
    sampler: Sampler,
    params: Any,
    prompts: Sequence[Sequence[int]] | np.ndarray,
    *,
    rng: Array | None = None,
    eos_id: int = 1,
    never: Sequence[int] = NEVER_SAMPLED,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Continue prompts as `sample` does, checked, with one compilation for each prompt width.

    Args:
      sampler, params, eos_id, never: see `sample`.
      prompts: rows of tokens, of any lengths; an array may be padded with 0.
      rng: random key.
      options: see `sample`; new values of arrays do not recompile.

    Raises:
      ValueError: names the prompt that is empty, too long, or has an unknown token.
    """
    rows = [_checked_prompt(i, row, sampler) for i, row in enumerate(prompts)]
    if not rows:
        raise ValueError("no prompts: give a row of tokens at least, such as [[2]] (SOS)")
    # Widths are powers of two, so that not every prompt compiles a program of its own.
    width = min(1 << (max(map(len, rows)) - 1).bit_length(), sampler.max_inputs)
    padded = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    if rng is not None:
        options["decode_rng"] = rng
    arrays = {k: v for k, v in options.items() if isinstance(v, jax.Array | np.ndarray)}
    static = tuple(sorted((k, v) for k, v in options.items() if k not in arrays))
    tokens, scores = _compiled_sample(
        params, padded, arrays, sampler=sampler, eos_id=eos_id, never=tuple(never), static=static
    )
    return np.asarray(tokens), np.asarray(scores)


def _checked_prompt(number: int, row: Sequence[int] | np.ndarray, sampler: Sampler) -> np.ndarray:
    tokens = np.asarray(row)
    padding = np.flatnonzero(tokens == 0)
    tokens = tokens[: padding[0]] if padding.size else tokens
    if not tokens.size:
        raise ValueError(f"prompt {number} is empty: begin with SOS, the token 2")
    if tokens.size > sampler.max_inputs:
        raise ValueError(
            f"prompt {number} has {tokens.size} tokens, and there is room for "
            f"{sampler.max_inputs} (max_inputs): shorten it, or make room"
        )
    unknown = tokens[(tokens < 0) | (tokens >= sampler.config.num_classes)]
    if unknown.size:
        raise ValueError(
            f"prompt {number} has the token {unknown[0]}, but the network knows 0 to "
            f"{sampler.config.num_classes - 1} (num_classes)"
        )
    return tokens
