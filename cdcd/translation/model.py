"""Translation by continuous diffusion: whole targets from noise, given inputs.

Letters in shapes: B inputs, K samples of each, L target length, T input length.

Dieleman et al. 2022 (arXiv 2211.15089), section 4.4. `cdcd.translation.mbr` chooses the best of
several samples.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cdcd import warping
from cdcd.config import NoiseRange
from cdcd.denoising import Conditioning, Denoising, Params
from cdcd.flops import train_step_flops
from cdcd.masks import MaskMixture
from cdcd.models import CDCDModel, Mutables, check_vocabulary, evaluation_rng
from cdcd.sampler import rows_from_nothing
from cdcd.translation.network import Source, Translator
from cdcd.warping import Warping
from t5x.data.converters import EncDecFeatureConverter
from t5x.data.vocabularies import EOS_ID, PAD_ID, UNK_ID
from t5x.layers.dropout import dropout_rngs
from t5x.models.base import Batch


class TranslationDenoising(Denoising):
    """`Denoising` by a `Translator`, whose inputs are `Conditioning.source`."""

    module: Translator

    def encode(self, params: Params, inputs: Array, dropout_rng: Array | None = None) -> Source:
        """Return the encodings of tokens int [B, T]; no dropout without a random key."""
        return self.module.apply(  # type: ignore[return-value]
            {"params": params},
            inputs,
            dropout_rng is None,
            rngs=dropout_rngs(dropout_rng),
            method="encode",
        )

    def prepare(self, params: Params, conditioning: Conditioning) -> Conditioning:
        """Project the encodings to keys and values."""
        if conditioning.source is None:
            return conditioning
        _, projected = self.module.apply(
            {"params": params}, conditioning.source.encoded, method="project", mutable=["cache"]
        )
        return conditioning._replace(
            source=Source(None, conditioning.source.valid, projected["cache"])
        )

    def variables(self, params: Params, conditioning: Conditioning) -> dict[str, Any]:
        """Return the collections that the network reads."""
        cache = getattr(conditioning.source, "cache", None)
        return {"params": params} | ({} if cache is None else {"cache": cache})


class TranslationModel(CDCDModel):
    """Cross-entropy of all target tokens, padding too, so that lengths are predicted as well.

    A batch has int32 `encoder_input_tokens` [B, T] and `decoder_target_tokens` [B, L], which end in
    EOS (1) and are padded with 0 to the length of the network.

    Args:
      module: the network.
      input_vocabulary, output_vocabulary: of inputs and targets, or None.
      optimizer_def, noise, warping, self_conditioning: see `cdcd.models.CDCDModel`.
      drop_conditioning: probability that inputs are hidden, for classifier-free guidance.

    Raises:
      ValueError: a vocabulary is larger than the network's, or no probability.
    """

    FEATURE_CONVERTER_CLS = functools.partial(EncDecFeatureConverter, pack=False)
    module: Translator
    denoising: TranslationDenoising

    def __init__(
        self,
        module: Translator,
        input_vocabulary: Any,
        output_vocabulary: Any,
        optimizer_def: Any,
        noise: NoiseRange | None = None,
        warping: Warping | None = None,
        drop_conditioning: float = 0.1,
        self_conditioning: bool = True,
    ):
        super().__init__(
            module,
            output_vocabulary,
            optimizer_def,
            noise,
            warping,
            MaskMixture(conditioned=0.0),
            drop_conditioning,
            self_conditioning,
            predict_padding=True,
        )
        check_vocabulary(input_vocabulary, module.config.input_vocab_size)
        self.input_vocabulary = input_vocabulary
        self.denoising = TranslationDenoising(module, self.noise)

    def source(self, params: Params, batch: Batch, dropout_rng: Array | None = None) -> Source:
        """Return the encoded inputs of a batch."""
        return self.denoising.encode(params, batch["encoder_input_tokens"], dropout_rng)

    def translate(
        self,
        params: Params,
        inputs: Array,
        rng: Array,
        distribution: warping.Curve | None = None,
        *,
        num_decodes: int = 1,
        **options: Any,
    ) -> Array:
        """Sample targets, int32 [B, K, L], each up to its first EOS and then padded.

        Inputs are encoded, and their keys and values projected, once.

        Args:
          params: of the network.
          inputs: int [B, T].
          rng: random key.
          distribution: of noise levels; None for that of the parameters.
          num_decodes: K.
          options: fields of `cdcd.sampler.SamplerOptions`, of which `never` is only the unknown
            token unless it is given.

        Raises:
          ValueError: an option is out of range.
          NotFiniteError: the network returned NaN.
        """
        if num_decodes < 1:
            raise ValueError(f"num_decodes={num_decodes}: expected 1 or more")
        count, length = inputs.shape[0], self.module.config.target_length
        rows = rows_from_nothing(count * num_decodes, length)
        rows = rows._replace(source=_encode(self.denoising, params, inputs))
        options = {"never": (UNK_ID,)} | options
        rows = self.make(params, rows, rng, distribution, **options)
        return cut_at_eos(rows).reshape(count, num_decodes, length)

    def predict_batch_with_aux(
        self,
        params: Params,
        batch: Batch,
        rng: Array | None = None,
        mutables: Mutables = None,
        *,
        decoder_params: Mapping[str, Any] | None = None,
        num_decodes: int | None = None,
    ) -> tuple[Array, Mapping[str, Array]]:
        """Sample targets of `encoder_input_tokens` int [B, T].

        Args:
          params: of the network.
          batch: see the class.
          rng: random key; by default one of the batch's own.
          mutables: with the average of the curves of the time warp.
          decoder_params: fields of `cdcd.sampler.SamplerOptions`.
          num_decodes: K.

        Returns:
          (int32 [B, L], or [B, K, L] if K is given, {}).
        """
        inputs = batch["encoder_input_tokens"]
        targets = self.translate(
            params,
            inputs,
            evaluation_rng({"decoder_target_tokens": inputs}) if rng is None else rng,
            self.distribution(params, mutables),
            num_decodes=num_decodes or 1,
            **(decoder_params or {}),
        )
        return targets[:, 0] if num_decodes is None else targets, {}

    def train_step_flops(self, params: Params, batch: Batch) -> float:
        """Return the FLOPs of a step, first estimate included; see `BaseModel.train_step_flops`."""
        return train_step_flops(
            params,
            self.module.config,
            batch["decoder_target_tokens"].shape,
            0.5 * self.self_conditioning,
            batch["encoder_input_tokens"].shape[1],
        )


@functools.partial(jax.jit, static_argnums=0)
def _encode(denoising: TranslationDenoising, params: Params, inputs: Array) -> Source:
    return denoising.encode(params, inputs)


def cut_at_eos(tokens: Array) -> Array:
    """Return tokens int [..., L] with padding after the first EOS."""
    ends = tokens == EOS_ID
    behind = jnp.cumsum(ends, axis=-1) - ends > 0
    return jnp.where(behind, PAD_ID, tokens)
