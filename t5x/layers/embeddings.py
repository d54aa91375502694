"""Token embeddings, sinusoidal positions and T5's relative position biases."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from t5x.layers.config import Caching
from t5x.layers.dense import Initializer, param_with_axes, shard


class Embed(nn.Module):
    """Rows of a table [V, E], by token id; `attend` is the tied output projection.

    Attributes:
      num_embeddings: V.
      features: E.
      dtype: type of the embedded tokens.
      attend_dtype: type of the product in `attend`, default `dtype`.
      embedding_init: initialiser of the table.
      one_hot: look up by a product with one-hot rows, which a vocabulary sharded over a TPU
        mesh prefers; otherwise by gather.
    """

    num_embeddings: int
    features: int
    dtype: Any = jnp.float32
    attend_dtype: Any = None
    embedding_init: Initializer = nn.initializers.normal(stddev=1.0)
    one_hot: bool = False

    def setup(self):
        self.embedding = param_with_axes(
            "embedding",
            self.embedding_init,
            (self.num_embeddings, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
            module=self,
        )

    def __call__(self, inputs: Array) -> Array:
        """Embed integer ids [B, L] as [B, L, E]; raise ValueError for other types."""
        if not jnp.issubdtype(inputs.dtype, jnp.integer):
            raise ValueError(f"Embed expects integer token ids, got {inputs.dtype}")
        if self.one_hot:
            ids = jnp.arange(self.num_embeddings, dtype=inputs.dtype)
            table = jnp.asarray(self.embedding, self.dtype)
            output = jnp.dot(jnp.asarray(inputs[..., None] == ids, self.dtype), table)
        else:
            # Cast afterwards, so that gradients of one row are summed in float32, which GPUs do
            # far faster than in bfloat16.
            output = jnp.take(self.embedding, inputs, axis=0, mode="clip").astype(self.dtype)
        return shard(output, "batch", "length", "embed")

    def attend(self, query: Array) -> Array:
        """Scores [..., V] of `query` [..., E] against every row of the table."""
        dtype = self.attend_dtype or self.dtype
        return jnp.dot(query, jnp.asarray(self.embedding, dtype).T)


def sinusoids(
    positions: np.ndarray, features: int, min_scale: float = 1.0, max_scale: float = 10000.0
) -> np.ndarray:
    """Sinusoids of `positions` [N] (any real numbers), float32 [N, features].

    The first half of the columns are sines, the second half cosines, of frequencies
    min_scale * exp(-j ln(max_scale / min_scale) / (features / 2 - 1)) radians per position.
    """
    half = features // 2
    step = -np.log(max_scale / min_scale) / max(half - 1, 1)
    frequencies = min_scale * np.exp(np.arange(half) * step)
    angles = np.asarray(positions, np.float64)[:, None] * frequencies
    table = np.zeros((len(angles), features), np.float32)
    table[:, :half] = np.sin(angles)
    table[:, half : 2 * half] = np.cos(angles)
    return table


class SinusoidalPositions(nn.Module):
    """Fixed position table (no parameters), with a running position when decoding.

    Attributes:
      features: E.
      max_length: rows kept for decoding; longer sequences get a longer table.
      dtype: type of the output.
    """

    features: int
    max_length: int = 2048
    dtype: Any = jnp.float32

    def __call__(
        self,
        length: int,
        positions: Array | None = None,
        *,
        decode: bool = False,
        prefill_lengths: Array | None = None,
    ) -> Array:
        """Rows [1 or B, length, E].

        Args:
          length: number of positions.
          positions: int [B, length]; by default 0 .. length - 1.
          decode: continue from the position in the cache, and advance it by `length`.
          prefill_lengths: int32 [B]: positions as if not decoding, after which decoding goes on
            at these.
        """
        table = jnp.asarray(sinusoids(np.arange(max(self.max_length, length)), self.features))
        table = table.astype(self.dtype)
        if decode and prefill_lengths is None and self.has_variable("cache", "position_index"):
            start = self.get_variable("cache", "position_index")
            self.put_variable("cache", "position_index", start + length)
            if start.ndim:
                continued = start[:, None] + jnp.arange(length)
                return jnp.take(table, continued, axis=0, mode="clip")
            return lax.dynamic_slice_in_dim(table, start, length, axis=0)[None]
        if decode:
            self.init_cache(prefill_lengths)
        if positions is None:
            return table[None, :length]
        return jnp.take(table, positions, axis=0, mode="clip")

    def init_cache(self, positions: Array | None = None) -> None:
        """Set the running position to 0, or to those of the rows, int32 [B]."""
        _start_positions(self, positions)


def relative_position_bucket(
    relative_position: np.ndarray,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> np.ndarray:
    """Bucket, int32, of each relative position (key position minus query position).

    Half of the buckets hold exact distances, the others grow logarithmically up to
    `max_distance`; when bidirectional, keys to the right use the upper half of the buckets
    (Raffel et al. 2020, section 2.1). Float32 arithmetic, so that the edges are T5's.
    """
    distance = -np.asarray(relative_position)
    bucket = np.zeros_like(distance, dtype=np.int32)
    if bidirectional:
        num_buckets //= 2
        bucket += (distance < 0).astype(np.int32) * num_buckets
        distance = np.abs(distance)
    else:
        distance = np.maximum(distance, 0)
    exact = num_buckets // 2
    ratio = distance.astype(np.float32) / exact + np.finfo(np.float32).eps
    growth = np.log(ratio) / np.log(max_distance / exact) * (num_buckets - exact)
    far = np.minimum(exact + growth.astype(np.int32), num_buckets - 1)
    return (bucket + np.where(distance < exact, distance, far)).astype(np.int32)


class RelativePositionBiases(nn.Module):
    """T5's learned bias of attention logits by bucketed distance, shared by all layers.

    Attributes:
      num_buckets: buckets of distance.
      max_distance: distances from here on share the last bucket.
      num_heads: H.
      dtype: type of the bias.
      embedding_init: initialiser of the table [H, num_buckets].
    """

    num_buckets: int
    max_distance: int
    num_heads: int
    dtype: Any = jnp.float32
    embedding_init: Initializer = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")

    def setup(self):
        self.rel_embedding = param_with_axes(
            "rel_embedding",
            self.embedding_init,
            (self.num_heads, self.num_buckets),
            jnp.float32,
            axes=("heads", "relpos_buckets"),
            module=self,
        )

    def __call__(
        self,
        qlen: int,
        klen: int,
        bidirectional: bool = True,
        *,
        decode: bool = False,
        prefill_lengths: Array | None = None,
    ) -> Array:
        """Bias [1, H, qlen, klen]; [B, H, qlen, klen] after a prefill.

        With `decode` the queries are the next `qlen` positions after those already decoded
        (the running position lives in the cache) and `klen` is the length of the key cache:
        only the needed rows are computed. With `prefill_lengths`, int32 [B], the queries are
        positions 0 .. qlen - 1, and decoding will go on at these positions.
        """
        if decode and prefill_lengths is None and self.has_variable("cache", "position_index"):
            start = self.get_variable("cache", "position_index")
            self.put_variable("cache", "position_index", start + qlen)
            table = jnp.asarray(self.rel_embedding, self.dtype)
            # One bucket per possible distance: rows of the bias are windows of this vector.
            every = np.arange(1 - klen - qlen, klen + qlen)
            buckets = self._buckets(every, bidirectional)
            offsets = jnp.arange(klen) - (start[..., None] + jnp.arange(qlen))[..., None]
            rows = jnp.take(buckets, offsets + (klen + qlen - 1), mode="clip")
            bias = jnp.take(table, rows, axis=1)  # [H, q, k], or [H, B, q, k]
            return jnp.swapaxes(bias, 0, 1) if start.ndim else bias[None]
        if decode:
            self.init_cache(prefill_lengths)
        by_distance = jnp.take(
            self.rel_embedding, self._buckets(np.arange(1 - qlen, klen), bidirectional), axis=1
        )
        return _by_place(by_distance, qlen, klen).astype(self.dtype)[None]

    def causal(self, length: int, caching: Caching) -> Array:
        """Bias of the self-attention of a decoder, of `length` queries."""
        decode, keys, prefill_lengths = caching
        if not self.has_variable("cache", "position_index") or prefill_lengths is not None:
            keys = length
        return self(length, keys or length, False, decode=decode, prefill_lengths=prefill_lengths)

    def _buckets(self, relative_position: np.ndarray, bidirectional: bool) -> Array:
        return jnp.asarray(
            relative_position_bucket(
                relative_position, bidirectional, self.num_buckets, self.max_distance
            )
        )

    def init_cache(self, positions: Array | None = None) -> None:
        """Set the running position to 0, or to those of the rows, int32 [B]."""
        _start_positions(self, positions)


def _by_place(by_distance: Array, qlen: int, klen: int) -> Array:
    """[H, qlen, klen] with entry (i, j) that of distance j - i, of [H, qlen + klen - 1].

    Repeated rows which are read one entry shorter than they are: each begins an entry earlier than
    the one before. Unlike those of a gather of all entries, which a GPU adds up one after the
    other, its gradients are sums.
    """
    heads, count = by_distance.shape
    rows = jnp.pad(by_distance, ((0, 0), (0, 1)))
    rows = jnp.broadcast_to(rows[:, None], (heads, qlen, count + 1)).reshape(heads, -1)
    return rows[:, : qlen * count].reshape(heads, qlen, count)[:, :, qlen - 1 :]


def _start_positions(module: nn.Module, positions: Array | None) -> None:
    start = jnp.zeros((), jnp.int32) if positions is None else positions.astype(jnp.int32)
    module.put_variable("cache", "position_index", start)
