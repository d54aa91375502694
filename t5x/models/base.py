"""What the trainer asks of a model, and the loss and scores of transformers.

A model owns its network, loss and decoding; parameters are passed in. Letters in shapes: B batch,
K decodes, L target length, V vocabulary.
"""

import abc
import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import unfreeze
from jax import Array

from t5x import losses
from t5x.metrics import MetricsMap
from t5x.models.metrics import compute_base_metrics
from t5x.training.flops import train_step_flops

Batch = Mapping[str, Array]
Params = Any
PyTree = Any
DecodeFn = Callable[..., tuple[Array, Array]]
#: Upstream's name for the type of decoding functions.
DecodeFnCallable = DecodeFn


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

    def train_step_flops(self, params: Params, batch: Batch) -> float | None:
        """FLOPs of a step by formula (`t5x.training.flops`); None if there is no formula."""
        config = getattr(getattr(self, "module", None), "config", None)
        return train_step_flops(params, config, batch)

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

    def _normalization(self, batch: Batch) -> tuple[Any, Array | None]:
        if "normalized_loss_weights" in batch:
            return self._loss_normalizing_factor, batch["normalized_loss_weights"]
        return losses.get_loss_normalizing_factor_and_weights(self._loss_normalizing_factor, batch)

    def normalize_globally(self, batch: Batch) -> tuple["BaseTransformerModel", Batch]:
        """Fix the normalisation by the whole batch, so that its parts sum to the whole.

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
            mask=batch.get("decoder_loss_weights"),
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

    def _decoding_options(
        self, rng: Array | None, num_decodes: int, decoder_params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Arguments of the decoding function; raises ValueError if there are two random keys."""
        options = {"eos_id": self._eos_id(), "num_decodes": num_decodes, **(decoder_params or {})}
        if rng is not None:
            if options.get("decode_rng") is not None:
                raise ValueError("give either rng or decoder_params['decode_rng'], not both")
            options["decode_rng"] = rng
        return options

    def _cache_offset(self) -> int:
        """Axis of the batch in the caches."""
        return 1 if getattr(self.module, "scan_layers", False) else 0

    def _eos_id(self) -> int:
        eos_id = getattr(self.output_vocabulary, "eos_id", None)
        return 1 if eos_id is None else eos_id


def get_input_vocabulary(model: BaseTransformerModel) -> Any:
    """Return the vocabulary of the model's inputs, or None."""
    return model.input_vocabulary


def get_output_vocabulary(model: BaseTransformerModel) -> Any:
    """Return the vocabulary of the model's targets."""
    return model.output_vocabulary


def example_inputs(
    input_shapes: Mapping[str, tuple[int, ...]], input_types: Mapping[str, Any] | None
) -> dict[str, Array]:
    """Ones of these shapes, and types (default float32), to initialise a network with."""
    types = input_types or {}
    return {k: jnp.ones(shape, types.get(k, jnp.float32)) for k, shape in input_shapes.items()}


def all_or_best(
    decodes: Array, scores: Array, return_all_decodes: bool
) -> tuple[Array, dict[str, Array]]:
    """Decodes [B, K, L] with their scores [B, K], or the best [B, L] with its score [B]."""
    if return_all_decodes:
        return decodes, {"scores": scores}
    return decodes[:, -1], {"scores": scores[:, -1]}
