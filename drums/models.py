"""The drum models that `t5x.train` trains.

Letters in shapes: B batch, S chunks of an example, N samples, T frames, K classes.
"""

import abc
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import unfreeze
from jax import Array
from jax.typing import ArrayLike

from drums.features import DrumFeatures, log_mel
from drums.network import probabilities
from drums.vocabularies import FULL, get_level
from t5x.data.converters import PassThroughFeatureConverter
from t5x.layers.dropout import dropout_rngs
from t5x.metrics import Average, AveragePerStep, MetricsMap, StepsPerTime, Time, TimeRate
from t5x.models.base import BaseModel, Batch, Params

Outputs = dict[str, Array]
_TINY = 1e-7


class BaseDrumModel(BaseModel):
    """Audio to onset probabilities and velocities; batch statistics are in the train state.

    A batch has `audio` float32 [B, S, N], of which each chunk is transformed by itself and all
    are joined in time, and the targets of the subclass.

    Args:
      module: the network.
      features: its input.
      optimizer_def: see `t5x.models.base.BaseModel`.
    """

    FEATURE_CONVERTER_CLS = PassThroughFeatureConverter

    def __init__(self, module: nn.Module, features: DrumFeatures, optimizer_def: Any):
        super().__init__(optimizer_def)
        self.module = module
        self.features = features
        self._counts: dict[str, Array] | None = None

    # ------------------------------------------------------------------------------ network

    def spectrogram(self, batch: Batch) -> Array:
        """Return the network's input for `audio`: float32 [B, T, F]."""
        chunks = log_mel(batch["audio"], self.features)
        frames = batch["onsets"].shape[1] // chunks.shape[1] if "onsets" in batch else None
        chunks = chunks[:, :, :frames]
        return chunks.reshape(chunks.shape[0], -1, chunks.shape[-1])

    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return initial `params`, their axes, `batch_stats`; only the number of bands matters."""
        del input_shapes, input_types
        frames = jnp.zeros((1, 2, self.features.num_mel_bins), jnp.float32)
        return unfreeze(self.module.init({"params": rng}, frames))

    def apply(
        self, params: Params, spectrogram: Array, mutables: Any, dropout_rng: Array | None = None
    ) -> tuple[Outputs, Any]:
        """Return the network's outputs, and the new statistics if there is a key (in training)."""
        variables = {"params": params, **(mutables or {})}
        if dropout_rng is None:
            return self.module.apply(variables, spectrogram, training=False), mutables  # type: ignore[return-value]
        return self.module.apply(  # type: ignore[return-value]
            variables,
            spectrogram,
            training=True,
            rngs=dropout_rngs(dropout_rng),
            mutable=["batch_stats"],
        )

    # --------------------------------------------------------------------------------- loss

    @abc.abstractmethod
    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Return the sums of the loss's terms over the batch, by name."""

    @abc.abstractmethod
    def counts(self, batch: Batch) -> dict[str, Array]:
        """Return the divisor of each sum."""

    def weights(self) -> Mapping[str, float]:
        """Return the factors of the terms; terms without one have factor 1."""
        return {}

    def normalize_globally(self, batch: Batch) -> tuple["BaseDrumModel", Batch]:
        """Return a model that divides by the counts of all of `batch`, whatever part it gets."""
        model = copy.copy(self)
        model._counts = self.counts(batch)
        return model, batch

    def loss_fn(  # type: ignore[override]
        self, params: Params, batch: Batch, dropout_rng: Array | None, mutables: Any = None
    ) -> tuple[Array, Any]:
        """Return (loss, (metrics, new batch statistics)); in evaluation as `eval_fn`."""
        outputs, mutables = self.apply(params, self.spectrogram(batch), mutables, dropout_rng)
        counts = self._counts or self.counts(batch)
        means = {k: v / jnp.maximum(counts[k], 1.0) for k, v in self.terms(outputs, batch).items()}
        weights = self.weights()
        loss = sum((weights.get(k, 1.0) * v for k, v in means.items()), jnp.float32(0.0))
        return loss, (self.metrics(outputs, batch, loss, means), mutables)

    def eval_fn(  # type: ignore[override]
        self, params: Params, batch: Batch, mutables: Any = None
    ) -> tuple[Array, MetricsMap]:
        """Return (loss, metrics) with the running statistics and without dropout."""
        loss, (metrics, _) = self.loss_fn(params, batch, None, mutables)
        return loss, metrics

    def metrics(
        self, outputs: Outputs, batch: Batch, loss: Array, means: Mapping[str, Array]
    ) -> MetricsMap:
        """Return the loss, its terms, frame-wise scores at a threshold of one half, and rates."""
        hit, true = probabilities(outputs) > 0.5, batch["onsets"] == 1.0
        rows = batch["audio"].shape[0]
        seconds = batch["onsets"].shape[0] * batch["onsets"].shape[1]
        found: MetricsMap = {
            "loss": AveragePerStep.from_model_output(loss),
            "precision": Average.from_model_output(true, hit),
            "recall": Average.from_model_output(hit, true),
            "timing/seqs_per_second": TimeRate.from_model_output(rows),
            "timing/audio_seconds_per_second": TimeRate.from_model_output(
                seconds / self.features.frames_per_second
            ),
            "timing/steps_per_second": StepsPerTime.from_model_output(),
            "timing/seconds": Time(),
        }
        return found | {
            f"loss/{name}": AveragePerStep.from_model_output(value) for name, value in means.items()
        }

    # --------------------------------------------------------------------------- prediction

    def predict_batch_with_aux(
        self, params: Params, batch: Batch, rng: Array | None = None, mutables: Any = None
    ) -> tuple[Array, Mapping[str, Array]]:
        """Return (onset probabilities [B, T, K], the other outputs)."""
        del rng
        outputs, _ = self.apply(params, self.spectrogram(batch), mutables)
        return probabilities(outputs), outputs

    def score_batch(
        self,
        params: Params,
        batch: Batch,
        return_intermediates: bool = False,
        mutables: Any = None,
    ) -> Any:
        """Return the log-likelihood [B] of `onsets`, summed over cells; optionally with outputs."""
        outputs, _ = self.apply(params, self.spectrogram(batch), mutables)
        scores = -binary_cross_entropy(outputs["onset_logits"], batch["onsets"]).sum((1, 2))
        return (scores, outputs) if return_intermediates else scores


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Return -t log σ(x) - (1 - t) log(1 - σ(x)), float32, for targets in [0, 1]."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


class OafDrumsModel(BaseDrumModel):
    """The loss of OaF Drums (Callender et al. 2020, and its code).

    Mean cross-entropy of all onset cells of frames that are not padding, and half of the mean
    squared velocity error of the cells with onsets. A batch has `onsets` and `velocities`
    [B, T, 88] and `lengths` int32 [B], frames that are not padding.
    """

    def _mask(self, batch: Batch) -> Array:
        frames = jnp.arange(batch["onsets"].shape[1])
        return (frames < batch["lengths"][:, None]).astype(jnp.float32)[..., None]

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Return sums over cells."""
        onsets = batch["onsets"]
        entropy = binary_cross_entropy(outputs["onset_logits"], onsets) * self._mask(batch)
        error = jnp.square(outputs["velocities"] - batch["velocities"])
        return {"onsets": entropy.sum(), "velocities": 0.5 * (onsets * error).sum()}

    def counts(self, batch: Batch) -> dict[str, Array]:
        """Return the numbers of cells and of cells with onsets."""
        cells = self._mask(batch).sum() * batch["onsets"].shape[-1]
        return {"onsets": cells, "velocities": (batch["onsets"] > 0).sum().astype(jnp.float32)}


class DrumModel(BaseDrumModel):
    """The loss of this package's own networks.

    Cross-entropy of the onsets of all classes, summed over classes, and again of groups of them at
    coarser levels, where an onset is that of any member: classes that sound alike then cost little
    as long as their group is right. Velocity and offset count where there are onsets. A batch has
    `onsets`, `velocities`, `offsets` and `weights` [B, T, K] (`drums.labels.class_targets`).

    Args:
      level: the classes of the outputs.
      group_levels: coarser levels that are trained as well.
      velocity_weight, offset_weight: of the mean squared velocity error and the mean absolute
        offset (frames).
    """

    def __init__(
        self,
        module: nn.Module,
        features: DrumFeatures,
        optimizer_def: Any,
        level: str = FULL,
        group_levels: Sequence[str] = (),
        velocity_weight: float = 5.0,
        offset_weight: float = 0.1,
    ):
        super().__init__(module, features, optimizer_def)
        if group_levels and level != FULL:
            raise ValueError(f"group_levels={group_levels} need level={FULL!r}, not {level!r}")
        self.level = level
        self._groups = {name: get_level(name).members for name in group_levels}
        self._weights = {"velocities": velocity_weight, "offsets": offset_weight}

    def weights(self) -> Mapping[str, float]:
        """Return the factors of the terms."""
        return self._weights

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Return sums over frames."""
        logits, onsets, weights = outputs["onset_logits"], batch["onsets"], batch["weights"]
        found = {"onsets": binary_cross_entropy(logits, onsets).sum()}
        for name, members in self._groups.items():
            none = group_log_none(logits, members)
            any_onset = (onsets[..., None] * members).max(-2)
            found[f"onsets_{name}"] = _entropy_of_none(none, any_onset).sum()
        error = jnp.square(outputs["velocities"] - batch["velocities"])
        away = jnp.abs(outputs["offsets"] - batch["offsets"])
        return found | {
            "velocities": (weights * error).sum(),
            "offsets": (weights * away).sum(),
        }

    def counts(self, batch: Batch) -> dict[str, Array]:
        """Return the number of frames and the weight of the cells with onsets."""
        frames = jnp.float32(batch["onsets"].shape[0] * batch["onsets"].shape[1])
        names = ("onsets", *(f"onsets_{name}" for name in self._groups))
        weight = batch["weights"].sum()
        return {**dict.fromkeys(names, frames), "velocities": weight, "offsets": weight}


def group_log_none(logits: Array, members: ArrayLike) -> Array:
    """Return log P(no member has an onset), [..., K] x [K, G] -> [..., G], members independent."""
    return jax.nn.log_sigmoid(-logits) @ jnp.asarray(members)


def _entropy_of_none(log_none: Array, targets: Array) -> Array:
    """Return the cross-entropy of `targets` in [0, 1], given log(1 - p)."""
    log_any = jnp.log(-jnp.expm1(jnp.minimum(log_none, -_TINY)))
    return -(targets * log_any + (1 - targets) * log_none)
