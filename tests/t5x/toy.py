"""A model and a task small enough to train in a test: counting upwards in a ring of tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import partitioning as flax_partitioning

from t5x import losses, metrics
from t5x.adafactor import Adafactor, standard_logical_factor_rules
from t5x.data import Feature, LMFeatureConverter, PassThroughVocabulary, Task, TaskRegistry
from t5x.models import BaseModel
from t5x.partitioning import with_sharding_constraint

VOCAB = 16
TASK = "toy_counting"


def optimizer() -> Adafactor:
    """The optimizer of the shipped configurations."""
    return Adafactor(logical_factor_rules=standard_logical_factor_rules())


class ToyNetwork(nn.Module):
    """Embedding, one MLP with dropout, logits: the next token from this one."""

    embed: int = 8
    mlp: int = 16
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        def param(name, shape, axes):
            init = nn.initializers.normal(0.5)
            return flax_partitioning.param_with_axes(name, init, shape, jnp.float32, axes=axes)

        x = param("embedding", (VOCAB, self.embed), ("vocab", "embed"))[tokens]
        x = with_sharding_constraint(x, ("batch", "length", "embed"))
        h = nn.relu(x @ param("wi", (self.embed, self.mlp), ("embed", "mlp")))
        h = with_sharding_constraint(h, ("batch", "length", "mlp"))
        h = nn.Dropout(self.dropout_rate)(h, deterministic=not train)
        x = x + h @ param("wo", (self.mlp, self.embed), ("mlp", "embed"))
        return x @ param("logits", (self.embed, VOCAB), ("embed", "vocab"))


class ToyModel(BaseModel):
    """Cross-entropy of the next token, with any loss normalization."""

    FEATURE_CONVERTER_CLS = LMFeatureConverter

    def __init__(self, optimizer_def, dropout_rate=0.0, loss_normalizing_factor=None):
        super().__init__(optimizer_def)
        self.module = ToyNetwork(dropout_rate=dropout_rate)
        self.loss_normalizing_factor = loss_normalizing_factor

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        tokens = jnp.zeros(input_shapes["decoder_input_tokens"], jnp.int32)
        return self.module.init(rng, tokens, train=False)

    def _normalization(self, batch):
        if "normalized_loss_weights" in batch:
            return self.loss_normalizing_factor, batch["normalized_loss_weights"]
        return losses.get_loss_normalizing_factor_and_weights(self.loss_normalizing_factor, batch)

    def normalize_globally(self, batch):
        factor, weights = self._normalization(batch)
        model = ToyModel(self.optimizer_def, self.module.dropout_rate, factor)
        return model, {**batch, "normalized_loss_weights": weights}

    def loss_fn(self, params, batch, dropout_rng):
        rngs = {} if dropout_rng is None else {"dropout": dropout_rng}
        tokens, targets = batch["decoder_input_tokens"], batch["decoder_target_tokens"]
        logits = self.module.apply({"params": params}, tokens, dropout_rng is not None, rngs=rngs)
        factor, weights = self._normalization(batch)
        loss, _, _ = losses.compute_weighted_cross_entropy(
            logits, targets, weights, loss_normalizing_factor=factor
        )
        return loss, {
            "loss": metrics.AveragePerStep(total=loss),
            "accuracy": metrics.Accuracy.from_model_output(
                logits, targets, batch["decoder_loss_weights"]
            ),
            "timing/seqs_per_second": metrics.TimeRate.from_model_output(len(targets)),
            "timing/steps_per_second": metrics.StepsPerTime(),
        }

    def predict_batch_with_aux(self, params, batch, rng=None):
        logits = self.module.apply({"params": params}, batch["decoder_input_tokens"], False)
        return logits.argmax(-1), {"scores": logits.max(-1).sum(-1)}

    def score_batch(self, params, batch, return_intermediates=False):
        del return_intermediates
        logits = self.module.apply({"params": params}, batch["decoder_input_tokens"], False)
        targets = batch["decoder_target_tokens"]
        scores = jnp.take_along_axis(nn.log_softmax(logits), targets[..., None], -1)[..., 0]
        return (scores * batch["decoder_loss_weights"]).sum(-1)


def examples(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Rows that count upwards from random starts, of lengths 5 to 8."""
    rng = np.random.default_rng(seed)
    rows = [np.arange(rng.integers(5, 9)) + rng.integers(VOCAB) for _ in range(count)]
    return [{"targets": (1 + row % (VOCAB - 1)).astype(np.int32)} for row in rows]


def exact_match(targets, predictions):
    """Fraction of rows whose prediction begins with the target."""
    pairs = zip(targets, predictions)
    return {"exact": np.mean([list(t) == list(p[: len(t)]) for t, p in pairs])}


def register() -> Task:
    """Registers the task once."""
    if TASK not in TaskRegistry.names():
        TaskRegistry.add(
            TASK,
            source={"train": examples(64, 0), "validation": examples(16, 1)},
            output_features={"targets": Feature(PassThroughVocabulary(VOCAB), add_eos=False)},
            metric_fns=[exact_match],
        )
    return TaskRegistry.get(TASK)


register()
