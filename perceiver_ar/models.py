"""Perceiver AR as the trainer sees it.

Letters in shapes: B batch, T inputs, C coordinates of a position, N latents, V vocabulary.
"""

import abc
import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax.core import unfreeze
from jax import Array

from perceiver_ar import masks
from perceiver_ar.blocks import LatentSchedule
from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from perceiver_ar.flops import train_step_flops
from perceiver_ar.generation import NEVER_SAMPLED, sample
from perceiver_ar.network import PerceiverAR
from perceiver_ar.sampler import Sampler
from t5x import decoding, losses
from t5x.layers.dropout import dropout_rngs
from t5x.metrics import Average, MetricsMap
from t5x.models.base import BaseTransformerModel, Batch, DecodeFn, Params, all_or_best
from t5x.models.decoder_only import remove_prefix
from t5x.models.metrics import metrics_of_mean


class BitsPerToken(Average):
    """An average of nats, in bits."""

    def compute(self) -> Any:
        return super().compute() / math.log(2)


class SequenceModel(BaseTransformerModel):
    """Cross-entropy of the targets that count in a batch of `PerceiverARFeatureConverter`.

    The loss in training has the z-loss and label smoothing; that of evaluations has neither.

    Attributes:
      num_latents: N, inputs of a row that have logits, its last; None for all.
    """

    FEATURE_CONVERTER_CLS = PerceiverARFeatureConverter
    num_latents: int | None = None

    @abc.abstractmethod
    def at_latents(self, batch: Batch) -> dict[str, Array]:
        """Return `batch` with the targets and loss weights [B, N] that belong to the logits."""

    def target_nats(self, params: Params, batch: Batch) -> tuple[Array, Array]:
        """Return (-log p of each target, weights, 0 where it does not count), float32 [B, N]."""
        at = self.at_latents(batch)
        logits = self._compute_logits(params, at)
        return losses.token_nats(logits, at["decoder_target_tokens"]), at["decoder_loss_weights"]

    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: Array | None
    ) -> tuple[Array, MetricsMap]:
        """Return loss and metrics, see `BaseTransformerModel.loss_fn`."""
        return super().loss_fn(params, self.at_latents(batch), dropout_rng)

    def normalize_globally(self, batch: Batch) -> tuple[BaseTransformerModel, Batch]:
        """Return a model that knows the whole batch, and the batch, reduced to the latents.

        See `BaseTransformerModel.normalize_globally`.
        """
        return super().normalize_globally(self.at_latents(batch))

    def eval_fn(self, params: Params, batch: Batch) -> tuple[Array, MetricsMap]:
        """Return the cross-entropy alone, without dropout."""
        plain = copy.copy(self)
        plain._z_loss, plain._label_smoothing = 0.0, 0.0
        return plain.loss_fn(params, batch, None)

    def _compute_metrics(
        self, logits: Array, batch: Batch, loss: Array, z_loss: Array
    ) -> MetricsMap:
        found = super()._compute_metrics(logits, batch, loss, z_loss)
        nats = losses.token_nats(logits, batch["decoder_target_tokens"])
        counted = batch["decoder_loss_weights"]
        return metrics_of_mean(found) | {
            "nats_per_token": Average.from_model_output(nats, counted),
            "bits_per_token": BitsPerToken.from_model_output(nats, counted),
        }

    def score_batch(self, params: Params, batch: Batch, return_intermediates: bool = False) -> Any:
        """Return log-likelihoods float32 [B] of the targets of the latents that count."""
        return super().score_batch(params, self.at_latents(batch), return_intermediates)


class PerceiverARModel(SequenceModel):
    """Cross-entropy of the tokens that follow the last N of each row.

    A batch has int32 `decoder_input_tokens` and `decoder_target_tokens` [B, T], the targets one
    further; optionally `decoder_positions` [B, T] or [B, T, C], `decoder_loss_weights` [B, T] and
    `decoder_latent_counts` [B]; see `PerceiverARFeatureConverter`. The normalisation of the loss is
    the mean over target tokens of the batch; `loss_normalizing_factor=None` is the sum, as in the
    reference.

    Args:
      module: the network.
      vocabulary: of the tokens, or None; it ends predictions (`eos_id`, by default 1).
      optimizer_def, decode_fn, label_smoothing, z_loss, loss_normalizing_factor: see
        `t5x.models.base.BaseTransformerModel`.
      schedule: of latents when predicting, see `blocks.LatentSchedule`.
      positions: of inputs when predicting, [T, C]; by default counted from 1.

    Raises:
      ValueError: the vocabulary is larger than the network's.
    """

    def __init__(
        self,
        module: PerceiverAR,
        vocabulary: Any,
        optimizer_def: Any,
        decode_fn: DecodeFn = decoding.temperature_sample,
        label_smoothing: float = 0.0,
        z_loss: float = 1e-4,
        loss_normalizing_factor: losses.LossNormalizingFactor = "NUM_REAL_TARGET_TOKENS",
        schedule: LatentSchedule | None = None,
        positions: Sequence[Sequence[int]] | None = None,
    ):
        size = getattr(vocabulary, "vocab_size", 0)
        if size > module.config.num_classes:
            raise ValueError(
                f"the vocabulary has {size} ids, but the network num_classes="
                f"{module.config.num_classes}: make it as large"
            )
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
        self.num_latents = module.config.z_index_dim
        self._schedule = schedule
        self._positions = None if positions is None else tuple(map(tuple, positions))

    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return initial `params` and their axes; of the shapes only the number of rows matters."""
        del input_types
        cfg = self.module.config
        # As many rows as a batch has, which the devices can share.
        rows = input_shapes["decoder_input_tokens"][0]
        tokens = jnp.ones((rows, cfg.z_index_dim), jnp.int32)
        coordinates = 1 if cfg.rotary else len(cfg.input_idx_size)
        positions = jnp.ones((rows, cfg.z_index_dim, coordinates), jnp.int32)
        return unfreeze(self.module.init({"params": rng}, tokens, positions))

    # ---------------------------------------------------------------------------------- loss

    def _compute_logits(
        self, params: Params, batch: Batch, dropout_rng: Array | None = None, mutable: Any = False
    ) -> Any:
        return self.module.apply(
            {"params": params},
            batch["decoder_input_tokens"],
            batch.get("decoder_positions"),
            num_latents=self.num_latents,
            latent_counts=batch.get("decoder_latent_counts"),
            enable_dropout=dropout_rng is not None,
            rngs=dropout_rngs(dropout_rng),
            mutable=mutable,
        )

    def at_latents(self, batch: Batch) -> dict[str, Array]:
        """Return the batch with targets and weights of the latents, and `latent_steps` [B, N].

        A target counts if it is not padding, its latent has a position, and its weight in the batch
        is not 0.
        """
        if "latent_steps" in batch:
            return dict(batch)
        steps = masks.latent_steps(
            masks.lengths_of(batch["decoder_input_tokens"]),
            self.num_latents or self.module.config.z_index_dim,
            batch.get("decoder_latent_counts"),
        )
        at = jnp.maximum(steps, 0)
        targets = jnp.take_along_axis(batch["decoder_target_tokens"], at, axis=1)
        weights = ((steps >= 0) & (targets > 0)).astype(jnp.float32)
        if "decoder_loss_weights" in batch:
            weights *= jnp.take_along_axis(batch["decoder_loss_weights"], at, axis=1)
        return {
            **batch,
            "decoder_target_tokens": targets,
            "decoder_loss_weights": weights,
            "latent_steps": steps,
        }

    def train_step_flops(self, params: Params, batch: Batch) -> float:
        """Return the FLOPs of a step, by `perceiver_ar.flops`."""
        rows, length = batch["decoder_input_tokens"].shape
        return train_step_flops(params, self.module.config, rows, length)

    # ---------------------------------------------------------------------------- prediction

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
        """Continue prompts, which may be of unequal lengths.

        Args:
          params: of the network.
          batch: `decoder_input_tokens` int [B, T], of which the first `decoder_prompt_lengths`
            int [B] are the prompts. Prompt and continuation together have at most T + 1 tokens.
          rng: random key of sampling; not together with `decoder_params["decode_rng"]`.
          return_all_decodes: all K decodes rather than the best.
          num_decodes: K.
          decoder_params: further arguments of the decoding function, such as `temperature`.

        Returns:
          (continuations without their prompts, int32 [B, T], or [B, K, T] in ascending order of
          score, {"scores": float32 [B] or [B, K]}).

        Raises:
          ValueError: the batch has no prompt lengths, or there are two random keys.
        """
        if "decoder_prompt_lengths" not in batch:
            raise ValueError(
                "prediction needs prompts: the batch has no decoder_prompt_lengths; use a task "
                "with the feature 'prompt_lengths', such as copy_32_predict"
            )
        tokens = batch["decoder_input_tokens"]
        # A row that only fills up the batch gets a prompt as well, since none may be empty.
        lengths = jnp.maximum(batch["decoder_prompt_lengths"], 1)
        prompts = jnp.where(jnp.arange(tokens.shape[1]) < lengths[:, None], tokens, 0)
        prompts = prompts.at[:, 0].set(jnp.maximum(prompts[:, 0], 1))
        options = self._decoding_options(rng, num_decodes, decoder_params)
        cfg = self.module.config
        sampler = Sampler(
            cfg,
            tokens.shape[1],
            self._schedule or LatentSchedule(cfg.z_index_dim),
            positions=self._positions,
        )
        decodes, scores = sample(
            sampler,
            params,
            prompts,
            never=[i for i in NEVER_SAMPLED if i != options["eos_id"]],
            decode_fn=self._decode_fn,
            **options,
        )
        continued = remove_prefix(decodes, lengths)[..., : tokens.shape[1]]
        return all_or_best(continued, scores, return_all_decodes)
