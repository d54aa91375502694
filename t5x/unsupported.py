"""Names of upstream's t5x that are not here, and what to use instead.

One table for all modules. `from t5x.utils import NAME`, `t5x.utils.NAME` and `import t5x.NAME` of a
name in it raise an error that says what to use. `docs/t5x.md` shows the same table.
"""

import dis
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

#: (names below `t5x.`, what to use instead)
TABLE: tuple[tuple[str, str], ...] = (
    (
        "binary_search",
        "`t5x.decoding.topk_mask` and `t5x.decoding.topp_mask`, which sort",
    ),
    (
        "checkpoint_importer checkpoints.load_tf_checkpoint",
        "Hugging Face's weights of the same models, with `t5x.checkpoints.load_hugging_face`",
    ),
    (
        "config_utils",
        "gin, with `t5x.gin_utils`; configurations in fiddle are not read",
    ),
    (
        "contrib",
        "`t5x.layers` and `t5x.examples` for networks, `t5x.trainer.Trainer` for training; there "
        "are no mixtures of experts, no CALM and no kernels for one kind of GPU",
    ),
    (
        "examples.decoder_only.layers examples.scalable_t5.layers examples.t5.layers",
        "`t5x.layers`, with the same parameter names; some arguments differ",
    ),
    (
        "multihost_utils utils.multihost_assert_equal utils.sync_global_devices",
        "`jax.experimental.multihost_utils`",
    ),
    (
        "precompile",
        "`t5x.train.train` with `--dry_run`, which prints shapes and shardings",
    ),
    (
        "scripts",
        "`python -m t5x.train` on each host, with `--coordinator_address` and `--process_index`",
    ),
    (
        "te_config",
        "nothing: there are no layers of Transformer Engine",
    ),
    (
        "test_utils",
        "`t5x.examples.t5.network` with a small configuration, such as `t5_1_1/tiny.gin`",
    ),
    (
        "version",
        "`importlib.metadata.version`, of the distribution musax",
    ),
    (
        "adafactor.factor_name_to_factordim",
        "`t5x.adafactor.FactorDim`, called with the lower-case name",
    ),
    (
        "checkpoint_utils.remove_dataset_checkpoint",
        "`t5x.checkpoint_utils.remove_checkpoint_dir`; the data position lies in the checkpoint",
    ),
    (
        "checkpoints.CheckpointInfo checkpoints.DatasetCheckpointHandler "
        "checkpoints.CheckpointerConstructor checkpoints.restore_checkpoint "
        "checkpoints.save_checkpoint utils.LegacyCheckpointManager "
        "utils.LegacyCheckpointer utils.create_checkpoint_manager "
        "utils.create_checkpoint_manager_and_restore utils.create_orbax_checkpoint_manager",
        "`t5x.checkpoints.CheckpointManager`, which writes Orbax checkpoints; any format is "
        "read by `t5x.checkpoints.load_state`",
    ),
    (
        "checkpoints.LazyArray checkpoints.LazyAwaitableArray checkpoints.LazyThreadPoolArray",
        "`t5x.checkpoints.load_state` with a subtree, such as `target`, reads a part",
    ),
    (
        "checkpoints.find_checkpoint checkpoints.checkpoint_exists",
        "`t5x.checkpoints.latest_checkpoint` and `t5x.checkpoints.checkpoint_kind`",
    ),
    (
        "checkpoints.get_step_from_checkpoint_dir",
        "`t5x.checkpoint_utils.get_checkpoint_step`",
    ),
    (
        "decoding.add_beam_dim decoding.flatten_beam_dim decoding.unflatten_beam_dim "
        "decoding.gather_beams decoding.gather_topk_beams decoding.cache_gather_beams",
        "`t5x.decoding.beam_search`; its caches are gathered with `t5x.decoding.cache.cache_take`",
    ),
    (
        "decoding.beam_init",
        "`t5x.decoding.BeamState`",
    ),
    (
        "export_lib.ExportableModule export_lib.create_inference_function "
        "export_lib.create_preprocessor export_lib.create_postprocessor "
        "export_lib.create_decoder_preprocessor",
        "`t5x.export_lib.save`, which writes a program with its vocabularies",
    ),
    (
        "infer.FailFastThreadPoolExecutor",
        "`concurrent.futures.ThreadPoolExecutor`",
    ),
    (
        "interactive_model.InferenceType interactive_model.T5XScriptType "
        "interactive_model.get_batches_from_seqio interactive_model.get_dataset_from_seqio "
        "interactive_model.get_seqio_task_from_examples",
        "`t5x.interactive_model.InteractiveModel`, which takes lists of examples",
    ),
    (
        "metrics.create_metrics_summary metrics.is_metric_obj metrics.is_time_metric "
        "metrics.set_microbatch_adjusted_metrics_microbatches metrics.set_time_metrics_duration",
        "`t5x.metrics.compute`, `t5x.metrics.set_duration` and `t5x.metrics.set_steps`",
    ),
    (
        "models.TokensIdsToLogitsCallable models.TokensToLogitsCallable",
        "`t5x.decoding.TokensToLogits`",
    ),
    (
        "models.compute_metrics models.compute_metrics_clu models.compute_weighted_accuracy",
        "`t5x.models.compute_base_metrics`",
    ),
    (
        "optimizers.OptaxStatePartitionRules",
        "`t5x.optimizers.OptaxWrapper`, which knows the axes of any optax state",
    ),
    (
        "optimizers.amos",
        "another transformation of optax, since its package jestimator no longer installs: use "
        "optimizers.adamw, or wrap one with `t5x.optimizers.OptaxWrapper`",
    ),
    (
        "partitioning.AxisNames",
        "`t5x.partitioning.PartitionSpec`, or a tuple of names",
    ),
    (
        "partitioning.HardwareMesh partitioning.bounds_from_last_device partitioning.default_mesh "
        "partitioning.get_coords partitioning.get_cpu_mesh partitioning.get_gpu_mesh "
        "partitioning.get_mesh partitioning.global_mesh_defined",
        "`t5x.partitioning.create_mesh`, or `mesh` of a `t5x.partitioning.PjitPartitioner`",
    ),
    (
        "partitioning.LocalChunkInfo partitioning.LocalChunker",
        "`t5x.partitioning.DataLayout`; JAX divides arrays over processes",
    ),
    (
        "partitioning.ModelBasedPjitPartitioner",
        "`t5x.partitioning.PjitPartitioner`, with the model's rules as its logical_axis_rules",
    ),
    (
        "partitioning.PjittedFnWithContext partitioning.pjit partitioning.pjit_with_cpu_fallback "
        "partitioning.host_local_array_to_global_array",
        "`t5x.partitioning.PjitPartitioner`: its `partition` and `shard_batch`",
    ),
    (
        "train_state.EMPTY_DICT train_state.FrozenVariableDict train_state.MutableVariableDict "
        "train_state.VariableDict",
        "dict; states hold nested dicts",
    ),
    (
        "train_state.GanTrainState",
        "`t5x.train_state.FlaxOptimTrainState`, one for each network",
    ),
    (
        "trainer.ArrayMapFuture trainer.MetricValueMapFuture trainer.MetricsManager "
        "trainer.TimeFuture",
        "`t5x.loggers.MetricWriter`; `t5x.trainer.Trainer.train` returns the metrics",
    ),
    (
        "trainer.BatchType trainer.ActionMapType trainer.LearningRateCallable "
        "trainer.MetricMapType trainer.MetricValueMapType trainer.MutableMetricMapType "
        "trainer.PartitionedEvalCallable trainer.PartitionedTrainCallable trainer.Rng "
        "eval.InferenceEvaluator eval.SummarizeConfigFn infer.WriteFn "
        "utils.EvaluatorConstructor utils.GetDatasetCallable utils.GetEvalDatasetCallable "
        "utils.InferFnCallable utils.InferStepCallable utils.InitFnCallable "
        "utils.LearningRateCallable utils.SummarizeConfigFn utils.TrainStateInitializerConstructor",
        "`collections.abc.Callable` or `collections.abc.Mapping` in annotations",
    ),
    (
        "trainer.PreemptionError",
        "`t5x.training.preemption.StopRequest`; SIGTERM saves a checkpoint",
    ),
    (
        "trainer.accumulate_grads_microbatched trainer.apply_grads trainer.eval_step "
        "trainer.merge_metrics trainer.train_with_lr",
        "`t5x.trainer.Trainer`: its `gradients`, `train_step` and `eval_step` can be overridden",
    ),
    (
        "utils.ShardedDatasetIterator utils.create_sharded_array utils.prepare_train_iter",
        "`t5x.utils.get_dataset` and `t5x.partitioning.PjitPartitioner.shard_batch`",
    ),
    (
        "utils.find_first_valid_checkpoint utils.get_fallback_state "
        "utils.get_first_valid_restore_config_and_paths",
        "`t5x.utils.TrainStateInitializer.from_checkpoint_or_scratch`",
    ),
    (
        "utils.flatten_dict_string_keys utils.flatten_lists",
        "`t5x.state_utils.flatten_state_dict`",
    ),
    (
        "utils.get_dataset_inner",
        "`t5x.utils.get_dataset`",
    ),
    (
        "utils.get_infer_fn",
        "`t5x.infer.infer` for a data set, `t5x.interactive_model.InteractiveModel` for a list of "
        "examples",
    ),
    (
        "utils.get_zeros_batch_like_dataset utils.get_zeros_batch_like_spec",
        "`element_spec` of what `t5x.utils.get_dataset` returns",
    ),
    (
        "utils.log_model_info",
        "`t5x.training.dry_run.describe_run`, or `--dry_run`",
    ),
    (
        "utils.steps",
        "`range`",
    ),
)

#: Full name -> what to use instead.
UNSUPPORTED = {f"t5x.{name}": text for names, text in TABLE for name in names.split()}


def explanation(name: str) -> str:
    """Return the error for a full name of the table, such as "t5x.utils.get_infer_fn"."""
    return f"{name} of upstream's t5x is not here; use instead: {UNSUPPORTED[name]}."


def unsupported_names(module: str) -> Callable[[str], NoReturn]:
    """Return the `__getattr__` of a module, which explains the names of the table.

    It raises AttributeError. Python hides the message of that from `from module import name`, so
    there it raises ImportError.
    """

    def get(name: str) -> NoReturn:
        full = f"{module}.{name}"
        if full not in UNSUPPORTED:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        caller = sys._getframe(1)
        if dis.opname[caller.f_code.co_code[caller.f_lasti]] == "IMPORT_FROM":
            raise ImportError(explanation(full), name=module)
        raise AttributeError(explanation(full))

    return get


class _Finder(importlib.abc.MetaPathFinder):
    """Last of all finders: explains the modules of the table, and names of packages."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> Any:
        if fullname in UNSUPPORTED:
            raise ImportError(explanation(fullname), name=fullname)
        return None


def explain_unsupported_modules() -> None:
    """Make `import` of a module in the table raise ImportError with its replacement."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
