"""Steps of sampling with caches, exactly as the network computes without them.

Two caches: keys and values of inputs, for each cross-attention, and of the latents of the current
block, for each layer (see `perceiver_ar.blocks`). Keys are stored rotated. A step writes one input
and its latent. When the block of a row is full, a new one begins with some latents computed again,
from the cached inputs; rows do so independently of each other. What an input's keys and values are
depends only on the token and its position, so they are never computed again.

Inputs are stored in a ring of as many slots as the context: that at position p in slot p modulo the
number of slots. A block fixes the first input that its latents see, so that this is exact however
long a sequence gets.

Letters in shapes: B batch, L tokens, C coordinates of a position, N latents of a block,
P latents per position, S slots of inputs, H heads, D head dimension, V vocabulary.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from perceiver_ar import masks
from perceiver_ar.attention import attend, attend_filled
from perceiver_ar.blocks import LatentSchedule
from perceiver_ar.checkpoints import unstack_layers
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.network import PerceiverAR

KeysValues = tuple[Array, Array]


class SamplerCache(flax.struct.PyTreeNode):
    """State of sampling between steps.

    Attributes:
      inputs: keys and values [B, H, S, D] of each cross-attention.
      latents: keys and values [B, H, N * P, D] of each layer; the first `fill` * P are of this
        block.
      fill: int32 [B], latents in the block.
      first_input: int32 [B], the first input that latents of the block see.
    """

    inputs: list[KeysValues]
    latents: list[KeysValues]
    fill: Array
    first_input: Array


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Steps of a network with caches.

    Attributes:
      config: of the network.
      max_inputs: inputs there is room for: a sequence has at most one token more.
      schedule: of latents; by default that of `LatentSchedule` for the network's N.
      context: inputs a block sees; by default the network's.
      positions: position of each input, [max_inputs, C], as nested tuples; by default counted
        from 1.
      block: keys read at a time.

    Raises:
      ValueError: the network cannot be sampled from with caches, or not so far.
    """

    config: PerceiverARConfig
    max_inputs: int
    schedule: LatentSchedule = None  # type: ignore[assignment] - None until __post_init__
    context: int = None  # type: ignore[assignment]
    positions: tuple[tuple[int, ...], ...] | None = None
    block: int = 512

    def __post_init__(self):
        cfg = self.config
        defaults = {
            "schedule": LatentSchedule(cfg.z_index_dim),
            "context": cfg.max_context_length,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if cfg.rotary and not cfg.use_positions_from_data:
            raise ValueError(
                "use_positions_from_data=False: positions counted from the end change with every "
                "token, so that nothing can be cached; train with use_positions_from_data=True"
            )
        if cfg.initial_query_embed_style == "learned" and not cfg.share_initial_query:
            raise ValueError(
                "a learned query for each latent belongs to a distance from the end, which changes "
                "with every token, so that nothing can be cached; use share_initial_query=True"
            )
        if not self.schedule.num_latents <= self.context <= cfg.max_context_length:
            raise ValueError(
                f"context={self.context}: expected {self.schedule.num_latents} (the latents) to "
                f"{cfg.max_context_length} (max_context_length)"
            )
        self._check_positions()

    def _check_positions(self) -> None:
        if self.positions is not None and len(self.positions) < self.max_inputs:
            raise ValueError(
                f"positions of {len(self.positions)} inputs are given, {self.max_inputs} are needed"
            )
        counted = ((self.max_inputs,),)
        used = counted if self.positions is None else self.positions[: self.max_inputs]
        largest, known = np.max(used, axis=0).tolist(), list(self.config.max_positions)
        if len(largest) != len(known):
            raise ValueError(
                f"positions have {len(largest)} coordinates, the network {len(known)}: give "
                "positions"
            )
        if any(a > b for a, b in zip(largest, known)):
            raise ValueError(
                f"{self.max_inputs} inputs have positions up to {largest}, but the network knows "
                f"none beyond {known} (max_wavelength or input_idx_size): sample fewer tokens"
            )

    @property
    def slots(self) -> int:
        """Number of slots, S."""
        return min(self.context, self.max_inputs)

    def parameters(self, params: Any) -> Any:
        """Return the network's parameters for the other methods, with one set per layer."""
        return unstack_layers(params, self.config)

    def _apply(self, params: Any, method: Any, *args: Any) -> Any:
        network = PerceiverAR(dataclasses.replace(self.config, scan_layers=False))
        return network.apply({"params": params}, *args, method=method)

    # ------------------------------------------------------------------------- both ways in

    def prefill(self, params: Any, prompts: Array) -> SamplerCache:
        """Return caches of prompts without their last tokens, which are for the first `step`.

        Args:
          params: see `parameters`.
          prompts: int [B, L], rows end before their first 0 and have at least one token.
        """
        last = masks.lengths_of(prompts) - 1
        inputs = self._apply(params, self._project_prompts, prompts, last)
        fill = jnp.minimum(last + 1, self.schedule.first_fill) - 1
        first_input = self._first_input(last - fill)
        width = min(self.schedule.first_fill, prompts.shape[1]) - 1
        latents = self._apply(
            params, self._latents, inputs, prompts, last, fill, first_input, width
        )
        return SamplerCache(inputs, latents, fill, first_input)

    def step(
        self, params: Any, cache: SamplerCache, sequences: Array, index: Array, token: Array
    ) -> tuple[Array, SamplerCache]:
        """Add one token.

        Args:
          params: see `parameters`.
          cache: state after the previous tokens.
          sequences: int [B, L], all tokens before `index`.
          index: int [B], where `token` is.
          token: int [B]; a row with padding (0) is unchanged.

        Returns:
          (float32 logits [B, V] of the next token, new caches).
        """
        inputs = self._apply(params, self._add_inputs, cache.inputs, index, token)
        cache = cache.replace(inputs=inputs)
        cache = self._begin_blocks(params, cache, sequences, index, token > 0)
        return self._apply(params, self._add_latents, cache, index, token)

    # ------------------------------------------------------------------------------ inputs

    def _positions(self, index: Array) -> Array:
        """Return positions [B, Q, C] of inputs [B, Q]."""
        if self.positions is None:
            return index[..., None] + 1
        table = jnp.asarray(self.positions, jnp.int32)
        return jnp.take(table, index, axis=0, mode="clip")

    def _embed(self, net: PerceiverAR, tokens: Array, index: Array) -> tuple[Array, Array | None]:
        """Return embedded tokens and rotation positions of inputs `index` [B, Q]."""
        positions = self._positions(index)
        return net.embed(tokens, positions), net.rotary_positions(positions, index[:, 0])

    def _in_slots(self, newest: Array) -> Array:
        """Return which inputs are in the slots, int [B, S]; negative for none. `newest` is [B]."""
        newest = newest[:, None]
        return newest - (newest - jnp.arange(self.slots)) % self.slots

    def _look_at_inputs(
        self,
        inputs: list[KeysValues],
        newest: Array,
        first_input: Array,
        query_steps: Array,
        number: int,
        query: Array,
    ) -> Array:
        held = self._in_slots(newest)
        key_steps = jnp.where(held >= first_input[:, None], held, masks.NEVER)
        filled = jnp.max(newest) + 1
        return attend_filled(query, *inputs[number], query_steps, key_steps, filled, self.block)

    # ------------------------------------------------------------------------------- prompt

    def _project_prompts(self, net: PerceiverAR, prompts: Array, last: Array) -> list[KeysValues]:
        """Return the newest inputs of prompts [B, L] that end at `last` [B], in their slots."""
        width = min(self.slots, prompts.shape[1])
        held = jnp.maximum(self._in_slots(last)[:, :width], 0)
        x, angles = self._embed(net, jnp.take_along_axis(prompts, held, axis=1), held)
        return [
            (_widen(key, self.slots), _widen(value, self.slots))
            for key, value in net.input_keys_values(x, angles)
        ]

    def _first_input(self, first_latent: Array) -> Array:
        """Return the first input [B] seen in a block that begins with a latent [B]."""
        end = jnp.minimum(first_latent + self.schedule.num_latents, self.max_inputs)
        return jnp.maximum(end - self.context, 0)

    def _latents(
        self,
        net: PerceiverAR,
        inputs: list[KeysValues],
        sequences: Array,
        end: Array,
        count: Array,
        first_input: Array,
        width: int,
    ) -> list[KeysValues]:
        """Return keys and values [B, H, N * P, D], by layer, of the latents before `end` [B].

        The `count` [B] latents come first; the others are undefined. `width` is the largest count.
        """
        per_position = net.config.num_latents_per_position
        slots = self.schedule.num_latents * per_position
        number = jnp.arange(max(width, 1))
        index = (end - count)[:, None] + number
        tokens = jnp.take_along_axis(sequences, index, axis=1, mode="clip")
        x, angles = self._embed(net, tokens, index)
        z = net.initial_queries(x)
        index = jnp.repeat(index, per_position, axis=1)
        angles = None if angles is None else jnp.repeat(angles, per_position, axis=1)
        order = jnp.broadcast_to(jnp.repeat(number, per_position), index.shape)
        key_order = jnp.where(order < count[:, None], order, masks.NEVER)

        def look_at_latents(_: int, query: Array, key: Array, value: Array):
            seen = attend(query, key, value, order, key_order)
            return seen, (_widen(key, slots), _widen(value, slots))

        look_at_inputs = functools.partial(self._look_at_inputs, inputs, end, first_input, index)
        return net.process_cached(z, angles, look_at_inputs, look_at_latents)[1]

    # --------------------------------------------------------------------------------- step

    def _add_inputs(
        self, net: PerceiverAR, inputs: list[KeysValues], index: Array, token: Array
    ) -> list[KeysValues]:
        x, angles = self._embed(net, token[:, None], index[:, None])
        slot = index[:, None] % self.slots
        return [
            (_write(keys, key, slot), _write(values, value, slot))
            for (keys, values), (key, value) in zip(inputs, net.input_keys_values(x, angles))
        ]

    def _add_latents(
        self, net: PerceiverAR, cache: SamplerCache, index: Array, token: Array
    ) -> tuple[Array, SamplerCache]:
        """Return logits [B, V] after tokens [B], and caches with their latents."""
        per_position = net.config.num_latents_per_position
        size = self.schedule.num_latents * per_position
        own = cache.fill[:, None] * per_position + jnp.arange(per_position)
        order = jnp.broadcast_to(jnp.arange(size) // per_position, (len(index), size))
        query_order = jnp.broadcast_to(cache.fill[:, None], own.shape)
        filled = (jnp.max(cache.fill) + 1) * per_position

        def look_at_latents(layer: int, query: Array, key: Array, value: Array):
            keys, values = cache.latents[layer]
            keys, values = _write(keys, key, own), _write(values, value, own)
            seen = attend_filled(query, keys, values, query_order, order, filled, self.block)
            return seen, (keys, values)

        steps = jnp.broadcast_to(index[:, None], own.shape)
        look_at_inputs = functools.partial(
            self._look_at_inputs, cache.inputs, index, cache.first_input, steps
        )
        x, angles = self._embed(net, token[:, None], index[:, None])
        angles = None if angles is None else jnp.repeat(angles, per_position, axis=1)
        z = net.initial_queries(x)
        z, latents = net.process_cached(z, angles, look_at_inputs, look_at_latents)
        fill = cache.fill + (token > 0)
        return net.predict(z)[:, 0], cache.replace(latents=latents, fill=fill)

    def _begin_blocks(
        self,
        params: Any,
        cache: SamplerCache,
        sequences: Array,
        index: Array,
        active: Array,
    ) -> SamplerCache:
        """Begin new blocks in active rows whose block is full.

        If all rows are due they are computed together, else one after the other: the cost is that
        of the rows which are due. These are loops, mostly of no step, rather than conditionals,
        because loops update their state in place.
        """
        count = self.schedule.refill - 1

        def due(state: SamplerCache) -> Array:
            return active & (state.fill >= self.schedule.num_latents)

        def begin(state: SamplerCache, first: Array, rows: int) -> SamplerCache:
            def take(x: Array) -> Array:
                return lax.dynamic_slice_in_dim(x, first, rows, axis=0)

            def put(x: Array, new: Array) -> Array:
                return lax.dynamic_update_slice_in_dim(x, new, first, axis=0)

            # All rows due, nothing else here would depend on the state, and XLA would compute it
            # before the loop, at every step.
            end = take(jnp.where(due(state), index, 0))
            counts = jnp.full((rows,), count)
            first_input = self._first_input(end - count)
            latents = state.latents
            if count:
                latents = self._apply(
                    params,
                    self._latents,
                    jax.tree.map(take, cache.inputs),
                    take(sequences),
                    end,
                    counts,
                    first_input,
                    count,
                )
                latents = jax.tree.map(put, state.latents, latents)
            return state.replace(
                latents=latents,
                fill=put(state.fill, counts),
                first_input=put(state.first_input, first_input),
            )

        # The inputs are read only, so the loops need not carry them.
        state = cache.replace(inputs=[])
        rows = len(index)
        state = lax.while_loop(
            lambda s: jnp.all(due(s)), lambda s: begin(s, jnp.int32(0), rows), state
        )
        if rows > 1:
            state = lax.while_loop(
                lambda s: jnp.any(due(s)), lambda s: begin(s, jnp.argmax(due(s)), 1), state
            )
        return state.replace(inputs=cache.inputs)


def _widen(x: Array, size: int) -> Array:
    """Cut or pad [B, H, L, D] with zeros to [B, H, size, D]."""
    x = x[:, :, :size]
    return jnp.pad(x, ((0, 0), (0, 0), (0, size - x.shape[2]), (0, 0)))


def _write(x: Array, new: Array, slots: Array) -> Array:
    """Write `new` [B, H, Q, D] to slots [B, Q] of [B, H, S, D]; drop slots beyond the last."""
    rows = jnp.arange(x.shape[0])[:, None]
    return x.at[rows, :, slots].set(jnp.swapaxes(new, 1, 2), mode="drop")
