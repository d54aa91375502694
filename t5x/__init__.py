"""A JAX trainer for sequence models, configured by gin, with the public names of t5x."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from t5x.moved import register_moved
from t5x.unsupported import UNSUPPORTED, explain_unsupported_modules, unsupported_names

# Module names of earlier versions.
register_moved(
    {
        "t5x.actions": "t5x.training.actions",
        "t5x.base_models": "t5x.models.base",
        "t5x.beam_search": "t5x.decoding.beam_search",
        "t5x.data.seqio_bridge": "t5x.data.seqio.bridge",
        "t5x.data.seqio_tasks": "t5x.data.seqio.tasks",
        "t5x.decode_cache": "t5x.decoding.cache",
        "t5x.decoder_only_model": "t5x.models.decoder_only",
        "t5x.device_prefetch": "t5x.data.prefetch",
        "t5x.dry_run": "t5x.training.dry_run",
        "t5x.evaluating": "t5x.training.evaluations",
        "t5x.export_saved_model": "t5x.inference.saved_model",
        "t5x.flops": "t5x.training.flops",
        "t5x.hardware": "t5x.training.flops",
        "t5x.json_lines": "t5x.files",
        "t5x.layers.caching": "t5x.layers.config",
        "t5x.logit_masks": "t5x.decoding.logit_masks",
        "t5x.model_metrics": "t5x.models.metrics",
        "t5x.preemption": "t5x.training.preemption",
        "t5x.profiling": "t5x.training.profiling",
        "t5x.run_state": "t5x.training.run",
        "t5x.run_stats": "t5x.training.stats",
        "t5x.sampling": "t5x.decoding.sampling",
        "t5x.seqio_evaluation": "t5x.data.seqio.evaluation",
        "t5x.token_stream": "t5x.decoding.token_stream",
        "t5x.weight_metrics": "t5x.training.weight_metrics",
    }
)
explain_unsupported_modules()


def _submodule(name: str) -> Any:
    """Import a submodule on first use, as `t5x.models` after `import t5x`."""
    full = f"{__name__}.{name}"
    if name.startswith("_") or full in UNSUPPORTED or importlib.util.find_spec(full) is None:
        return unsupported_names(__name__)(name)
    return importlib.import_module(full)


if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = _submodule
