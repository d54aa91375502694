"""The model of decoder-only networks: language models and prefix language models.

Letters in shapes: B batch, K decodes, L length of prompt and continuation, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import unfreeze
from jax import Array

from t5x import decoding, losses
from t5x.data.converters import DecoderFeatureConverter
from t5x.decoding.cache import Cache, DecodingState
from t5x.layers.dropout import dropout_rngs
from t5x.models.base import (
    BaseTransformerModel,
    Batch,
    DecodeFn,
    Params,
    all_or_best,
    example_inputs,
)

_OPTIONAL = ("decoder_segment_ids", "decoder_positions", "decoder_causal_attention")


class DecoderOnlyModel(BaseTransformerModel):
    """A network (decoder_input_tokens, decoder_target_tokens, ...) -> logits with a cache.

    Args as in `BaseTransformerModel`, and:
      vocabulary: of inputs and targets.
      inputs_bidirectional_attention: the positions of `inputs` all see each other (a prefix
        language model); otherwise attention is causal throughout.
      feature_converter_cls: replaces `FEATURE_CONVERTER_CLS`.
    """

    FEATURE_CONVERTER_CLS = DecoderFeatureConverter

    def __init__(
        self,
        module: nn.Module,
        vocabulary: Any,
        optimizer_def: Any,
        decode_fn: DecodeFn = decoding.temperature_sample,
        inputs_bidirectional_attention: bool = False,
        feature_converter_cls: Any = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: losses.LossNormalizingFactor = None,
    ):
        if feature_converter_cls is not None:
            self.FEATURE_CONVERTER_CLS = feature_converter_cls
        self._inputs_bidirectional_attention = inputs_bidirectional_attention
        super().__init__(
            module,
            vocabulary,
            vocabulary,
            optimizer_def,
            decode_fn,
            label_smoothing,
            z_loss,
            loss_normalizing_factor,
        )

    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Initialise the network for `decoder_input_tokens` of this shape, int [B, L]."""
        inputs = example_inputs(input_shapes, input_types)
        tokens = inputs["decoder_input_tokens"]
        params_rng, dropout_rng = jax.random.split(rng)
        variables = self.module.init(
            {"params": params_rng, "dropout": dropout_rng}, tokens, tokens, enable_dropout=False
        )
        return unfreeze(variables)

    def _compute_logits(
        self, params: Params, batch: Batch, dropout_rng: Array | None = None, mutable: Any = False
    ) -> Any:
        optional: dict[str, Any] = {k: batch.get(k) for k in _OPTIONAL}
        optional["decoder_causal_attention"] = self._prefix(batch)
        return self.module.apply(
            {"params": params},
            batch["decoder_input_tokens"],
            batch["decoder_target_tokens"],
            **optional,
            enable_dropout=dropout_rng is not None,
            rngs=dropout_rngs(dropout_rng),
            mutable=mutable,
        )

    def _prefix(self, batch: Batch) -> Array | None:
        """Where attention is bidirectional, [B, L], or None."""
        if not self._inputs_bidirectional_attention:
            return None
        return batch.get("decoder_causal_attention")

    def _prefilled_cache(self, params: Params, batch: Batch, lengths: Array) -> Cache:
        """Caches with the first `lengths` [B] positions of the prompts, computed in one pass."""
        prompt = batch["decoder_causal_attention"]
        _, variables = self.module.apply(
            {"params": params},
            batch["decoder_input_tokens"] * prompt,
            prompt,  # as targets: the mask then covers the prompt, BOS included, and no more
            decoder_causal_attention=self._prefix(batch),
            enable_dropout=False,
            decode=True,
            max_decode_length=prompt.shape[1],
            prefill=True,
            prefill_lengths=lengths,
            mutable=["cache"],
        )
        return variables["cache"]

    def predict_batch_with_aux(
        self,
        params: Params,
        batch: Batch,
        rng: Array | None = None,
        *,
        return_all_decodes: bool = False,
        num_decodes: int = 1,
        decoder_params: Mapping[str, Any] | None = None,
    ) -> tuple[Array, Mapping[str, Array]]:
        """Continue the prompts, which may be of unequal lengths.

        Args:
          params: parameters of the network.
          batch: `decoder_input_tokens` int [B, L], and `decoder_causal_attention` [B, L], which
            is 1 on BOS and the prompt after it. L bounds prompt and continuation together.
          rng: random key of sampling; not together with `decoder_params["decode_rng"]`.
          return_all_decodes: all K decodes rather than the best.
          num_decodes: K.
          decoder_params: further arguments of the decoding function.

        Returns:
          (continuations without their prompts, int32 [B, L], or [B, K, L] in ascending order of
          score, {"scores": float32 [B] or [B, K]}).

        Raises:
          ValueError: the batch does not say what the prompt is, or there are two random keys.
        """
        if "decoder_causal_attention" not in batch:
            raise ValueError(
                "prediction needs prompts: the batch has no decoder_causal_attention; give "
                "task_feature_lengths both 'inputs' and 'targets'"
            )
        options = self._decoding_options(rng, num_decodes, decoder_params)
        prompt = batch["decoder_causal_attention"]
        decodes, scores = self._decode(
            params, batch["decoder_input_tokens"] * prompt, batch, options
        )
        lengths = jnp.sum(prompt, axis=1) - 1  # without BOS
        return all_or_best(remove_prefix(decodes, lengths), scores, return_all_decodes)

    def _decode(
        self, params: Params, forced: Array, batch: Batch, options: Mapping[str, Any]
    ) -> tuple[Array, Array]:
        """What the decoding function makes of `forced` int [B, L], after the prompts of a batch."""
        length = forced.shape[1]
        lengths = jnp.sum(batch["decoder_causal_attention"], axis=1) - 1

        def tokens_to_logits(state: DecodingState) -> tuple[Array, Cache]:
            logits, mutated = self.module.apply(
                {"params": params, "cache": state.cache},
                state.cur_token,
                state.cur_token,
                enable_dropout=False,
                decode=True,
                max_decode_length=length,
                mutable=["cache"],
            )
            return logits[:, 0], mutated["cache"]

        return self._decode_fn(
            inputs=forced,
            # The last token of a prompt is no part of the cache: the first step feeds it.
            cache=self._prefilled_cache(params, batch, lengths),
            tokens_to_logits=tokens_to_logits,
            initial_index=lengths,
            cache_offset=self._cache_offset(),
            **options,
        )


def remove_prefix(sequence: Array, prefix_length: Array) -> Array:
    """Shift rows [B, ..., L] left by `prefix_length` [B], filling up with 0.

    a b c d, 2 -> c d 0 0
    """
    lengths = prefix_length.reshape(-1, *[1] * (sequence.ndim - 1))
    positions = jnp.arange(sequence.shape[-1]) + lengths
    shifted = jnp.take_along_axis(sequence, positions, axis=-1, mode="clip")
    return jnp.where(positions < sequence.shape[-1], shifted, 0)
