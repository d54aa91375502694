"""Embeddings of tokens under noise, and what the network makes of them.

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

Params = Any


class Task(NamedTuple):
    """What is known of rows of tokens.

    Attributes:
      given: embeddings float32 [B, L, d] of given tokens; zeros where they are not to be looked at.
      noisy: bool [B, L], positions to be found.
      valid: bool [B, L], positions that there are; None for all.
      source: what the network is told beside the rows, such as encoded inputs: arrays of which
        zeros stand for nothing; None for networks that are told nothing.
    """

    given: Array
    noisy: Array
    valid: Array | None = None
    source: Any = None


@dataclasses.dataclass(frozen=True)
class Denoising:
    """A network, and the noise it knows.

    Attributes:
      module: the network.
      noise: standard deviations.
    """

    module: Denoiser
    noise: NoiseRange

    def table(self, params: Params) -> Array:
        """Embeddings of all tokens, float32 [V, d]."""
        return self.module.apply({"params": params}, method=Denoiser.table)  # type: ignore

    def prepare(self, params: Params, task: Task) -> Task:
        """The task with all that is the same at every noise level, to compute it once."""
        del params
        return task

    def variables(self, params: Params, task: Task) -> dict[str, Any]:
        """Collections that the network reads."""
        del task
        return {"params": params}

    def logits(
        self,
        params: Params,
        x: Array,
        task: Task,
        previous: Array,
        t: Array,
        dropout_rng: Array | None = None,
    ) -> Array:
        """Of the tokens behind noisy embeddings, float32 [B, L, V]; see `network.Denoiser`."""
        return self.module.apply(  # type: ignore[return-value]
            self.variables(params, task),
            x,
            task.given,
            previous,
            task.noisy,
            t,
            task.valid,
            deterministic=dropout_rng is None,
            rngs=None if dropout_rng is None else {"dropout": dropout_rng},
            source=task.source,
        )

    def interpolate(self, logits: Array, table: Array) -> Array:
        """Expected clean embeddings, float32 [B, L, d]: sum_i p(i) e_i (section 3.1).

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
    """Rows of `table` [V, d] of tokens [B, L], float32 [B, L, d]."""
    return jnp.take(table, tokens, axis=0, mode="clip")


def make_task(
    table: Array,
    tokens: Array,
    noisy: Array,
    valid: Array | None = None,
    conditioned: Array | None = None,
    source: Any = None,
) -> Task:
    """The task of finding the noisy ones of tokens.

    Args:
      table: embeddings [V, d].
      tokens: int [B, L]; those to be found are not looked at.
      noisy: bool [B, L].
      valid: bool [B, L] or None.
      conditioned: bool [B], rows whose given tokens and source are to be looked at; None for all.
        Of others it is known where tokens are given, but not which.
      source: see `Task`, of B rows if `conditioned` is given.
    """
    seen = ~noisy if valid is None else ~noisy & valid
    if conditioned is not None:
        seen = seen & conditioned[:, None]
        source = jax.tree.map(functools.partial(_rows_where, conditioned), source)
    return Task(jnp.where(seen[..., None], embed(table, tokens), 0.0), noisy, valid, source)


def _rows_where(kept: Array, x: Array) -> Array:
    """`x` [B, ...] with zeros in rows that are not `kept`, bool [B]."""
    return jnp.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros_like(x))


def beside_unconditioned(task: Task) -> Task:
    """All rows of a task, and behind them the same without what they are conditioned on."""
    noisy, valid = jax.tree.map(lambda x: jnp.concatenate([x, x]), (task.noisy, task.valid))

    def hidden(x: Array) -> Array:
        return jnp.concatenate([x, jnp.zeros_like(x)])

    return Task(hidden(task.given), noisy, valid, jax.tree.map(hidden, task.source))
