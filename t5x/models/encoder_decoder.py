"""The model of encoder-decoder networks.

Letters in shapes: B batch, K decodes, L target length, T encoder length, E embed, V vocabulary.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import unfreeze
from jax import Array

from t5x import decoding, losses
from t5x.data.converters import EncDecFeatureConverter
from t5x.decoding.cache import Cache, DecodingState, flat_batch_beam_expand
from t5x.layers.dropout import dropout_rngs
from t5x.models.base import (
    BaseTransformerModel,
    Batch,
    DecodeFn,
    DecoderParams,
    Params,
    all_or_best,
    example_inputs,
)


class EncoderDecoderModel(BaseTransformerModel):
    """An encoder-decoder network with methods `encode`, `decode` and, best, `init_cache`.

    Args as in `BaseTransformerModel`, and:
      feature_converter_cls: replaces `FEATURE_CONVERTER_CLS`.
      default_decoder_params: defaults of `predict_batch_with_aux`.
    """

    FEATURE_CONVERTER_CLS = EncDecFeatureConverter

    def __init__(
        self,
        module: nn.Module,
        input_vocabulary: Any,
        output_vocabulary: Any,
        optimizer_def: Any,
        decode_fn: DecodeFn = decoding.beam_search,
        feature_converter_cls: Any = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: losses.LossNormalizingFactor = None,
        default_decoder_params: DecoderParams | None = None,
    ):
        if feature_converter_cls is not None:
            self.FEATURE_CONVERTER_CLS = feature_converter_cls
        self._default_decoder_params = default_decoder_params or DecoderParams()
        super().__init__(
            module,
            input_vocabulary,
            output_vocabulary,
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
        """Initialise the network for inputs of these shapes (and types, default float32).

        Args:
          rng: random key.
          input_shapes: shape of `encoder_input_tokens`, `decoder_input_tokens`,
            `decoder_target_tokens` and, optionally, of positions and segment ids.
          input_types: type by feature name.
        """
        inputs = example_inputs(input_shapes, input_types)
        optional: dict[str, Any] = {
            k: v for k, v in inputs.items() if k.endswith(("_positions", "_segment_ids"))
        }
        params_rng, dropout_rng = jax.random.split(rng)
        variables = self.module.init(
            {"params": params_rng, "dropout": dropout_rng},
            inputs["encoder_input_tokens"],
            inputs["decoder_input_tokens"],
            inputs["decoder_target_tokens"],
            **optional,
            decode=False,
            enable_dropout=False,
        )
        return unfreeze(variables)

    def _compute_logits(
        self, params: Params, batch: Batch, dropout_rng: Array | None = None, mutable: Any = False
    ) -> Any:
        return self.module.apply(
            {"params": params},
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
            batch["decoder_target_tokens"],
            encoder_segment_ids=batch.get("encoder_segment_ids"),
            decoder_segment_ids=batch.get("decoder_segment_ids"),
            encoder_positions=batch.get("encoder_positions"),
            decoder_positions=batch.get("decoder_positions"),
            decode=False,
            enable_dropout=dropout_rng is not None,
            rngs=dropout_rngs(dropout_rng),
            mutable=mutable,
        )

    def _encode(self, params: Params, batch: Batch) -> Any:
        return self.module.apply(
            {"params": params},
            batch["encoder_input_tokens"],
            enable_dropout=False,
            method=self.module.encode,
        )

    def _init_cache(
        self, params: Params, encoded: Array, encoder_inputs: Array, length: int
    ) -> Cache:
        """Caches for `length` decoding steps; nothing but keys and values is computed."""
        if hasattr(self.module, "init_cache"):
            _, variables = self.module.apply(
                {"params": params},
                encoded,
                encoder_inputs,
                length,
                method=self.module.init_cache,
                mutable=["cache"],
            )
            return variables["cache"]
        tokens = jnp.ones((encoded.shape[0], length), jnp.int32)
        _, variables = jax.eval_shape(
            functools.partial(self._decode, max_decode_length=length),
            {"params": params},
            encoded,
            encoder_inputs,
            tokens,
        )
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), unfreeze(variables)["cache"])

    def _decode(
        self,
        variables: Mapping[str, Any],
        encoded: Array,
        encoder_inputs: Array,
        tokens: Array,
        max_decode_length: int,
        **options: Any,
    ) -> tuple[Array, Mapping[str, Any]]:
        """The next step(s) of cached decoding: logits [B, steps, V] and the new caches."""
        return self.module.apply(
            variables,
            encoded,
            encoder_inputs,
            tokens,
            tokens,
            enable_dropout=False,
            decode=True,
            max_decode_length=max_decode_length,
            mutable=["cache"],
            method=self.module.decode,
            **options,
        )

    def _can_prefill(self) -> bool:
        """Whether decoding can start in the middle of a row, and the network go there at once."""
        decode = getattr(self.module, "decode", None)
        return _takes(self._decode_fn, "initial_index") and _takes(decode, "prefill")

    def predict_batch_with_aux(
        self,
        params: Params,
        batch: Batch,
        rng: Array | None = None,
        decoder_params: MutableMapping[str, Any] | None = None,
        return_all_decodes: bool | None = None,
        num_decodes: int | None = None,
        prompt_with_targets: bool = False,
    ) -> tuple[Array, Mapping[str, Array]]:
        """Encode once, then decode as many tokens as `decoder_input_tokens` has columns.

        Args:
          params: parameters of the network.
          batch: `encoder_input_tokens` [B, T, ...] and `decoder_input_tokens` int [B, L].
          rng: random key of sampling; not together with `decoder_params["decode_rng"]`.
          decoder_params: further arguments of the decoding function.
          return_all_decodes: all K decodes rather than the best.
          num_decodes: K.
          prompt_with_targets: force the non-zero decoder inputs (but EOS) as a prompt. One that
            begins a row fills the caches in one pass, if the network and the decoding function
            can do so.

        Returns:
          (decodes int32 [B, L], or [B, K, L] in ascending order of score,
          {"scores": float32 [B] or [B, K]}).

        Raises:
          ValueError: two random keys.
        """
        defaults = self._default_decoder_params
        all_decodes = (
            defaults.return_all_decodes if return_all_decodes is None else return_all_decodes
        )
        num_decodes = defaults.num_decodes if num_decodes is None else num_decodes
        options = self._decoding_options(rng, num_decodes, decoder_params)
        prompts = self._prompts(batch, options["eos_id"], prompt_with_targets)
        length = prompts.shape[1]
        encoder_inputs = batch["encoder_input_tokens"]
        encoded = self._encode(params, batch)
        cache = self._init_cache(params, encoded, encoder_inputs, length)
        if prompt_with_targets and self._can_prefill():
            options["initial_index"] = prompt_lengths(prompts)
            _, variables = self._decode(
                {"params": params, "cache": cache},
                encoded,
                encoder_inputs,
                prompts,
                length,
                prefill=True,
                # The last token of a prompt is no part of the cache: the first step feeds it.
                prefill_lengths=options["initial_index"],
            )
            cache = variables["cache"]
        # Networks without a cross-attention cache read these; for others they cost nothing.
        encoded = flat_batch_beam_expand(encoded, options["num_decodes"])
        encoder_inputs = flat_batch_beam_expand(encoder_inputs, options["num_decodes"])

        def tokens_to_logits(state: DecodingState) -> tuple[Array, Cache]:
            variables = {"params": params, "cache": state.cache}
            logits, mutated = self._decode(
                variables, encoded, encoder_inputs, state.cur_token, length
            )
            return logits[:, 0], mutated["cache"]

        decodes, scores = self._decode_fn(
            inputs=prompts,
            cache=cache,
            tokens_to_logits=tokens_to_logits,
            cache_offset=self._cache_offset(),
            **options,
        )
        return all_or_best(decodes, scores, all_decodes)

    def _prompts(self, batch: Batch, eos_id: int, prompt_with_targets: bool) -> Array:
        tokens = batch["decoder_input_tokens"]
        if not prompt_with_targets:
            return jnp.zeros_like(tokens)
        return jnp.where(tokens == eos_id, 0, tokens)


def prompt_lengths(prompts: Array) -> Array:
    """How many tokens follow BOS before the first that is free (0), int32 [B], of [B, L]."""
    return jnp.cumprod(prompts[:, 1:] != 0, axis=1, dtype=jnp.int32).sum(axis=1, dtype=jnp.int32)


def _takes(function: Callable[..., Any] | None, name: str) -> bool:
    return function is not None and name in inspect.signature(function).parameters
