"""Save a model as a program that runs without its code: StableHLO, or a TensorFlow SavedModel.

The program takes model features and gives predictions or scores. `t5x.run_exported` runs it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.traverse_util
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from t5x import utils
from t5x.checkpoints import save_safetensors
from t5x.data import lookup
from t5x.files import atomic_path, check_local, write_json
from t5x.gin_utils import GinError
from t5x.inference.data import BatchMaker
from t5x.inference.states import FeatureSpec, InferenceStates
from t5x.run_exported import BATCH, FORMAT, ExportedModel
from t5x.training.dry_run import describe_inference
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

PLATFORMS = ("cpu", "cuda", "tpu")
_VOCABULARY_FOLDER = "vocabulary"
_MODES = ("predict", "score")


def save(
    *,
    model: Any,
    restore_checkpoint_cfg: utils.RestoreCheckpointConfig,
    output_dir: str,
    task_feature_lengths: Mapping[str, Any],
    inference_mode: str | Sequence[str] = _MODES,
    batch_size: int | None = None,
    partitioner: Any = None,
    output_features: Mapping[str, Any] | None = None,
    mixture_or_task_name: Any = None,
    model_name: str = "model",
    params_inside: bool = False,
    params_dtype: str | None = None,
    native_lowering_platforms: Sequence[str] | None = None,
    trailing_shapes: Mapping[str, Sequence[int]] | None = None,
    validation_examples: Sequence[Mapping[str, Any]] | None = None,
    saved_model: bool = False,
    signature_name: str = "serving_default",
    train_state_initializer_cls: Callable[..., Any] = utils.TrainStateInitializer,
    fallback_init_rng: int | None = None,
    exportable_module_cls: Any = None,
    create_preprocessor_fn: Any = None,
    create_inference_function_fn: Any = None,
    create_postprocessor_fn: Any = None,
    warmup_examples: Any = None,
    tokenized_inputs: bool = True,
    native_lowering: bool = True,
    enable_xla: bool = True,
    decode_outputs: bool | None = None,
    dry_run: bool = False,
) -> str | None:
    """Write `output_dir/model_name`.

    Args:
      model: see `t5x.models.BaseModel`.
      restore_checkpoint_cfg: the checkpoint.
      output_dir: folder of exported models.
      task_feature_lengths: {task feature: length}; they fix the lengths of the program.
      inference_mode: "predict", "score" or both.
      batch_size: rows of a batch; None makes a program for any number of them.
      partitioner: lays out the parameters while they are read; the program is for one device.
      output_features: {task feature: feature}, for the vocabularies; None takes the task's or,
        without one, the model's.
      mixture_or_task_name: the task whose features these are.
      model_name: name of the folder.
      params_inside: parameters are constants of the program rather than a file beside it.
      params_dtype: of the stored parameters; None keeps the model's.
      native_lowering_platforms: "cpu", "cuda", "tpu" or "rocm"; None takes the first three.
      trailing_shapes: {task feature: shape of one element}, of features of vectors.
      validation_examples: batches of model features; on each, the program must compute what the
        model does.
      saved_model: write a TensorFlow SavedModel (needs TensorFlow) rather than StableHLO.
      signature_name: of the SavedModel's only function, if `inference_mode` is one.
      train_state_initializer_cls: makes the state.
      fallback_init_rng: seed of what the checkpoint lacks, with `fallback_to_scratch`.
      exportable_module_cls, create_preprocessor_fn, create_inference_function_fn,
        create_postprocessor_fn, warmup_examples, tokenized_inputs, native_lowering, enable_xla,
        decode_outputs: of upstream's TensorFlow graphs; setting them is an error.
      dry_run: print what would be written, and write nothing.

    Returns:
      The folder; None on a dry run.

    Raises:
      CheckpointError: there is no checkpoint, or it does not fit the model.
      GinError: an option that does not fit, TensorFlow is missing, or the folder exists.
    """
    _refuse(
        exportable_module_cls=exportable_module_cls,
        create_preprocessor_fn=create_preprocessor_fn,
        create_inference_function_fn=create_inference_function_fn,
        create_postprocessor_fn=create_postprocessor_fn,
        warmup_examples=warmup_examples,
        decode_outputs=decode_outputs,
        tokenized_inputs=None if tokenized_inputs else False,
        native_lowering=None if native_lowering else False,
        enable_xla=None if enable_xla else False,
    )
    modes = [inference_mode] if isinstance(inference_mode, str) else list(inference_mode)
    if not modes or set(modes) - set(_MODES):
        raise GinError(f"save.inference_mode is {inference_mode!r}; use some of {list(_MODES)}.")
    check_local(output_dir, "export.output_dir")
    folder = Path(os.path.expanduser(output_dir)).absolute() / model_name
    if folder.exists() and not dry_run:
        raise GinError(f"{folder} exists; remove it, or choose another output_dir or model_name.")

    spec = feature_spec(model, task_feature_lengths, batch_size or 1, trailing_shapes)
    if partitioner is None:
        from t5x.partitioning import PjitPartitioner

        partitioner = PjitPartitioner(1)
    states = InferenceStates(
        model,
        partitioner,
        spec,
        restore_checkpoint_cfg,
        fallback_init_rng,
        train_state_initializer_cls,
    )
    if len(states.paths) != 1:
        raise GinError(f"export takes one checkpoint, got {[str(p) for p in states.paths]}.")
    if dry_run:
        shape = states.initializer.global_train_state_shape
        print(describe_inference(shape, partitioner, spec, states.paths))
        print(f"Output\n  {folder}: {', '.join(modes)}")
        return None
    params = flat_params(states.read(states.paths[0]).params, params_dtype)
    functions = {mode: inference_function(model, mode) for mode in modes}
    source = {"model_name": model_name, "checkpoint": str(states.paths[0])}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder, folder=True) as partial:
        if saved_model:
            from t5x.inference.saved_model import write_saved_model

            write_saved_model(partial, functions, params, spec, batch_size, signature_name)
        else:
            features = output_features or _task_features(mixture_or_task_name, model)
            write_stablehlo(
                partial,
                functions,
                params,
                spec,
                batch_size,
                platforms=tuple(native_lowering_platforms or PLATFORMS),
                params_inside=params_inside,
                task_features=describe_features(features, task_feature_lengths, model, partial),
                source=source,
            )
            check(partial, functions, params, validation_examples or ())
    print(f"exported {', '.join(modes)} to {folder}")
    return str(folder)


def _refuse(**options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise GinError(
            f"save.{given[0]} builds upstream's TensorFlow graphs and has no effect here. The "
            "exported program takes model features (token ids); texts are encoded and decoded by "
            "t5x.run_exported. Leave it out."
        )


# ---------------------------------------------------------------------- what the program is


def feature_spec(
    model: Any,
    lengths: Mapping[str, Any],
    batch_size: int,
    trailing_shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """{model feature: (shape, dtype)} of a batch of `batch_size` rows.

    Raises:
      GinError: a feature of vectors whose `trailing_shapes` are missing.
    """
    converter = model.FEATURE_CONVERTER_CLS(pack=False)
    example = {}
    for name, task_feature in converter.TASK_FEATURES.items():
        shape = tuple((trailing_shapes or {}).get(name, ()))
        if len(shape) != task_feature.rank - 1:
            raise GinError(
                f"save.trailing_shapes: {name} has elements of rank {task_feature.rank - 1}; give "
                f"their shape, such as {{'{name}': (512,)}}."
            )
        example[name] = np.zeros((0, *shape), task_feature.dtype)
    batch = BatchMaker(converter, lengths, batch_size).make([example])
    return {name: (x.shape, x.dtype) for name, x in batch.items()}


def flat_params(params: Any, dtype: str | None = None) -> dict[str, np.ndarray]:
    """'/'-joined name -> array on the host, floating ones in `dtype`."""
    flat = flax.traverse_util.flatten_dict(dict(params), sep="/")

    def cast(x: Any) -> np.ndarray:
        floating = dtype is not None and jnp.issubdtype(x.dtype, jnp.floating)
        return np.asarray(x.astype(dtype) if floating else x)

    return {name: cast(x) for name, x in flat.items()}


def inference_function(model: Any, mode: str) -> Callable[..., dict[str, jax.Array]]:
    """f(flat parameters, batch, seed) -> name -> [B, ...]: `prediction` and auxiliary values, or
    `score`.
    """

    def predict(params: Any, batch: Any, seed: Any) -> dict[str, jax.Array]:
        tree = flax.traverse_util.unflatten_dict(params, sep="/")
        key = jax.random.PRNGKey(seed)
        prediction, aux = model.predict_batch_with_aux(tree, batch, rng=key)
        return {**aux, "prediction": prediction}

    def score(params: Any, batch: Any, seed: Any) -> dict[str, jax.Array]:
        del seed
        tree = flax.traverse_util.unflatten_dict(params, sep="/")
        return {"score": model.score_batch(tree, batch)}

    return {"predict": predict, "score": score}[mode]


# ---------------------------------------------------------------------- StableHLO


def write_stablehlo(
    folder: Path,
    functions: Mapping[str, Callable[..., Any]],
    params: Mapping[str, np.ndarray],
    spec: FeatureSpec,
    batch_size: int | None,
    platforms: Sequence[str],
    params_inside: bool,
    task_features: Mapping[str, Any] | None,
    source: Mapping[str, Any],
) -> None:
    """Write the folder that `t5x.run_exported` reads.

    Raises:
      GinError: the model cannot be compiled for any batch size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, function in functions.items():
        exported = _exported(function, params, spec, batch_size, platforms, params_inside)
        (folder / f"{name}.bin").write_bytes(_serialized(exported))
        (folder / f"{name}.stablehlo").write_bytes(exported.mlir_module_serialized)
        described[name] = _describe(exported, name, params_inside, _read(function, params, spec))
    if not params_inside:
        tree = flax.traverse_util.unflatten_dict(dict(params), sep="/")
        save_safetensors(folder / "params.safetensors", tree, {"format": str(FORMAT)})
    signature = {
        "format": FORMAT,
        **source,
        "batch_size": batch_size,
        "platforms": list(platforms),
        "params_file": None if params_inside else "params.safetensors",
        "functions": described,
        "task_features": task_features,
        "jax": jax.__version__,
    }
    write_json(folder / "signature.json", signature)


def _exported(
    function: Callable[..., Any],
    params: Mapping[str, np.ndarray],
    spec: FeatureSpec,
    batch_size: int | None,
    platforms: Sequence[str],
    params_inside: bool,
) -> Any:
    rows = batch_size or jax.export.symbolic_shape(BATCH)[0]
    batch = {n: jax.ShapeDtypeStruct((rows, *shape[1:]), d) for n, (shape, d) in spec.items()}
    given = {} if params_inside else params
    structs = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in given.items()}

    def run(given: Any, batch: Any, seed: Any) -> Any:
        constants = {n: jnp.asarray(x) for n, x in params.items()} if params_inside else given
        return function(constants, batch, seed)

    export = jax.export.export(jax.jit(run), platforms=list(platforms))
    try:
        return export(structs, batch, jax.ShapeDtypeStruct((), jnp.uint32))
    except (TypeError, jax.errors.JAXTypeError, jax.errors.InconclusiveDimensionOperation) as error:
        if batch_size is not None:
            raise
        raise GinError(
            f"this model cannot be exported for any batch size ({error}); give save.batch_size."
        ) from error


def _serialized(exported: Any) -> bytes:
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise GinError(f"exporting needs flatbuffers ({error}): pip install flatbuffers") from error


def _read(
    function: Callable[..., Any], params: Mapping[str, np.ndarray], spec: FeatureSpec
) -> set[str]:
    """The model features that the function's result depends on."""
    names = sorted(spec)
    batch = [jax.ShapeDtypeStruct(*spec[name]) for name in names]

    def run(*rows: Any) -> Any:
        return function(params, dict(zip(names, rows)), jnp.uint32(0))

    jaxpr = jax.make_jaxpr(run)(*batch).jaxpr
    used = {id(x) for equation in jaxpr.eqns for x in equation.invars}
    used |= {id(x) for x in jaxpr.outvars}
    return {name for name, variable in zip(names, jaxpr.invars) if id(variable) in used}


def _describe(exported: Any, name: str, params_inside: bool, read: set[str]) -> dict[str, Any]:
    """Names, shapes and types; an input that the program does not read is optional."""
    (_, batch, _), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "file": f"{name}.bin",
        "stablehlo": f"{name}.stablehlo",
        "arguments": "(batch, seed)" if params_inside else "(params, batch, seed)",
        "inputs": {
            key: {**_array(aval), "optional": key not in read} for key, aval in batch.items()
        },
        "outputs": {key: _array(aval) for key, aval in outputs.items()},
    }


def _array(aval: Any) -> dict[str, Any]:
    shape = [n if isinstance(n, int) else str(n) for n in aval.shape]
    return {"shape": shape, "dtype": np.dtype(aval.dtype).name}


def check(
    folder: Path,
    functions: Mapping[str, Callable[..., Any]],
    params: Mapping[str, np.ndarray],
    examples: Sequence[Mapping[str, Any]],
) -> None:
    """Compare the written program with the model on batches of model features.

    Raises:
      GinError: they differ.
    """
    exported = ExportedModel(folder)
    for number, batch in enumerate(examples):
        for mode, function in functions.items():
            expected = jax.device_get(jax.jit(function)(params, dict(batch), np.uint32(0)))
            got = exported(mode, batch)
            for name, value in expected.items():
                if not np.allclose(got[name], value, 1e-4, 1e-4):
                    raise GinError(
                        f"validation example {number}: the exported {mode} gives a different "
                        f"{name} than the model."
                    )


# ---------------------------------------------------------------------- vocabularies


def _task_features(task: Any, model: Any) -> Mapping[str, Any]:
    if task is not None:
        return lookup.find_provider(task).output_features
    found = {}
    for name, attribute in (("inputs", "input_vocabulary"), ("targets", "output_vocabulary")):
        vocabulary = getattr(model, attribute, None)
        if vocabulary is not None:
            found[name] = _feature_of(vocabulary)
    return found


def _feature_of(vocabulary: Any) -> Any:
    """A feature of a vocabulary alone."""
    from t5x.data.features import Feature

    return Feature(vocabulary)


def describe_features(
    features: Mapping[str, Any], lengths: Mapping[str, Any], model: Any, folder: Path
) -> dict[str, Any] | None:
    """What `t5x.run_exported` needs to encode and decode; None for other than token features."""
    converter = model.FEATURE_CONVERTER_CLS
    tokens = {name for name, spec in converter.TASK_FEATURES.items() if spec.rank == 1}
    if "encoder_input_tokens" not in converter.MODEL_FEATURES:
        tokens -= {"inputs"}  # only encoder-decoder models keep inputs and targets apart
    described = {
        name: {
            "length": lengths[name],
            "add_eos": bool(feature.add_eos) and feature.vocabulary.eos_id is not None,
            "vocabulary": _describe_vocabulary(feature.vocabulary, name, folder),
        }
        for name, feature in features.items()
        if name in tokens and name in lengths
    }
    return described or None


def _describe_vocabulary(vocabulary: Any, name: str, folder: Path) -> dict[str, Any]:
    kind = type(vocabulary).__name__
    known = {
        "ByteVocabulary": "byte",
        "PassThroughVocabulary": "ids",
        "SentencePieceVocabulary": "sentencepiece",
    }
    described = {
        "kind": known.get(kind, kind),
        "size": int(vocabulary.vocab_size),
        "eos_id": vocabulary.eos_id,
        "extra_ids": int(getattr(vocabulary, "extra_ids", 0) or 0),
    }
    if described["kind"] == "sentencepiece":
        file = f"{_VOCABULARY_FOLDER}/{name}.model"
        (folder / _VOCABULARY_FOLDER).mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(_sentencepiece_model(vocabulary))
        described["file"] = file
    return described


def _sentencepiece_model(vocabulary: Any) -> bytes:
    """The model with its sentinels, as the vocabulary itself uses it."""
    tokenizer = getattr(vocabulary, "tokenizer", None) or vocabulary._tokenizer
    return tokenizer.serialized_model_proto()
