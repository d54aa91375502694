"""Random parameters without compiling initialisers, which takes long for large networks."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np


def random_params(shapes: Any) -> Any:
    """Return float32 arrays of the shapes of a tree (`jax.eval_shape` of an initialisation).

    Matrices keep the size of what they multiply; scales are 1.
    """
    import jax

    rng = np.random.default_rng(0)

    def draw(x: Any) -> Any:
        if len(x.shape) < 2:
            return jax.numpy.ones(x.shape, np.float32)
        return jax.device_put(rng.normal(0, x.shape[0] ** -0.5, x.shape).astype(np.float32))

    return jax.tree.map(draw, shapes)


def random_trainer(model: Any, batch: Mapping[str, np.ndarray]) -> Any:
    """Return a trainer of a model for batches like `batch`, at step 0 with random parameters."""
    import jax
    import jax.numpy as jnp

    from t5x.partitioning import PjitPartitioner
    from t5x.train_state import FlaxOptimTrainState
    from t5x.trainer import Trainer

    shapes = {name: x.shape for name, x in batch.items()}
    types = {name: x.dtype for name, x in batch.items()}
    init = functools.partial(model.get_initial_variables, input_shapes=shapes, input_types=types)
    variables = jax.eval_shape(init, jax.random.PRNGKey(0))
    axes = {name: x for name, x in variables.items() if name.endswith("_axes")}
    variables = {name: random_params(x) for name, x in variables.items() if name not in axes} | axes
    return Trainer(
        model,
        FlaxOptimTrainState.create(model.optimizer_def, variables),
        PjitPartitioner(num_partitions=1),
        learning_rate_fn=lambda step: jnp.float32(1e-3),
    )


def random_transformer(network: dict[str, Any], features: int) -> tuple[Any, Any]:
    """Return (module, parameters) of an MT3 network with a number of input features."""
    import jax
    import jax.numpy as jnp

    from mt3.network import T5Config, Transformer

    module = Transformer(T5Config(**network))
    frames = jnp.ones((1, max(1, module.config.frame_stack), features))
    tokens = jnp.ones((1, 1), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), frames, tokens, tokens)["params"]
    return module, random_params(shapes)
