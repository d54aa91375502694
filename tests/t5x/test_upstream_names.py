"""Names that public repositories import from upstream's t5x."""

import pkgutil

import pytest

NAMES = """
    adafactor.{Adafactor,HParamMap,standard_factor_rules,standard_logical_factor_rules}
    checkpoint_utils.{detect_checkpoint_type,get_checkpoint_dir,get_checkpoint_step,pin_checkpoint}
    checkpoints.{Checkpointer,SaveBestCheckpointer,load_t5x_checkpoint,latest_step,all_steps}
    checkpoints.{get_checkpoint_dir,SaveStateTransformationFn,RestoreStateTransformationFn}
    decoding.{DecodingState,beam_search,temperature_sample,cache_map,flat_batch_beam_expand}
    gin_utils.{parse_gin_flags,rewrite_gin_args,run,summarize_gin_config}
    interactive_model.InteractiveModel
    losses.{compute_weighted_cross_entropy,cross_entropy_with_logits,SpecialLossNormalizingFactor}
    metrics.{AveragePerStep,MetricsMap,StepsPerTime,Sum,Time,TimeRate}
    models.{BaseModel,BaseTransformerModel,DecodeFnCallable,DecoderOnlyModel,DecoderParams}
    models.{EncoderDecoderModel,MetricsMap,PyTree,compute_base_metrics,get_input_vocabulary}
    models.{get_output_vocabulary,remove_prefix}
    optimizers.{MultiOptimizer,Optimizer,OptimizerDef,OptimizerDefType,OptimizerState,chain}
    optimizers.{OptaxWrapper,adamw,wrap_optax_optimizer}
    partitioning.{BasePartitioner,BasePjitPartitioner,DataLayout,LogicalAxisRules,PartitionSpec}
    partitioning.{PjitPartitioner,standard_logical_axis_rules,with_sharding_constraint}
    state_utils.{apply_assignment_map,flatten_state_dict,get_name_tree,intersect_state,merge_state}
    state_utils.tensorstore_leaf
    train.train eval.evaluate infer.infer export_lib.save
    train_state.{FlaxOptimTrainState,InferenceState,TrainState}
    trainer.{ActionMode,BaseAction,BaseTrainer,EarlyStoppingAction,TerminateOnNanAction,Trainer}
    trainer.WeightMetricsComputer
    utils.{CheckpointConfig,DatasetConfig,RestoreCheckpointConfig,SaveCheckpointConfig}
    utils.{TrainStateInitializer,create_learning_rate_scheduler,get_dataset,get_local_data}
    utils.{get_training_eval_datasets,get_vocabulary,import_module,override_params_axes_names}
    utils.{round_vocab_size_to_multiple,set_hardware_rng_ops,verify_matching_vocabs}
    utils.TrainStateInitializer.{from_checkpoint,from_checkpoint_or_scratch,from_checkpoints}
    utils.TrainStateInitializer.from_scratch
    examples.t5.network.{T5Config,Transformer} examples.scalable_t5.network.{T5Config,Transformer}
    examples.decoder_only.network.{DecoderWrapper,TransformerConfig}
"""


@pytest.mark.parametrize("line", NAMES.split())
def test_name_is_here(line):
    prefix, _, names = line.partition("{")
    for name in names.rstrip("}").split(","):
        assert pkgutil.resolve_name(f"t5x.{prefix}{name}".rstrip(".")) is not None
