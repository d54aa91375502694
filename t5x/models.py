"""What the trainer asks of a model, and the encoder-decoder transformer.

A model owns its network, loss and decoding; parameters are passed in. Letters in shapes: B batch,
K decodes, L target length, T encoder length, E embed, V vocabulary.
"""

import abc
import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import unfreeze
from jax import Array

from t5x import decoding, losses
from t5x.data.converters import EncDecFeatureConverter
from t5x.decode_cache import Cache, DecodingState, flat_batch_beam_expand
from t5x.metrics import MetricsMap
from t5x.model_metrics import compute_base_metrics

Batch = Mapping[str, Array]
Params = Any
DecodeFn = Callable[..., tuple[Array, Array]]


class BaseModel(abc.ABC):
    """The contract between a model and the trainer, evaluator and inference loops.

    Attributes:
      optimizer_def: the optimizer, see `t5x.optimizers`.
      FEATURE_CONVERTER_CLS: turns task features into the features of a batch.
    """

    FEATURE_CONVERTER_CLS: Any

    def __init__(self, optimizer_def: Any):
        self.optimizer_def = optimizer_def

    @abc.abstractmethod
    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Initial collections: `params`, `params_axes` and whatever else the network keeps."""

    @abc.abstractmethod
    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: Array | None
    ) -> tuple[Array, MetricsMap]:
        """(scalar loss, metrics) of a batch; no dropout if `dropout_rng` is None."""

    def eval_fn(self, params: Params, batch: Batch) -> tuple[Array, MetricsMap]:
        """`loss_fn` without dropout."""
        return self.loss_fn(params, batch, None)

    def predict_batch(self, params: Params, batch: Batch, rng: Array | None = None) -> Any:
        """Predictions for a batch."""
        return self.predict_batch_with_aux(params, batch, rng=rng)[0]

    @abc.abstractmethod
    def predict_batch_with_aux(
        self, params: Params, batch: Batch, rng: Array | None = None
    ) -> tuple[Any, Mapping[str, Any]]:
        """(predictions, what else decoding knows, such as `scores`)."""

    @abc.abstractmethod
    def score_batch(self, params: Params, batch: Batch, return_intermediates: bool = False) -> Any:
        """Log-likelihood [B] of the targets."""


@dataclasses.dataclass(frozen=True)
class DecoderParams:
    """Defaults of prediction.

    Attributes:
      return_all_decodes: all decodes [B, K, L] rather than the best [B, L].
      num_decodes: K.
    """

    return_all_decodes: bool = False
    num_decodes: int = 1


class BaseTransformerModel(BaseModel):
    """Token cross-entropy on `decoder_target_tokens`, for any network that gives logits.

    Args:
      module: the network.
      input_vocabulary: vocabulary of the inputs, or None.
      output_vocabulary: vocabulary of the targets; its `eos_id` ends decoding.
      optimizer_def: see `BaseModel`.
      decode_fn: `t5x.decoding.temperature_sample`, `beam_search`, or alike.
      label_smoothing: see `t5x.losses`.
      z_loss: see `t5x.losses`.
      loss_normalizing_factor: see `t5x.losses`.
    """

    def __init__(
        self,
        module: nn.Module,
        input_vocabulary: Any,
        output_vocabulary: Any,
        optimizer_def: Any,
        decode_fn: DecodeFn,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: losses.LossNormalizingFactor = None,
    ):
        super().__init__(optimizer_def)
        self.module = module
        self.input_vocabulary = input_vocabulary
        self.output_vocabulary = output_vocabulary
        self._decode_fn = decode_fn
        self._label_smoothing = label_smoothing
        self._z_loss = z_loss
        self._loss_normalizing_factor = loss_normalizing_factor

    @abc.abstractmethod
    def _compute_logits(
        self, params: Params, batch: Batch, dropout_rng: Array | None = None, mutable: Any = False
    ) -> Any:
        """Logits [B, L, V]; with `mutable` collections, (logits, collections)."""

    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: Array | None
    ) -> tuple[Array, MetricsMap]:
        """Summed (or normalised) cross-entropy with z-loss, and the metrics of the step."""
        logits = self._compute_logits(params, batch, dropout_rng)
        factor, weights = self._normalization(batch)
        loss, z_loss, _ = losses.compute_weighted_cross_entropy(
            logits,
            batch["decoder_target_tokens"],
            weights,
            self._label_smoothing,
            self._z_loss,
            factor,
        )
        return loss, self._compute_metrics(logits, batch, loss, z_loss)

    def _normalization(self, batch: Batch) -> tuple[Array | float | None, Array | None]:
        if "normalized_loss_weights" in batch:
            return self._loss_normalizing_factor, batch["normalized_loss_weights"]
        return losses.get_loss_normalizing_factor_and_weights(self._loss_normalizing_factor, batch)

    def normalize_globally(self, batch: Batch) -> tuple["BaseTransformerModel", Batch]:
        """Fixes the normalisation by the whole batch, so that its parts sum to the whole.

        Returns:
          A model which divides by the factor of `batch`, and `batch` with the weights to use.
        """
        factor, weights = self._normalization(batch)
        model = copy.copy(self)
        model._loss_normalizing_factor = factor
        return model, batch if weights is None else {**batch, "normalized_loss_weights": weights}

    def _compute_metrics(
        self, logits: Array, batch: Batch, loss: Array, z_loss: Array
    ) -> MetricsMap:
        return compute_base_metrics(
            logits=logits,
            targets=batch["decoder_target_tokens"],
            weights=batch.get("decoder_loss_weights"),
            loss=loss,
            z_loss=z_loss,
            segment_ids={
                name: batch[f"{name}_segment_ids"]
                for name in ("encoder", "decoder")
                if f"{name}_segment_ids" in batch
            },
        )

    def score_batch(self, params: Params, batch: Batch, return_intermediates: bool = False) -> Any:
        """Log-likelihood of the targets, float32 [B]: the sum over weighted target tokens.

        With `return_intermediates` also a dict of what the network `sow`ed and, under `decoder`,
        the `target_tokens`, `loss_weights` and `token_scores` [B, L], each in a tuple.
        """
        intermediates = {}
        if return_intermediates:
            logits, mutated = self._compute_logits(params, batch, mutable=["intermediates"])
            intermediates = unfreeze(mutated).get("intermediates", {})
        else:
            logits = self._compute_logits(params, batch)
        targets = batch["decoder_target_tokens"]
        weights = batch["decoder_loss_weights"]
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        token_scores = (chosen - jax.nn.logsumexp(logits, axis=-1)) * weights
        scores = token_scores.sum(-1)
        if not return_intermediates:
            return scores
        decoder = intermediates.setdefault("decoder", {})
        decoder["target_tokens"] = (targets,)
        decoder["loss_weights"] = (weights,)
        decoder["token_scores"] = (token_scores,)
        return scores, intermediates

    def _eos_id(self) -> int:
        eos_id = getattr(self.output_vocabulary, "eos_id", None)
        return 1 if eos_id is None else eos_id


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
        """Initialises the network for inputs of these shapes (and types, default float32).

        Args:
          rng: random key.
          input_shapes: shape of `encoder_input_tokens`, `decoder_input_tokens`,
            `decoder_target_tokens` and, optionally, of positions and segment ids.
          input_types: type by feature name.
        """
        inputs = {
            name: jnp.ones(shape, (input_types or {}).get(name, jnp.float32))
            for name, shape in input_shapes.items()
        }
        optional = {k: v for k, v in inputs.items() if k.endswith(("_positions", "_segment_ids"))}
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
            rngs=None if dropout_rng is None else {"dropout": dropout_rng},
            mutable=mutable,
        )

    def _encode(self, params: Params, batch: Batch) -> Array:
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
        )

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
        """Encodes once, then decodes as many tokens as `decoder_input_tokens` has columns.

        Args:
          params: parameters of the network.
          batch: `encoder_input_tokens` [B, T, ...] and `decoder_input_tokens` int [B, L].
          rng: random key of sampling; not together with `decoder_params["decode_rng"]`.
          decoder_params: further arguments of the decoding function.
          return_all_decodes: all K decodes rather than the best.
          num_decodes: K.
          prompt_with_targets: force the non-zero decoder inputs (but EOS) as a prompt.

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
        options = {"eos_id": self._eos_id(), "num_decodes": num_decodes, **(decoder_params or {})}
        if rng is not None:
            if options.get("decode_rng") is not None:
                raise ValueError("give either rng or decoder_params['decode_rng'], not both")
            options["decode_rng"] = rng
        prompts = self._prompts(batch, options["eos_id"], prompt_with_targets)
        length = prompts.shape[1]
        encoder_inputs = batch["encoder_input_tokens"]
        encoded = self._encode(params, batch)
        cache = self._init_cache(params, encoded, encoder_inputs, length)
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
            cache_offset=1 if getattr(self.module, "scan_layers", False) else 0,
            **options,
        )
        if all_decodes:
            return decodes, {"scores": scores}
        return decodes[:, -1], {"scores": scores[:, -1]}

    def _prompts(self, batch: Batch, eos_id: int, prompt_with_targets: bool) -> Array:
        tokens = batch["decoder_input_tokens"]
        if not prompt_with_targets:
            return jnp.zeros_like(tokens)
        return jnp.where(tokens == eos_id, 0, tokens)
