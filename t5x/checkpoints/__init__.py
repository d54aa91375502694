"""Checkpoints: written with Orbax; read from Orbax, legacy T5X folders and safetensors.

manager = CheckpointManager(model_dir, keep=3)        # training
params = load_params("pretrained/mt3/model.safetensors")  # inference, any of the three formats
params, fields = load_hugging_face("t5-v1_1-small")   # a folder of transformers
check_params(params, expected)                        # says what is missing or of another shape
"""

from typing import TYPE_CHECKING

from t5x.checkpoints.huggingface import load_hugging_face, save_hugging_face
from t5x.checkpoints.loading import (
    CheckpointError,
    check_finite,
    check_params,
    checkpoint_kind,
    latest_checkpoint,
    load_params,
    load_state,
    load_t5x_checkpoint,
)
from t5x.checkpoints.orbax import CheckpointManager
from t5x.checkpoints.retention import Checkpointer, SaveBestCheckpointer
from t5x.checkpoints.safetensors import load_safetensors, save_safetensors
from t5x.checkpoints.scanning import scan_params, unscan_params
from t5x.checkpoints.steps import all_steps, get_checkpoint_dir, latest_step
from t5x.checkpoints.transformations import RestoreStateTransformationFn, SaveStateTransformationFn
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

#: Upstream's name; configurations may name it as `checkpoint_manager_cls`.
OrbaxCheckpointManagerInterface = CheckpointManager

__all__ = [
    "CheckpointError",
    "CheckpointManager",
    "Checkpointer",
    "OrbaxCheckpointManagerInterface",
    "RestoreStateTransformationFn",
    "SaveBestCheckpointer",
    "SaveStateTransformationFn",
    "all_steps",
    "check_finite",
    "check_params",
    "checkpoint_kind",
    "get_checkpoint_dir",
    "latest_checkpoint",
    "latest_step",
    "load_hugging_face",
    "load_params",
    "load_safetensors",
    "load_state",
    "load_t5x_checkpoint",
    "save_hugging_face",
    "save_safetensors",
    "scan_params",
    "unscan_params",
]
