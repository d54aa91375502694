"""A model as a TensorFlow SavedModel, through jax2tf; needs the `seqio` extra for TensorFlow."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from t5x.extras import how_to_install
from t5x.gin_utils import GinError
from t5x.inference.states import FeatureSpec


def write_saved_model(
    folder: Path,
    functions: Mapping[str, Callable[..., Any]],
    params: Mapping[str, np.ndarray],
    spec: FeatureSpec,
    batch_size: int | None,
    signature_name: str = "serving_default",
) -> None:
    """Write signatures that take model features, and `seed` (uint32 scalar), by name.

    Args:
      folder: to be made.
      functions: name -> f(params, batch, seed) -> name -> array.
      params: '/'-joined name -> array; they become variables.
      spec: {model feature: (shape, dtype)}.
      batch_size: rows; None makes signatures for any number.
      signature_name: of the only function; several have their own names.

    Raises:
      GinError: TensorFlow is not installed, or cannot run what this JAX compiles.
    """
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ImportError as error:
        raise GinError(
            f"a SavedModel needs TensorFlow ({error}): {how_to_install('seqio')}, or leave "
            "save.saved_model out, which writes StableHLO."
        ) from error

    module: Any = tf.Module()
    # TensorFlow's names of variables may not begin as parameters' do, so a list holds them.
    names = sorted(params)
    module.params = [tf.Variable(tf.constant(params[name]), trainable=False) for name in names]
    signatures = {}
    for name, function in functions.items():
        run = jax2tf.convert(
            _positional(function, names, sorted(spec)),
            polymorphic_shapes=_polymorphic(len(names), spec, batch_size),
            with_gradient=False,
        )
        key = signature_name if len(functions) == 1 else name
        signatures[key] = _signature(tf, run, module, spec, batch_size)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    _try(tf, folder, spec, batch_size)


def _positional(
    function: Callable[..., Any], params: list[str], features: list[str]
) -> Callable[..., Any]:
    """`function` of flat lists: parameters, features and the seed."""

    def run(values: list[Any], batch: list[Any], seed: Any) -> Any:
        given = {name: jnp.asarray(x) for name, x in zip(params, values)}
        return function(given, dict(zip(features, batch)), seed)

    return run


def _polymorphic(num_params: int, spec: FeatureSpec, batch_size: int | None) -> Any:
    if batch_size is not None:
        return None
    rows = ["(batch, " + ", ".join(map(str, spec[n][0][1:])) + ")" for n in sorted(spec)]
    return [[None] * num_params, rows, None]


def _signature(tf: Any, run: Any, module: Any, spec: FeatureSpec, batch_size: int | None) -> Any:
    specs = {
        name: tf.TensorSpec([batch_size, *shape[1:]], tf.as_dtype(np.dtype(dtype)), name=name)
        for name, (shape, dtype) in spec.items()
    }

    def call(seed: Any, **features: Any) -> Any:
        batch = [features[name] for name in sorted(spec)]
        return run(list(module.params), batch, seed)

    function = tf.function(call, autograph=False, jit_compile=True)
    return function.get_concrete_function(seed=tf.TensorSpec([], tf.uint32, name="seed"), **specs)


def _try(tf: Any, folder: Path, spec: FeatureSpec, batch_size: int | None) -> None:
    """Run every signature once, since each TensorFlow knows the programs of its time only."""
    import jax

    batch = {
        name: tf.zeros([batch_size or 1, *shape[1:]], tf.as_dtype(np.dtype(dtype)))
        for name, (shape, dtype) in spec.items()
    }
    loaded = tf.saved_model.load(str(folder))
    for function in loaded.signatures.values():
        try:
            function(seed=tf.zeros([], tf.uint32), **batch)
        except tf.errors.OpError as error:
            reason = next((x for x in str(error).splitlines() if "deserialize" in x), str(error))
            raise GinError(
                f"TensorFlow {tf.__version__} cannot run what JAX {jax.__version__} compiled "
                f"({reason.strip()[:300]}). Give save.batch_size, take versions of the same time, "
                "or leave save.saved_model out, which writes StableHLO."
            ) from error
