"""Multi-head dot-product attention with caches for self- and cross-attention.

Letters in shapes: B batch, Q queries, K keys, T encoder length, E embed, H heads, D head dim,
L length of the cache.

Decoding keeps, in the collection `cache`:

* self-attention: `cached_key`, `cached_value`, chunks [B, H, C, D] of L positions together, and
  `cache_index` (int32 scalar, or [B] after a prefill with prompts of unequal lengths), written in
  place one step at a time;
* cross-attention: `cross_key` [B, H, D, T] and `cross_value` [B, H, T, D], the projected encoder
  outputs, computed once before the first step. Several decodes of an input, rows that are
  neighbours in the query, share one row of these.

Head-major caches make the products of one step read contiguous rows; the key of cross-attention
lies the way the product is fastest on CPU, that of self-attention so that a step is one row.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from t5x.layers import chunked_cache
from t5x.layers.dense import DenseGeneral, Initializer, attention_kernel_init, shard
from t5x.layers.dropout import keep_scale
from t5x.layers.masks import MASKED, combine_biases, mask_to_bias
from t5x.layers.rotary import rotate


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None = None,
    dropout_rng: Array | None = None,
    dropout_rate: float = 0.0,
    dtype: Any = jnp.float32,
    float32_logits: bool = False,
) -> Array:
    """softmax(query key^T + bias) value, without the 1 / sqrt(D) (T5 puts it in the init).

    Args:
      query: [B, Q, H, D].
      key: [B, K, H, D].
      value: [B, K, H, D].
      bias: broadcastable to [B, H, Q, K], or None.
      dropout_rng: key of the dropout of attention weights; None means no dropout.
      dropout_rate: probability of dropping a weight, the same for all queries.
      dtype: type of the weights and of the result.
      float32_logits: compute logits and softmax in float32 whatever the type of the inputs.

    Returns:
      [B, Q, H, D] in `dtype`.
    """
    if dropout_rng is not None and dropout_rate > 0.0:
        value = _drop_keys(value, dropout_rng, dropout_rate)
    if float32_logits:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    weights, total = _unnormalised(jnp.einsum("bqhd,bkhd->bhqk", query, key), bias)
    x = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(dtype), value)
    return x / jnp.swapaxes(total, 1, 2)[..., None].astype(dtype)


def _unnormalised(logits: Array, bias: Array | None) -> tuple[Array, Array]:
    """exp(logits + bias) [..., K] up to a factor a row, and its sums [...], in float32."""
    if bias is not None:
        logits = logits + bias.astype(logits.dtype)
    weights = jnp.exp(logits - lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    return weights, jnp.sum(weights, axis=-1, dtype=jnp.float32)


def _softmax(logits: Array, bias: Array | None, dtype: Any) -> Array:
    if bias is not None:
        logits = logits + bias.astype(logits.dtype)
    return jax.nn.softmax(logits).astype(dtype)


def _drop_keys(value: Array, rng: Array, rate: float) -> Array:
    """Drop the same keys for all queries of a head, as T5 does, of `value` [B, K, H, D]."""
    batch, keys, heads, _ = value.shape
    return value * keep_scale(rng, rate, (batch, keys, heads, 1), value.dtype)


def _cached_attention(
    query: Array, key: Array, value: Array, bias: Array | None, dtype: Any, float32_logits: bool
) -> Array:
    """As `dot_product_attention`, for head-major [B, H, ., D] queries, keys and values."""
    if float32_logits:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, key)
    return jnp.einsum("bhqk,bhkd->bhqd", _softmax(logits, bias, dtype), value)


def _fold_decodes(bias: Array | None, rows: int, decodes: int, steps: int) -> Array | None:
    """Bias [1 or B * K, h, 1 or Q, T] of B * K rows, as [B, h, K * Q, T]; K = `decodes`."""
    if bias is None or decodes == 1:
        return bias
    heads, keys = bias.shape[1], bias.shape[3]
    each = jnp.broadcast_to(bias, (rows * decodes, heads, steps, keys))
    each = jnp.swapaxes(each.reshape(rows, decodes, heads, steps, keys), 1, 2)
    return each.reshape(rows, heads, decodes * steps, keys)


class MultiHeadDotProductAttention(nn.Module):
    """Attention of `inputs_q` to `inputs_kv`; without biases, kernels stored as matrices.

    Attributes:
      num_heads: H.
      head_dim: D; heads are H * D wide, whatever E is.
      dtype: type of the computation.
      dropout_rate: dropout of the attention weights.
      kernel_init: initialiser of all four kernels; the query's is divided by sqrt(D).
      float32_logits: logits and softmax in float32.
      cross_attention: when decoding, project `inputs_kv` once and keep the result, instead of
        appending a step to a growing cache.
      rotary_base: queries and keys of self-attention are rotated by their positions, counted from
        0, see `t5x.layers.rotary`; None for no rotation. Caches hold rotated keys.
    """

    num_heads: int
    head_dim: int
    dtype: Any = jnp.float32
    dropout_rate: float = 0.0
    kernel_init: Initializer = attention_kernel_init
    float32_logits: bool = False
    cross_attention: bool = False
    rotary_base: float | None = None

    def setup(self):
        def query_init(*args):
            return self.kernel_init(*args) / np.sqrt(self.head_dim)

        self.query = self._heads(query_init)
        self.key = self._heads(self.kernel_init)
        self.value = self._heads(self.kernel_init)

    def _heads(self, init: Initializer) -> DenseGeneral:
        return DenseGeneral(
            (self.num_heads, self.head_dim),
            dtype=self.dtype,
            kernel_init=init,
            kernel_axes=("embed", "joined_kv"),
        )

    @nn.compact
    def __call__(
        self,
        inputs_q: Array,
        inputs_kv: Array | None,
        mask: Array | None = None,
        bias: Array | None = None,
        *,
        decode: bool = False,
        max_decode_length: int | None = None,
        deterministic: bool = False,
        prefill_lengths: Array | None = None,
    ) -> Array:
        """Attend from `inputs_q` to `inputs_kv`.

        Args:
          inputs_q: [B, Q, E].
          inputs_kv: [B, K, E']; when decoding self-attention, the same new steps as `inputs_q`;
            not read (may be None) by cross-attention whose cache is filled.
          mask: [B, 1 or H, Q, K], 1 where attention is allowed, or None. Cached self-attention
            adds its own causal mask; `mask` and `bias` are then over the cache, K = L.
          bias: added to the logits, broadcastable to [B, H, Q, K], or None.
          decode: use the cache. Without one, allocate it, for K positions (or
            `max_decode_length`), and attend as if not decoding.
          max_decode_length: length of a cache allocated by this call.
          deterministic: no dropout.
          prefill_lengths: int32 [B]. Attend as if not decoding, with `mask` and `bias` [.., Q, K],
            and start a self-attention cache with the first so many keys and values of each row.

        Returns:
          [B, Q, E] in `dtype`.
        """
        query = shard(self.query(inputs_q), "batch", "length", "heads", "kv")
        bias = combine_biases(mask_to_bias(mask, self.dtype), bias)
        cached = decode and prefill_lengths is None and self.has_cache()
        if cached and self.cross_attention:
            x = self._attend_cross(query, bias)
        elif inputs_kv is None:
            raise ValueError("attention without a filled cache needs inputs_kv")
        elif cached:
            x = self._attend_cached(query, inputs_kv, bias)
        else:
            if decode:
                self.init_cache(inputs_kv, max_decode_length)
            x = self._attend(query, inputs_kv, bias, deterministic, prefill_lengths)
        x = shard(x, "batch", "length", "heads", "kv")
        return DenseGeneral(
            inputs_q.shape[-1],
            axis=(-2, -1),
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            kernel_axes=("joined_kv", "embed"),
            name="out",
        )(x)

    def has_cache(self) -> bool:
        """Whether the cache of this layer exists."""
        name = "cross_key" if self.cross_attention else "cached_key"
        return self.has_variable("cache", name)

    def init_cache(self, inputs_kv: Array, max_decode_length: int | None = None) -> None:
        """Fill the cross-attention cache from [B, T, E], or allocate the self-attention one.

        The self-attention cache is for `max_decode_length` (default: the length of
        `inputs_kv`) positions of a batch as large as that of `inputs_kv`.
        """
        if self.cross_attention:
            key = shard(self.key(inputs_kv).transpose(0, 2, 3, 1), "batch", "heads", "kv", "length")
            value = self._head_major(self.value(inputs_kv))
            # Without the barrier XLA moves the transpositions into the decoding loop.
            key, value = lax.optimization_barrier((key, value))
            self.put_variable("cache", "cross_key", key)
            self.put_variable("cache", "cross_value", value)
            return
        length = max_decode_length or inputs_kv.shape[1]
        shape = (inputs_kv.shape[0], self.num_heads, length, self.head_dim)
        for name in ("cached_key", "cached_value"):
            self.put_variable("cache", name, chunked_cache.empty_chunks(*shape, self.dtype))
        self.put_variable("cache", "cache_index", jnp.zeros((), jnp.int32))

    def _head_major(self, x: Array) -> Array:
        return shard(jnp.swapaxes(x, 1, 2), "batch", "heads", "length", "kv")

    def _attend(
        self,
        query: Array,
        inputs_kv: Array,
        bias: Array | None,
        deterministic: bool,
        prefill_lengths: Array | None = None,
    ) -> Array:
        key = shard(self.key(inputs_kv), "batch", "length", "heads", "kv")
        query, key = self._rotated(query, key, jnp.arange(key.shape[1]))
        value = shard(self.value(inputs_kv), "batch", "length", "heads", "kv")
        if prefill_lengths is not None:
            self._append(self._head_major(key), self._head_major(value))
            # What lies beyond the length of a row is overwritten before it is seen.
            self.put_variable("cache", "cache_index", prefill_lengths.astype(jnp.int32))
        dropping = not deterministic and self.dropout_rate > 0.0
        return dot_product_attention(
            query,
            key,
            value,
            bias,
            dropout_rng=self.make_rng("dropout") if dropping else None,
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            float32_logits=self.float32_logits,
        )

    def _attend_cross(self, query: Array, bias: Array | None) -> Array:
        # Keys and values were projected when the cache was filled.
        key = self.get_variable("cache", "cross_key")
        value = self.get_variable("cache", "cross_value")
        rows, steps = key.shape[0], query.shape[1]
        decodes = query.shape[0] // rows
        x = _cached_attention(
            jnp.swapaxes(query.reshape(rows, decodes * steps, *query.shape[2:]), 1, 2),
            jnp.swapaxes(key, 2, 3),
            value,
            _fold_decodes(bias, rows, decodes, steps),
            self.dtype,
            self.float32_logits,
        )
        return jnp.swapaxes(x, 1, 2).reshape(query.shape)

    def _rotated(self, query: Array, key: Array, positions: Array) -> tuple[Array, Array]:
        """Queries and keys [B, L, H, D] of the same positions, int [L] or [B, L]."""
        if self.rotary_base is None:
            return query, key
        base = self.rotary_base
        return rotate(query, positions, base), rotate(key, positions, base)

    def _append(
        self, new_key: Array, new_value: Array
    ) -> tuple[chunked_cache.Chunks, chunked_cache.Chunks]:
        """Write steps [B, H, Q, D]; return all keys and values."""
        index = self.get_variable("cache", "cache_index")
        key = chunked_cache.write_steps(self.get_variable("cache", "cached_key"), new_key, index)
        value = chunked_cache.write_steps(
            self.get_variable("cache", "cached_value"), new_value, index
        )
        self.put_variable("cache", "cached_key", key)
        self.put_variable("cache", "cached_value", value)
        self.put_variable("cache", "cache_index", index + new_key.shape[2])
        return key, value

    def _attend_cached(self, query: Array, inputs_kv: Array, bias: Array | None) -> Array:
        index = self.get_variable("cache", "cache_index")
        position = index[..., None] + jnp.arange(query.shape[1])  # [Q], or [B, Q]
        query, new_key = self._rotated(query, self.key(inputs_kv), position)
        new_value = self._head_major(self.value(inputs_kv))
        keys, values = self._append(self._head_major(new_key), new_value)
        steps, length = query.shape[1], sum(chunk.shape[2] for chunk in keys)
        future = jnp.where(jnp.arange(length) > position[..., None], MASKED, 0.0)
        future = future.reshape(-1, 1, steps, length).astype(self.dtype)
        bias = future if bias is None else future + bias
        x = chunked_cache.attend(
            jnp.swapaxes(query, 1, 2),
            keys,
            values,
            bias,
            jnp.max(index) + steps,
            self.dtype,
            self.float32_logits,
        )
        return jnp.swapaxes(x, 1, 2)
