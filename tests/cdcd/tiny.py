"""Tiny networks and batches, sources whose probabilities are known, and their ideal denoiser."""

import dataclasses

import gin
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from cdcd import warping
from cdcd.baselines import MaskedDiffusionModel
from cdcd.config import DenoiserConfig, NoiseRange
from cdcd.denoising import Denoising
from cdcd.models import CDCDModel
from cdcd.network import Denoiser, TokenNetwork
from cdcd.optimizers import grouped_adam
from cdcd.warping import Warping
from t5x.data.vocabularies import NUM_SPECIAL_IDS
from tests.t5x.networks import random_params

#: The paper's, in proportion to the norm of embeddings of 8 dimensions.
NOISE = NoiseRange(0.18, 53.0)
#: A stationary Markov chain of three symbols: probabilities of each after each, and of any.
AFTER = np.array([[0.1, 0.8, 0.1], [0.25, 0.05, 0.7], [0.6, 0.3, 0.1]])
FIRST = np.linalg.matrix_power(AFTER, 64)[0]
#: Ids of the symbols.
IDS = (NUM_SPECIAL_IDS, NUM_SPECIAL_IDS + 1, NUM_SPECIAL_IDS + 2)


# ----------------------------------------------------------------------------------- networks


def tiny_config(**changes):
    sizes = {
        "vocab_size": NUM_SPECIAL_IDS + 3,
        "embed_dim": 8,
        "width": 16,
        "num_layers": 1,
        "num_heads": 2,
        "mlp_dim": 24,
        "num_fourier": 4,
        "time_width": 8,
    }
    return DenoiserConfig(**(sizes | changes))


def tiny_model(sizes=None, **options):
    """Continuous diffusion; `sizes` are those of the network."""
    module = Denoiser(tiny_config(**(sizes or {})))
    return CDCDModel(module, None, grouped_adam(), **({"noise": NOISE} | options))


def masked_network(**sizes):
    return TokenNetwork(tiny_config(**sizes), causal=False, extra_inputs=1)


def params_of(model, seed=0):
    """Random parameters, with which tokens differ; nothing is compiled."""
    shapes = {"decoder_input_tokens": (2, 4), "decoder_target_tokens": (2, 4)}
    types = dict.fromkeys(shapes, jnp.int32)
    made = jax.eval_shape(
        lambda: model.get_initial_variables(jax.random.key(0), shapes, types)["params"]
    )
    params = random_params(made, seed)
    if warping.PARAMS in params:
        params[warping.PARAMS] = warping.initial_params(model.warping.num_bins)
    return params


def random_batch(rows=4, length=6, vocab_size=NUM_SPECIAL_IDS + 3, seed=0):
    """A batch of random tokens without padding."""
    tokens = np.random.default_rng(seed).integers(NUM_SPECIAL_IDS, vocab_size, (rows, length))
    return as_batch(tokens)


def as_batch(tokens):
    tokens = jnp.asarray(tokens, jnp.int32)
    inputs = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    return {"decoder_target_tokens": tokens, "decoder_input_tokens": inputs}


# ------------------------------------------------------------------------------------ sources


def markov_joint(length):
    """Probabilities of all rows of the chain, [3, ..., 3]."""
    joint = FIRST
    for _ in range(length - 1):
        joint = joint[..., None] * AFTER
    return joint


def markov_rows(seed, count, length):
    """Rows of the chain, ids int32 [count, length]."""
    flat = markov_joint(length).ravel()
    drawn = np.random.default_rng(seed).choice(flat.size, count, p=flat)
    rows = np.stack(np.unravel_index(drawn, (3,) * length), axis=1)
    return (rows + NUM_SPECIAL_IDS).astype(np.int32)


def bigram_counts(rows):
    """How often which symbol follows which in rows of ids, [3, 3]."""
    found = np.asarray(rows) - NUM_SPECIAL_IDS
    counts = np.zeros((3, 3))
    np.add.at(counts, (found[:, :-1], found[:, 1:]), 1)
    return counts


def bigram_divergence(rows):
    """KL divergence of the bigrams of rows from those of the chain, nats."""
    counts = bigram_counts(rows)
    return float(scipy.stats.entropy(counts.ravel(), (FIRST[:, None] * AFTER).ravel()))


# ------------------------------------------------------------- what stands for a network


@dataclasses.dataclass(frozen=True, eq=False)
class StandIn(Denoising):
    """Each is another one to `jax.jit`."""

    __eq__, __hash__ = object.__eq__, object.__hash__


def even_table(count, width=8):
    """Random embeddings of norm sqrt(width)."""
    table = np.random.default_rng(0).normal(size=(count, width))
    table *= np.sqrt(width) / np.linalg.norm(table, axis=1, keepdims=True)
    return jnp.asarray(table, jnp.float32)


def marginals(joint, evidence):
    """Log-probabilities of each token of rows with a joint distribution, float32 [B, L, V].

    Args:
      joint: probabilities, an axis of V for each of L positions.
      evidence: [B, L, V], log-likelihood of what is known if a token is the one.
    """
    rows = np.indices(joint.shape).reshape(joint.ndim, -1).T  # [V^L, L]
    one_hot = np.eye(joint.shape[0], dtype=np.float32)[rows]
    likelihood = jnp.einsum("blv,slv->bs", evidence, one_hot)
    posterior = jax.nn.softmax(jnp.log(joint.ravel()) + likelihood)
    return jnp.log(jnp.einsum("bs,slv->blv", posterior, one_hot) + 1e-30)


@dataclasses.dataclass(frozen=True, eq=False)
class Oracle(StandIn):
    """The posterior of tokens with a joint distribution, in the place of a network.

    Attributes:
      joint: see `marginals`.
    """

    joint: np.ndarray

    def table(self, params):
        return even_table(self.joint.shape[0])

    def logits(self, params, x, task, previous, t, dropout_rng=None):
        noisy, table = task.noisy[..., None], self.table(params)
        looked_at = jnp.any(task.given != 0, axis=-1, keepdims=True)
        sharpness = jnp.where(noisy, 1 / t[:, None, None] ** 2, 1e4 * looked_at)
        products = jnp.where(noisy, x, task.given) @ table.T - jnp.sum(table**2, axis=-1) / 2
        return marginals(self.joint, sharpness * products)


def oracle(joint, noise=None, kind=Oracle):
    joint = np.asarray(joint, np.float32)
    module = Denoiser(tiny_config(vocab_size=joint.shape[0]))
    return kind(module, noise or NoiseRange(0.2, 300.0), joint)


class MaskedOracle(MaskedDiffusionModel):
    """Probabilities of masked tokens, given the others, of rows with a joint distribution."""

    def __init__(self, joint):
        super().__init__(masked_network(vocab_size=joint.shape[0]), None, None)
        self.joint = np.asarray(joint, np.float32)

    def logits(self, params, tokens, masked, valid=None, dropout_rng=None):
        agrees = jax.nn.one_hot(tokens, self.joint.shape[0]) > 0
        return marginals(self.joint, jnp.where(masked[..., None] | agrees, 0.0, -1e4))


@dataclasses.dataclass(frozen=True, eq=False)
class Recorder(StandIn):
    """A simple function in the place of a network, which keeps what it is called with.

    Attributes:
      calls: dicts of arguments and logits.
    """

    calls: list = dataclasses.field(default_factory=list)

    def table(self, params):
        return params["table"]

    def logits(self, params, x, task, previous, t, dropout_rng=None):
        scale = params["scales"][min(len(self.calls), 1)]
        seen = x * jax.lax.rsqrt(t**2 + 1)[:, None, None]
        mixed = seen + jnp.cumsum(task.given, axis=1) + 2 * previous
        logits = scale * (mixed @ self.table(params).T)
        if "shift" in params:
            logits = logits + params["shift"][: len(logits)]
        call = {"x": x, "task": task, "previous": previous, "t": t, "dropout": dropout_rng}
        self.calls.append({**call, "logits": logits})
        return logits


def recorder():
    """(a recorder, its parameters)."""
    table = even_table(NUM_SPECIAL_IDS + 3)
    curves = warping.initial_params(Warping().num_bins)
    params = {"table": table, "scales": jnp.full(2, 0.3, jnp.float32), warping.PARAMS: curves}
    return Recorder(Denoiser(tiny_config()), NOISE), params


def clear_gin():
    """After a run by `t5x.train.main` within a test."""
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]
