"""Embeddings of tokens under noise, and the network's predictions of them.

Letters in shapes: B batch, L length, d width of embeddings, V vocabulary.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cdcd.config import NoiseRange
from cdcd.network import Denoiser
from t5x.layers.dropout import dropout_rngs

Params = Any


class Conditioning(NamedTuple):
    """The network's knowledge of rows of tokens.

    Attributes:
      given: embeddings float32 [B, L, d] of given tokens; zeros for hidden ones.
      noisy: bool [B, L], positions to predict.
      valid: bool [B, L], False for padding; None for no padding.
      source: further inputs of the network, such as an encoded sequence: arrays of which zeros
        stand for no input; None for networks without.
    """

    given: Array
    noisy: Array
    valid: Array | None = None
    source: Any = None


@dataclasses.dataclass(frozen=True)
class Denoising:
    """A network, and the noise levels it was trained on.

    Attributes:
      module: the network.
      noise: standard deviations.
    """

    module: Denoiser
    noise: NoiseRange

    def table(self, params: Params) -> Array:
        """Return embeddings of all tokens, float32 [V, d]."""
        return self.module.apply({"params": params}, method=Denoiser.table)  # type: ignore

    def prepare(self, params: Params, conditioning: Conditioning) -> Conditioning:
        """Return the conditioning with all that is independent of the noise level computed."""
        del params
        return conditioning

    def variables(self, params: Params, conditioning: Conditioning) -> dict[str, Any]:
        """Return the collections that the network reads."""
        del conditioning
        return {"params": params}

    def logits(
        self,
        params: Params,
        x: Array,
        conditioning: Conditioning,
        previous: Array,
        t: Array,
        dropout_rng: Array | None = None,
    ) -> Array:
        """Return logits of the tokens under noisy embeddings, float32 [B, L, V]."""
        return self.module.apply(  # type: ignore[return-value]
            self.variables(params, conditioning),
            x,
            conditioning.given,
            previous,
            conditioning.noisy,
            t,
            conditioning.valid,
            deterministic=dropout_rng is None,
            rngs=dropout_rngs(dropout_rng),
            source=conditioning.source,
        )

    def interpolate(self, logits: Array, table: Array) -> Array:
        """Return expected clean embeddings, float32 [B, L, d]: sum_i p(i) e_i (section 3.1).

        (x_0 - x) / t^2 with this x_0 is the score. Probabilities are of the network's type.
        """
        dtype = self.module.config.dtype
        probabilities = jax.nn.softmax(logits).astype(dtype)
        return jnp.einsum(
            "blv,vd->bld",
            probabilities,
            table.astype(dtype),
            preferred_element_type=jnp.float32,
        )


def embed(table: Array, tokens: Array) -> Array:
    """Return rows of `table` [V, d] of tokens [B, L], float32 [B, L, d]."""
    return jnp.take(table, tokens, axis=0, mode="clip")


def conditioning_of(
    table: Array,
    tokens: Array,
    noisy: Array,
    valid: Array | None = None,
    conditioned: Array | None = None,
    source: Any = None,
) -> Conditioning:
    """Return the conditioning for predicting the noisy tokens.

    Args:
      table: embeddings [V, d].
      tokens: int [B, L]; noisy ones are not read.
      noisy: bool [B, L].
      valid: bool [B, L] or None.
      conditioned: bool [B], rows with given tokens and source; None for all. In other rows the
        network sees which positions are given, but not their tokens.
      source: see `Conditioning`, of B rows if `conditioned` is given.
    """
    seen = ~noisy if valid is None else ~noisy & valid
    if conditioned is not None:
        seen = seen & conditioned[:, None]
        source = jax.tree.map(functools.partial(_rows_where, conditioned), source)
    return Conditioning(jnp.where(seen[..., None], embed(table, tokens), 0.0), noisy, valid, source)


def _rows_where(kept: Array, x: Array) -> Array:
    """Return `x` [B, ...] with zeros in rows that are not `kept`, bool [B]."""
    return jnp.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros_like(x))


def beside_unconditioned(conditioning: Conditioning) -> Conditioning:
    """Return all rows of a conditioning, and below them the same rows without given tokens."""
    noisy, valid = jax.tree.map(
        lambda x: jnp.concatenate([x, x]), (conditioning.noisy, conditioning.valid)
    )

    def hidden(x: Array) -> Array:
        return jnp.concatenate([x, jnp.zeros_like(x)])

    return Conditioning(
        hidden(conditioning.given), noisy, valid, jax.tree.map(hidden, conditioning.source)
    )
