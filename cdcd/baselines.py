"""Baselines for continuous diffusion on the same trunk: the autoregressive model and
masked diffusion.

Letters in shapes: B batch, L length, V vocabulary.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import unfreeze
from jax import Array

from cdcd.denoising import Params
from cdcd.flops import train_step_flops
from cdcd.masked_sampler import sample_masked
from cdcd.models import (
    WholeBatch,
    check_vocabulary,
    evaluation_rng,
    metrics_of_tokens,
    rows_of,
    valid_positions,
)
from cdcd.network import TokenNetwork
from cdcd.sampler import SPECIAL_IDS, Rows, check_finite, check_rows
from musax.diffusion import low_discrepancy_uniform
from t5x import decoding
from t5x.data.converters import LMFeatureConverter
from t5x.layers.dropout import dropout_rngs
from t5x.losses import mean_where, token_nats
from t5x.metrics import Average, MetricsMap
from t5x.models.base import BaseModel, Batch, DecodeFn
from t5x.models.decoder_only import DecoderOnlyModel

_CONVERTER = functools.partial(LMFeatureConverter, pack=False)


class AutoregressiveModel(WholeBatch, DecoderOnlyModel):
    """Cross-entropy of each token after those before it, which is the exact likelihood.

    Args:
      module: a causal `TokenNetwork`.
      vocabulary: of the tokens, or None.
      optimizer_def, decode_fn: see `t5x.models.decoder_only.DecoderOnlyModel`.

    Raises:
      ValueError: the network is not causal, or the vocabulary larger than its own.
    """

    FEATURE_CONVERTER_CLS = _CONVERTER

    def __init__(
        self,
        module: TokenNetwork,
        vocabulary: Any,
        optimizer_def: Any,
        decode_fn: DecodeFn = decoding.temperature_sample,
    ):
        if not module.causal:
            raise ValueError("an autoregressive model needs TokenNetwork.causal=True")
        check_vocabulary(vocabulary, module.config.vocab_size)
        super().__init__(module, vocabulary, optimizer_def, decode_fn)

    def target_nats(self, params: Params, batch: Batch) -> tuple[Array, Array]:
        """Return (-log p of each target float32 [B, L], bool [B, L], False for padding)."""
        logits = self._compute_logits(params, batch)
        return token_nats(logits, batch["decoder_target_tokens"]), valid_positions(batch)

    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: Array | None
    ) -> tuple[Array, MetricsMap]:
        """Return the mean cross-entropy."""
        logits = self._compute_logits(params, batch, dropout_rng)
        tokens, counted = batch["decoder_target_tokens"], valid_positions(batch)
        nats = token_nats(logits, tokens)
        loss = mean_where(nats, counted) * self.share(batch)
        return loss, metrics_of_tokens(
            logits,
            tokens,
            counted,
            loss,
            nats_per_token=Average.from_model_output(nats, counted),
        )

    def make(
        self,
        params: Params,
        rows: Rows,
        rng: Array,
        *,
        temperature: float = 1.0,
        topp: float = 1.0,
        never: Sequence[int] = SPECIAL_IDS,
    ) -> Array:
        """Fill in rows, int32 [B, L], from left to right; later given tokens are not seen.

        Args:
          params: of the network.
          rows: the given tokens.
          rng: random key.
          temperature, topp: see `t5x.decoding.sampling.SamplingOptions`; a topp of 1 is all.
          never: ids that are never sampled.

        Raises:
          ValueError: rows that do not fit, a given 0, or an option out of range.
          NotFiniteError: the network returned NaN.
        """
        check_rows(rows, self.module.config.vocab_size)
        if temperature < 0 or not 0 < topp <= 1:
            raise ValueError(f"temperature={temperature}, topp={topp}: expected 0 or more, 0 to 1")
        if bool(jnp.any((rows.tokens == 0) & ~rows.noisy)):
            raise ValueError("given token 0 is padding, expected ids of the vocabulary above 0")
        numbers = (jnp.float32(temperature), jnp.float32(0.0 if topp == 1 else topp))
        tokens, scores = _decode(self, tuple(never), params, rows, rng, *numbers)
        check_finite(jnp.isfinite(scores))
        return tokens

    def train_step_flops(self, params: Params, batch: Batch) -> float:
        """Return the FLOPs of a step, see `BaseModel.train_step_flops`."""
        return train_step_flops(params, self.module.config, batch["decoder_target_tokens"].shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _decode(
    model: AutoregressiveModel,
    never: tuple[int, ...],
    params: Params,
    rows: Rows,
    rng: Array,
    temperature: Array,
    topp: Array,
) -> tuple[Array, Array]:
    """Return (tokens int32 [B, L], log-probabilities [B])."""
    forced = jnp.where(rows.noisy, 0, rows.tokens)
    inputs = jnp.pad(forced[:, :-1], ((0, 0), (1, 0)))
    start = jnp.zeros_like(inputs).at[:, 0].set(1)
    batch = {"decoder_input_tokens": inputs, "decoder_causal_attention": start}

    def forbid(logits: Array, _: Any) -> Array:
        return logits.at[:, jnp.asarray(never, jnp.int32)].set(decoding.NEG_INF)

    options = {
        "decode_rng": rng,
        "temperature": temperature,
        "topp": topp,
        "logit_callback_fn": forbid,
        "eos_id": -1,
        "rescale_log_probs": False,  # A nucleus hides logits that are not finite.
    }
    decoded, scores = model._decode(params, inputs, batch, options)
    return jnp.where(rows.noisy, decoded[:, 0], rows.tokens).astype(jnp.int32), scores


class MaskedDiffusionModel(WholeBatch, BaseModel):
    """Masked diffusion: tokens behind masks, weighted so that the loss bounds the likelihood.

    Sahoo et al. 2024 (arXiv 2406.07524): a token is masked with probability t, times are spread
    evenly, and the cross-entropy of masked tokens is weighted by 1 / t (the log-linear schedule).
    Unmasked tokens never change and the mask is never predicted (their parameterisation SUBS): the
    network has no logit for the mask, and only masked positions enter the loss.

    Args:
      module: a `TokenNetwork` that is not causal, with one `extra_inputs`, the mask.
      vocabulary: of the tokens, or None.
      optimizer_def: see `cdcd.optimizers`.
      lowest_time: t is from here to 1.

    Raises:
      ValueError: the network or the time does not fit, or the vocabulary is larger.
    """

    FEATURE_CONVERTER_CLS = _CONVERTER

    def __init__(
        self,
        module: TokenNetwork,
        vocabulary: Any,
        optimizer_def: Any,
        lowest_time: float = 1e-3,
    ):
        super().__init__(optimizer_def)
        check_vocabulary(vocabulary, module.config.vocab_size)
        if module.causal or module.extra_inputs != 1:
            raise ValueError(
                "masked diffusion needs TokenNetwork.causal=False and extra_inputs=1, the mask"
            )
        if not 0.0 < lowest_time < 1.0:
            raise ValueError(f"lowest_time={lowest_time}: expected a number between 0 and 1")
        self.module, self.vocabulary = module, vocabulary
        self.input_vocabulary = self.output_vocabulary = vocabulary
        self.lowest_time = lowest_time

    @property
    def mask_id(self) -> int:
        """Id that stands for a masked token in the network's inputs."""
        return self.module.config.vocab_size

    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return initial parameters and their axes."""
        del input_types
        tokens = jnp.ones(input_shapes["decoder_target_tokens"], jnp.int32)
        return unfreeze(self.module.init(rng, tokens, tokens))

    def logits(
        self,
        params: Params,
        tokens: Array,
        masked: Array,
        valid: Array | None = None,
        dropout_rng: Array | None = None,
    ) -> Array:
        """Return logits of all tokens, those `masked` bool [B, L] hidden, float32 [B, L, V]."""
        seen = jnp.ones(tokens.shape, bool) if valid is None else valid
        return self.module.apply(  # type: ignore[return-value]
            {"params": params},
            jnp.where(masked, self.mask_id, tokens),
            seen.astype(jnp.int32),
            enable_dropout=dropout_rng is not None,
            rngs=dropout_rngs(dropout_rng),
        )

    def bound(
        self, params: Params, batch: Batch, rng: Array, training: bool = False
    ) -> tuple[Array, Array, Array]:
        """Draw the bound of -log p once, spread over masked tokens.

        Returns:
          (nats float32 [B, L]: their sum over a row is, on average, at least -log p of it;
          logits [B, L, V]; bool [B, L], True where masked).
        """
        tokens, valid = batch["decoder_target_tokens"], valid_positions(batch)
        time_rng, mask_rng, dropout_rng = jax.random.split(rng, 3)
        u = low_discrepancy_uniform(time_rng, tokens.shape[0])
        t = (self.lowest_time + (1.0 - self.lowest_time) * u)[:, None]
        masked = (jax.random.uniform(mask_rng, tokens.shape) < t) & valid
        dropping = training and self.module.config.dropout_rate > 0
        logits = self.logits(params, tokens, masked, valid, dropout_rng if dropping else None)
        return jnp.where(masked, token_nats(logits, tokens) / t, 0.0), logits, masked

    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: Array | None
    ) -> tuple[Array, MetricsMap]:
        """Return the bound per token."""
        rng = evaluation_rng(batch) if dropout_rng is None else dropout_rng
        tokens, valid = batch["decoder_target_tokens"], valid_positions(batch)
        nats, logits, masked = self.bound(params, batch, rng, dropout_rng is not None)
        loss = mean_where(nats, valid) * self.share(batch)
        return loss, metrics_of_tokens(
            logits,
            tokens,
            masked,
            loss,
            nats_per_token_bound=Average.from_model_output(nats, valid),
        )

    def predict_batch_with_aux(
        self,
        params: Params,
        batch: Batch,
        rng: Array | None = None,
        *,
        decoder_params: Mapping[str, Any] | None = None,
    ) -> tuple[Array, Mapping[str, Array]]:
        """Fill in rows.

        Args:
          params: of the network.
          batch: see `cdcd.models.CDCDModel.predict_batch_with_aux`.
          rng: random key; by default one of the batch's own.
          decoder_params: further arguments of `cdcd.masked_sampler.sample_masked`.

        Returns:
          (int32 [B, L], {}).
        """
        rng = evaluation_rng(batch) if rng is None else rng
        return self.make(params, rows_of(batch), rng, **(decoder_params or {})), {}

    def make(self, params: Params, rows: Rows, rng: Array, **options: Any) -> Array:
        """Fill in rows, int32 [B, L]; the options are those of `sample_masked`."""
        return sample_masked(self, params, rows, rng, **options)

    def score_batch(
        self, params: Params, batch: Batch, return_intermediates: bool = False
    ) -> Array:
        """Return a lower bound of log p of rows, float32 [B], on average over times and masks."""
        if return_intermediates:
            raise ValueError("a bound has no intermediates: leave return_intermediates off")
        return -self.variational_bound(params, batch, evaluation_rng(batch))

    def variational_bound(
        self, params: Params, batch: Batch, rng: Array, *, levels: int = 32
    ) -> Array:
        """Return an upper bound of -log p of rows, float32 [B], on average over times and masks."""
        keys = jax.random.split(rng, levels)

        def step(total: Array, key: Array) -> tuple[Array, None]:
            return total + jnp.sum(self.bound(params, batch, key)[0], axis=-1), None

        rows = batch["decoder_target_tokens"].shape[0]
        return jax.lax.scan(step, jnp.zeros(rows), keys)[0] / levels

    def train_step_flops(self, params: Params, batch: Batch) -> float:
        """Return the FLOPs of a step, see `BaseModel.train_step_flops`."""
        return train_step_flops(params, self.module.config, batch["decoder_target_tokens"].shape)
