"""Continuous diffusion for categorical data as the trainer sees it.

Letters in shapes: B batch, L length, d width of embeddings, V vocabulary.
"""

import copy
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax.core import unfreeze
from flax.linen.partitioning import AxisMetadata
from jax import Array, lax
from jax.sharding import PartitionSpec

from cdcd import warping
from cdcd.config import NoiseRange
from cdcd.denoising import Conditioning, Denoising, Params, conditioning_of, embed
from cdcd.flops import train_step_flops
from cdcd.likelihood import variational_bound
from cdcd.masks import MaskMixture
from cdcd.network import Denoiser
from cdcd.sampler import Rows, SamplerOptions, sample
from cdcd.warping import Warping, noise_to_time, time_to_noise
from musax.diffusion import low_discrepancy_uniform
from t5x.data.converters import LMFeatureConverter
from t5x.losses import mean_where, token_nats
from t5x.metrics import Average, MetricsMap
from t5x.models.base import BaseModel, Batch
from t5x.models.metrics import compute_base_metrics, metrics_of_mean

Mutables = Mapping[str, Any] | None


def valid_positions(batch: Batch) -> Array:
    """Return bool [B, L], True where targets are not padding."""
    tokens = batch["decoder_target_tokens"]
    return (tokens > 0) & (batch.get("decoder_loss_weights", jnp.ones_like(tokens)) > 0)


def evaluation_rng(batch: Batch) -> Array:
    """Return a random key that depends on the tokens of the batch only."""
    tokens = batch["decoder_target_tokens"]
    place = jnp.arange(1, tokens.size + 1, dtype=jnp.uint32).reshape(tokens.shape)
    return jax.random.fold_in(jax.random.key(0), jnp.sum(tokens.astype(jnp.uint32) * place))


def metrics_of_tokens(
    logits: Array, targets: Array, counted: Array, loss: Array, **more: Any
) -> MetricsMap:
    """Return the metrics that all models of this package report, over the counted tokens."""
    found = compute_base_metrics(logits, targets, counted.astype(jnp.float32), loss)
    return metrics_of_mean(found) | more


def rows_of(batch: Batch) -> Rows:
    """Return the targets, given where `decoder_causal_attention` [B, L] is 1; by default none."""
    tokens = batch["decoder_target_tokens"]
    given = batch.get("decoder_causal_attention", jnp.zeros_like(tokens)) > 0
    return Rows(tokens, ~given)


class WholeBatch:
    """Mixin: a loss that is a mean over a whole batch, with microbatches too."""

    _rows: int | None = None

    def normalize_globally(self, batch: Batch) -> tuple[Self, Batch]:
        """Return a model that knows the size of the whole batch, and the batch.

        See `t5x.models.base.BaseTransformerModel.normalize_globally`.
        """
        model = copy.copy(self)
        model._rows = batch["decoder_target_tokens"].shape[0]
        return model, batch

    def share(self, batch: Batch) -> float:
        """Return the rows of the batch as a share of the whole batch."""
        rows = batch["decoder_target_tokens"].shape[0]
        return rows / (self._rows or rows)


class Draw(NamedTuple):
    """Random draws of a step.

    Attributes:
      t: float32 [B], noise levels.
      noisy: bool [B, L], positions to predict.
      conditioned: bool [B], rows whose given tokens are visible.
      noise: float32 [B, L, d].
      dropout: random key.
    """

    t: Array
    noisy: Array
    conditioned: Array
    noise: Array
    dropout: Array


class CDCDModel(WholeBatch, BaseModel):
    """Cross-entropy of noisy tokens, at noise levels drawn by a warped time.

    A batch has int32 `decoder_target_tokens` [B, L], 0 is padding. The cross-entropy averaged here
    is not a likelihood; for those see `cdcd.likelihood`.

    Args:
      module: the network.
      vocabulary: of the tokens, or None.
      optimizer_def: see `cdcd.optimizers`.
      noise: standard deviations of the noise.
      warping: of time.
      masks: which positions are given.
      drop_conditioning: probability that the given tokens of a row are hidden, for classifier-free
        guidance (section 4.3; Ho & Salimans 2022).
      self_conditioning: every other row of a batch sees a first estimate (section 4.1; Chen et al.
        2022, "Analog bits").
      predict_padding: padding is a token like others, so that lengths are predicted too.

    Raises:
      ValueError: the vocabulary is larger than the network's, or a probability is out of range.
    """

    FEATURE_CONVERTER_CLS = functools.partial(LMFeatureConverter, pack=False)

    def __init__(
        self,
        module: Denoiser,
        vocabulary: Any,
        optimizer_def: Any,
        noise: NoiseRange | None = None,
        warping: Warping | None = None,
        masks: MaskMixture | None = None,
        drop_conditioning: float = 0.1,
        self_conditioning: bool = True,
        predict_padding: bool = False,
    ):
        super().__init__(optimizer_def)
        check_vocabulary(vocabulary, module.config.vocab_size)
        if not 0.0 <= drop_conditioning <= 1.0:
            raise ValueError(f"drop_conditioning={drop_conditioning}: expected 0 to 1")
        self.module, self.vocabulary = module, vocabulary
        self.input_vocabulary = self.output_vocabulary = vocabulary
        self.denoising = Denoising(module, noise or NoiseRange())
        self.warping = warping or Warping()
        self.masks = masks or MaskMixture()
        self.drop_conditioning = drop_conditioning
        self.self_conditioning = self_conditioning
        self.predict_padding = predict_padding

    @property
    def noise(self) -> NoiseRange:
        """Standard deviations of the noise."""
        return self.denoising.noise

    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return initial parameters, with the curves of the time warp, and the curves' average."""
        del input_types
        rows, length = input_shapes["decoder_target_tokens"]
        x = jnp.zeros((rows, length, self.module.config.embed_dim))
        noisy = jnp.ones((rows, length), bool)
        variables = unfreeze(self.module.init(rng, x, x, x, noisy, jnp.ones((rows,))))
        curves = warping.initial_params(self.warping.num_bins)
        axes = {f"{k}_axes": AxisMetadata(PartitionSpec(None)) for k in curves}  # type: ignore
        variables["params"][warping.PARAMS] = curves
        variables["params_axes"][warping.PARAMS] = axes
        variables[warping.AVERAGE] = jax.tree.map(jnp.copy, curves)
        return variables

    def source(self, params: Params, batch: Batch, dropout_rng: Array | None = None) -> Any:
        """Return further inputs of the network for a batch, see `denoising.Conditioning`."""
        del params, batch, dropout_rng
        return None

    # ---------------------------------------------------------------------------------- loss

    def distribution(self, params: Params, mutables: Mutables = None) -> warping.Curve:
        """Return the distribution of times: by the average of the curves, if there is one."""
        curves = (mutables or {}).get(warping.AVERAGE, params[warping.PARAMS])
        return self.warping.distribution(curves)

    def draw(self, rng: Array, shape: tuple[int, ...], distribution: warping.Curve) -> Draw:
        """Return everything random of a step, for tokens of a shape [B, L]."""
        keys = jax.random.split(rng, 5)
        u = low_discrepancy_uniform(keys[0], shape[0])
        return Draw(
            time_to_noise(distribution.inverse(u), self.noise),
            self.masks.sample(keys[1], shape),
            jax.random.bernoulli(keys[2], 1.0 - self.drop_conditioning, shape[:1]),
            jax.random.normal(keys[3], (*shape, self.module.config.embed_dim)),
            keys[4],
        )

    def loss_fn(
        self,
        params: Params,
        batch: Batch,
        dropout_rng: Array | None,
        mutables: Mutables = None,
    ) -> Any:
        """Return (loss, metrics), or (loss, (metrics, mutables)) if there are mutables.

        The loss is the mean cross-entropy of noisy tokens plus the fit error of the curves, which
        has parameters of its own.
        """
        rng = evaluation_rng(batch) if dropout_rng is None else dropout_rng
        tokens = batch["decoder_target_tokens"]
        valid = jnp.ones(tokens.shape, bool) if self.predict_padding else valid_positions(batch)
        distribution = self.distribution(params, mutables)
        draw = self.draw(rng, tokens.shape, distribution)
        counted = draw.noisy & valid
        logits = self._logits(params, batch, draw, valid, training=dropout_rng is not None)
        nats = token_nats(logits, tokens)
        cross_entropy = mean_where(nats, counted)
        fit = self.warping.fit_loss(
            params[warping.PARAMS],
            noise_to_time(draw.t, self.noise),
            mean_where(nats, counted, axis=1),
            distribution,
            jnp.any(counted, axis=1),
        )
        share = self.share(batch)
        loss = (cross_entropy + fit) * share
        curve = self.warping.loss_curve(params[warping.PARAMS])
        metrics = metrics_of_tokens(
            logits,
            tokens,
            counted,
            cross_entropy * share,
            noisy_nats_per_token=Average.from_model_output(nats, counted),
            warp_fit_error=Average.from_model_output(fit),
            warp_entropy=Average.from_model_output(curve.y[-1]),
        )
        if not mutables:
            return loss, metrics
        average = self.warping.average(mutables[warping.AVERAGE], params[warping.PARAMS])
        return loss, (metrics, {**mutables, warping.AVERAGE: average})

    def _logits(
        self, params: Params, batch: Batch, draw: Draw, valid: Array, training: bool
    ) -> Array:
        tokens, table = batch["decoder_target_tokens"], self.denoising.table(params)
        dropping = training and self.module.config.dropout_rate > 0
        rng = draw.dropout if dropping else None
        source = self.source(params, batch, rng)
        x = embed(table, tokens) + draw.t[:, None, None] * draw.noise
        conditioning = conditioning_of(
            table, tokens, draw.noisy & valid, valid, draw.conditioned, source
        )
        previous = self._previous(params, table, x, conditioning, draw.t)
        return self.denoising.logits(params, x, conditioning, previous, draw.t, rng)

    def _previous(
        self, params: Params, table: Array, x: Array, conditioning: Conditioning, t: Array
    ) -> Array:
        """Return a first estimate in rows 0, 2, 4, ..., and zeros in the others."""
        if not self.self_conditioning:
            return jnp.zeros_like(x)
        half = jax.tree.map(_every_other, (x, conditioning, t))
        x_half, conditioning_half, t_half = half
        logits = self.denoising.logits(
            params, x_half, conditioning_half, jnp.zeros_like(x_half), t_half
        )
        estimate = lax.stop_gradient(self.denoising.interpolate(logits, table))
        return jnp.stack([estimate, jnp.zeros_like(estimate)], axis=1).reshape(x.shape)

    def eval_fn(self, params: Params, batch: Batch, mutables: Mutables = None) -> Any:
        """Return `loss_fn` without dropout, with the same noise in every evaluation."""
        loss, metrics = self.loss_fn(params, batch, None, mutables)
        return loss, metrics[0] if mutables else metrics

    # ---------------------------------------------------------------------------- prediction

    def predict_batch_with_aux(
        self,
        params: Params,
        batch: Batch,
        rng: Array | None = None,
        mutables: Mutables = None,
        *,
        decoder_params: Mapping[str, Any] | None = None,
    ) -> tuple[Array, Mapping[str, Array]]:
        """Fill in rows.

        Args:
          params: of the network.
          batch: `decoder_target_tokens` int [B, L], given where `decoder_causal_attention` [B, L]
            is 1; without it, none are given.
          rng: random key; by default one of the batch's own.
          mutables: with the average of the curves of the time warp.
          decoder_params: fields of `cdcd.sampler.SamplerOptions`.

        Returns:
          (int32 [B, L], {}).
        """
        rng = evaluation_rng(batch) if rng is None else rng
        distribution = self.distribution(params, mutables)
        rows = self.make(params, rows_of(batch), rng, distribution, **(decoder_params or {}))
        return rows, {}

    def make(
        self,
        params: Params,
        rows: Rows,
        rng: Array,
        distribution: warping.Curve | None = None,
        **options: Any,
    ) -> Array:
        """Fill in rows, int32 [B, L], see `cdcd.sampler.sample`.

        Args:
          params: of the network.
          rows: the given tokens.
          rng: random key.
          distribution: of noise levels; None for that of the parameters.
          options: see `sampler_options`.
        """
        if distribution is None:
            distribution = self.distribution(params)
        chosen = self.sampler_options(**options)
        return sample(self.denoising, params, rows, rng, chosen, distribution)

    def sampler_options(self, **options: Any) -> SamplerOptions:
        """Return options of the sampler; self-conditioning by default as in training."""
        return SamplerOptions(**{"self_conditioning": self.self_conditioning, **options})

    def score_batch(
        self,
        params: Params,
        batch: Batch,
        return_intermediates: bool = False,
        mutables: Mutables = None,
    ) -> Array:
        """Return a lower bound of log p of rows, float32 [B]; see `variational_bound`."""
        if return_intermediates:
            raise ValueError("a bound has no intermediates: leave return_intermediates off")
        return -variational_bound(
            self.denoising,
            params,
            batch["decoder_target_tokens"],
            evaluation_rng(batch),
            distribution=self.distribution(params, mutables),
            source=self.source(params, batch),
        )

    def train_step_flops(self, params: Params, batch: Batch) -> float:
        """Return the FLOPs of a step, first estimate included; see `BaseModel.train_step_flops`."""
        shape = batch["decoder_target_tokens"].shape
        return train_step_flops(params, self.module.config, shape, 0.5 * self.self_conditioning)


def _every_other(x: Array) -> Array:
    """Return rows 0, 2, 4, ... of [B, ...]; unlike the first half, they lie on all devices."""
    rows = x.shape[0]
    if rows % 2:
        raise ValueError(
            f"self-conditioning takes half of a batch, and this one has {rows} rows: expected an "
            "even batch_size"
        )
    return x.reshape(rows // 2, 2, *x.shape[1:])[:, 0]


def check_vocabulary(vocabulary: Any, vocab_size: int) -> None:
    """Raise ValueError if a vocabulary (or None) has more ids than a network."""
    size = getattr(vocabulary, "vocab_size", 0)
    if size > vocab_size:
        raise ValueError(
            f"the vocabulary has {size} ids, but the network vocab_size={vocab_size}: make it as "
            "large"
        )
