"""Stacks of layers between embeddings and output, one after the other or scanned.

A configuration may have, beside the sizes:

* `scan_layers`: one layer whose parameters have an axis more (`param_scan_axis`, logical name
  "layers"), applied in a `lax.scan`: the program no longer grows with the depth. The parameters
  are called by the stack ("encoder", "decoder") rather than `layers_0`, `layers_1`, ...
* `remat_policy`: what the backward pass recomputes: "none", "minimal" (all but the products
  with parameters) or "full" (all but the inputs of the layers).

Letters in shapes: B batch, L length, T encoder length, E embed, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jax import Array

from t5x.layers.blocks import DecoderLayer, EncoderLayer
from t5x.layers.config import NO_CACHE, Caching
from t5x.layers.dense import (
    DenseGeneral,
    Initializer,
    default_kernel_init,
    shard,
)
from t5x.layers.dropout import Dropout, broadcast_dropout
from t5x.layers.embeddings import Embed
from t5x.layers.norms import RMSNorm

REMAT_POLICIES: dict[str, Any] = {
    "minimal": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "full": None,
}


def scans_layers(config: Any) -> bool:
    """Whether networks of this configuration scan over their layers."""
    return getattr(config, "scan_layers", False)


class Stack(nn.Module):
    """Layers of one kind; see the module's docstring."""

    config: Any

    def make_layers(self, make: Callable[[], nn.Module], count: int, name: str) -> None:
        """Create the layers; `name` is what scanned ones are called. Call it in `setup`."""
        if scans_layers(self.config):
            setattr(self, name, make())
            self.scanned_name, self.num_scanned = name, count
        else:
            self.layers = [make() for _ in range(count)]

    def each_layer(self, call: Callable[[Any, Any], Any], x: Any, *, remat: bool = True) -> Any:
        """call(layer, x) -> x for every layer in turn.

        Raises:
          ValueError: an unknown `remat_policy`.
        """
        scanned = scans_layers(self.config)
        policy = getattr(self.config, "remat_policy", None) or "none"
        if policy not in ("none", *REMAT_POLICIES):
            names = ", ".join(("none", *REMAT_POLICIES))
            raise ValueError(f"remat_policy={policy!r} is not one of {names}")
        if remat and policy != "none":
            # Within a scan nothing is computed twice by accident.
            call = nn.remat(call, policy=REMAT_POLICIES[policy], prevent_cse=not scanned)
        if scanned:
            return self._scan(call, x)
        for layer in self.layers:
            x = call(layer, x)
        return x

    def _scan(self, call: Callable[[Any, Any], Any], x: Any) -> Any:
        def body(layer: Any, x: Any, _: None) -> tuple[Any, None]:
            return call(layer, x), None

        scan = nn_partitioning.scan_with_axes(
            body,  # type: ignore[arg-type]
            variable_axes={
                "params": getattr(self.config, "param_scan_axis", 1),
                "cache": 0,
                "intermediates": 0,
            },
            split_rngs={"params": True, "dropout": True},
            length=self.num_scanned,
            axis_name="layers",
        )
        return scan(getattr(self, self.scanned_name), x, None)[0]


class EncoderStack(Stack):
    """Dropout, the layers, and the final norm. Subclasses embed the inputs."""

    def setup(self):
        cfg = self.config
        self.make_layers(self.make_layer, cfg.num_encoder_layers, "encoder")
        self.encoder_norm = RMSNorm(dtype=cfg.dtype)
        self.input_dropout = broadcast_dropout(cfg.dropout_rate)
        self.output_dropout = Dropout(cfg.dropout_rate)

    def make_layer(self) -> nn.Module:
        """A new layer."""
        return EncoderLayer(self.config)

    def encode(
        self, x: Array, mask: Array | None, bias: Array | None, deterministic: bool
    ) -> Array:
        """Embedded inputs [B, T, E] to encodings [B, T, E].

        Args:
          x: [B, T, E].
          mask: [B, 1, T, T] or None.
          bias: [1, H, T, T] of all layers, or None.
          deterministic: no dropout.
        """
        x = self.input_dropout(x, deterministic=deterministic).astype(self.config.dtype)
        x = self.each_layer(lambda layer, x: layer(x, mask, bias, deterministic=deterministic), x)
        return self.output_dropout(self.encoder_norm(x), deterministic=deterministic)


class DecoderStack(Stack):
    """Dropout, the layers, the final norm and the logits. Subclasses embed the tokens."""

    def setup(self):
        cfg = self.config
        self.make_layers(self.make_layer, self.num_layers(), "decoder")
        self.decoder_norm = RMSNorm(dtype=cfg.dtype)
        self.dropout = broadcast_dropout(cfg.dropout_rate)
        if not cfg.logits_via_embedding:
            self.logits_dense = DenseGeneral(
                cfg.vocab_size,
                dtype=jnp.float32,  # float32 logits are more stable
                kernel_init=self.logits_init(),
                kernel_axes=("embed", "vocab"),
            )

    def make_layer(self) -> nn.Module:
        """A new layer."""
        return DecoderLayer(self.config)

    def num_layers(self) -> int:
        """The depth."""
        return self.config.num_decoder_layers

    def logits_init(self) -> Initializer:
        """Initialiser of the logits kernel [E, V]."""
        return default_kernel_init

    def decode(
        self,
        y: Array,
        embedder: Embed,
        encoded: Array | None,
        decoder_mask: Array | None,
        encoder_decoder_mask: Array | None,
        bias: Array | None = None,
        *,
        deterministic: bool = False,
        caching: Caching = NO_CACHE,
    ) -> Array:
        """Embedded tokens [B, L, E] to float32 logits [B, L, V].

        Args:
          y: [B, L, E].
          embedder: embedding of the tokens, used again if the logits are tied to it (then
            scaled by 1 / sqrt(E)).
          encoded: [B, T, E]; None once it is cached, or without an encoder.
          decoder_mask: [B, 1, L, L] or None.
          encoder_decoder_mask: [B, 1, L, T] or None.
          bias: [1, H, L, L] of all layers, or None.
          deterministic: no dropout.
          caching: how the caches are used.
        """

        def call(layer: Any, y: Array) -> Array:
            return layer(
                y,
                encoded,
                decoder_mask,
                encoder_decoder_mask,
                bias,
                deterministic=deterministic,
                caching=caching,
            )

        y = self.dropout(y, deterministic=deterministic).astype(self.config.dtype)
        y = self.each_layer(call, y, remat=not caching.decode)
        y = self.dropout(self.decoder_norm(y), deterministic=deterministic)
        if self.config.logits_via_embedding:
            logits = embedder.attend(y) / jnp.sqrt(y.shape[-1])
        else:
            logits = self.logits_dense(y)
        return shard(logits, "batch", "length", "vocab")

    def init_cache(self, encoded: Array, max_decode_length: int) -> None:
        """Allocate the caches of all layers and project `encoded` [B, T, E] into them."""

        def call(layer: Any, x: None) -> None:
            layer.init_cache(encoded, max_decode_length)
            return x

        self.each_layer(call, None, remat=False)
