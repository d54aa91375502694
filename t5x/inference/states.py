"""A model's parameters for evaluation, inference and export: no optimizer, any checkpoint."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from t5x.checkpoints.loading import checkpoint_step, find_checkpoint
from t5x.gin_utils import GinError
from t5x.restoring import TrainStateInitializer, checkpoint_paths
from t5x.utils import RestoreCheckpointConfig

FeatureSpec = Mapping[str, tuple[tuple[int, ...], Any]]


class InferenceStates:
    """The states that a restore configuration means, one at a time.

    Args:
      model: see `t5x.models.BaseModel`.
      partitioner: lays out the parameters.
      spec: {model feature: (shape, dtype)} of a batch.
      cfg: which checkpoints, and how they are read.
      fallback_init_rng: seed of what the checkpoint lacks; only with
        `cfg.fallback_to_scratch`.
      initializer_cls: makes the `TrainStateInitializer`.

    Attributes:
      paths: the checkpoints, by step.
      initializer: knows shapes and layout of the state.

    Raises:
      CheckpointError: there is no checkpoint.
      GinError: `fallback_to_scratch` without a seed.
    """

    def __init__(
        self,
        model: Any,
        partitioner: Any,
        spec: FeatureSpec,
        cfg: RestoreCheckpointConfig,
        fallback_init_rng: int | None = None,
        initializer_cls: Callable[..., TrainStateInitializer] = TrainStateInitializer,
    ):
        if cfg.fallback_to_scratch and fallback_init_rng is None:
            raise GinError(
                "RestoreCheckpointConfig.fallback_to_scratch initializes what the checkpoint "
                "lacks, so it needs a seed: set fallback_init_rng to a number."
            )
        self._cfg = cfg
        self._seed = fallback_init_rng or 0
        self.paths = find_checkpoints(cfg)
        self.initializer = initializer_cls(
            optimizer_def=None,
            init_fn=model.get_initial_variables,
            input_shapes={name: shape for name, (shape, _) in spec.items()},
            input_types={name: dtype for name, (_, dtype) in spec.items()},
            partitioner=partitioner,
            model=model,
        )

    def read(self, path: str | Path) -> Any:
        """The state of one checkpoint, on the mesh.

        Raises:
          CheckpointError: it does not fit the model.
        """
        return self.initializer.from_config(self._cfg, path, jax.random.PRNGKey(self._seed))

    def __iter__(self) -> Iterator[tuple[Path, int, Any]]:
        """(path, step, state) of every checkpoint."""
        for path in self.paths:
            yield path, checkpoint_step(path), self.read(path)


def find_checkpoints(cfg: RestoreCheckpointConfig) -> list[Path]:
    """The checkpoints of a restore configuration, by step, each once.

    Raises:
      GinError: the configuration names none.
    """
    if not cfg.path:
        raise GinError(
            "RestoreCheckpointConfig.path is empty, but there is nothing to do without a "
            "checkpoint: set it to a checkpoint_<step> folder, a run's folder or a .safetensors "
            "file."
        )
    found = [find_checkpoint(path) for path in checkpoint_paths(cfg.path, cfg.mode)]
    return sorted(dict.fromkeys(found), key=checkpoint_step)
