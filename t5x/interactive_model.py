"""A model to train, to ask and to evaluate on lists of examples, as in a notebook.

    model = InteractiveModel(
        model=EncoderDecoderModel(...),  # its vocabularies encode and decode the text
        task_feature_lengths={"inputs": 32, "targets": 32},
        batch_size=8,
        learning_rate_fn=1e-3,
    )
    model.train_loop(100, [{"inputs": "abc", "targets": "cba"}, ...])
    model.predict(["hello"])  # [("hello", "olleh")]

An example is a dict of features: text, token ids or, for continuous features, frames. A string
stands for {"inputs": string}.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from t5x import data
from t5x.data.examples import task_examples
from t5x.data.packing import axis_limits
from t5x.data.preprocessors import append_eos_after_trim, tokenize_text
from t5x.inference.data import BatchMaker
from t5x.inference.examples import infer_examples
from t5x.inference.writing import decoded
from t5x.partitioning import BasePartitioner, PjitPartitioner
from t5x.trainer import Trainer
from t5x.training.evaluations import prediction_functions
from t5x.unsupported import unsupported_names
from t5x.utils import RestoreCheckpointConfig, TrainStateInitializer

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

Example = str | Mapping[str, Any]
_NAME = "interactive"


class InteractiveModel:
    """A model with its state, for examples given as Python lists.

    Args:
      model: see `t5x.models.BaseModel`.
      task_feature_lengths: {task feature: length}; longer features are cut.
      batch_size: rows of every batch; missing ones are filled with padding.
      learning_rate_fn: step -> learning rate, or a constant.
      output_dir: folder of checkpoints and logs. If it has checkpoints, the latest is restored.
      checkpoint_path: the checkpoint to start from otherwise, of any format; None initializes.
      restore_mode: "specific" or "latest", see `t5x.utils.RestoreCheckpointConfig`.
      dtype: parameters are rounded to it when they are read.
      partitioner: lays out the state; None uses `PjitPartitioner(1)`.
      init_random_seed: seed of the initial parameters, and of dropout.
      input_shapes: {model feature: shape of a batch}; None derives them from the lengths. Needed
        where a model asks for more than the first axes of its features.
      input_types: {model feature: dtype}, with `input_shapes`.
      features: {task feature: `t5x.data.Feature`}; None encodes "inputs" with the model's
        `input_vocabulary`, and everything else with its `output_vocabulary`.
      add_eos: whether these features end with EOS.
      preprocessors: functions from an example to examples, see `t5x.data.preprocessors`; None
        encodes text and appends EOS.

    Attributes:
      model, partitioner: as given.
      train_summary: metrics of the last training steps.

    Raises:
      CheckpointError: a checkpoint does not exist, or does not fit the model.
      ValueError: features without a length, or the batch does not divide over the devices.
    """

    def __init__(
        self,
        *,
        model: Any,
        task_feature_lengths: Mapping[str, Any],
        batch_size: int = 8,
        learning_rate_fn: Callable[[Any], Any] | float = 1e-3,
        output_dir: str | Path | None = None,
        checkpoint_path: str | Path | None = None,
        restore_mode: str = "latest",
        dtype: str | None = "float32",
        partitioner: BasePartitioner | None = None,
        init_random_seed: int = 42,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
        input_types: Mapping[str, Any] | None = None,
        features: Mapping[str, data.Feature] | None = None,
        add_eos: bool = True,
        preprocessors: Sequence[Callable[..., Any]] | None = None,
    ):
        self.model = model
        self.partitioner = partitioner or PjitPartitioner(1)
        self.partitioner.get_data_layout(batch_size)  # raises if the mesh does not divide it
        self.train_summary: dict[str, float] = {}
        self._lengths = dict(task_feature_lengths)
        self._batch_size = batch_size
        self._output_dir = output_dir
        converter = model.FEATURE_CONVERTER_CLS(pack=False)
        self._batches = BatchMaker(converter, self._lengths, batch_size)
        self._features = dict(features or _features(model, converter, self._lengths, add_eos))
        self._preprocessors = preprocessors or (tokenize_text, append_eos_after_trim)
        if input_shapes is None:
            input_shapes, input_types = _batch_spec(converter, self._lengths, batch_size)
        initializer = TrainStateInitializer(
            optimizer_def=model.optimizer_def,
            init_fn=model.get_initial_variables,
            input_shapes=input_shapes,
            input_types=input_types,
            partitioner=self.partitioner,
        )
        init_rng, trainer_rng = jax.random.split(jax.random.PRNGKey(init_random_seed))
        sources = [
            RestoreCheckpointConfig(path=str(path), mode=mode, dtype=dtype)
            for path, mode in ((output_dir, "latest"), (checkpoint_path, restore_mode))
            if path is not None
        ]
        self._trainer = Trainer(
            model,
            initializer.from_checkpoint_or_scratch(sources, init_rng=init_rng),
            self.partitioner,
            summary_dir=None if output_dir is None else str(output_dir),
            train_state_axes=initializer.train_state_axes,
            rng=trainer_rng,
            learning_rate_fn=_schedule(learning_rate_fn),
        )
        self._functions = prediction_functions(model, self.partitioner)

    @property
    def train_state(self) -> Any:
        """The current state; the next training step takes its memory."""
        return self._trainer.train_state

    @property
    def step(self) -> int:
        """Number of updates done."""
        return int(self.train_state.step)

    # ------------------------------------------------------------------ training

    def train_step(self, examples: Sequence[Example]) -> dict[str, float]:
        """Update the parameters once, by at most a batch of examples.

        Returns:
          The step's metrics, {name: value}.

        Raises:
          ValueError: no examples, or more than a batch.
        """
        rows = self._preprocess(examples)
        if not 0 < len(rows) <= self._batch_size:
            raise ValueError(
                f"train_step takes 1 to batch_size={self._batch_size} examples, got {len(rows)}; "
                "train_loop takes any number."
            )
        return self.train_step_from_batch_iterator(iter([self._batches.make(rows)]))

    def train_step_from_batch_iterator(
        self, iterator: Iterator[Mapping[str, np.ndarray]]
    ) -> dict[str, float]:
        """Update the parameters once, by the next batch of model features; return the metrics."""
        self.train_summary = self._trainer.train(iterator, 1)  # type: ignore[arg-type]
        return self.train_summary

    def train_loop(
        self,
        num_steps: int,
        examples: Sequence[Example],
        *,
        eval_period: int | None = None,
        eval_examples: Sequence[Example] = (),
        metric_fns: Sequence[Callable[..., Mapping[str, Any]]] = (),
        postprocess_fn: Callable[..., Any] | None = None,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Train for a number of steps, with evaluations on the way.

        Args:
          num_steps: updates.
          examples: training examples, drawn in random order, each once before any comes again.
          eval_period: steps between evaluations; None evaluates at the end only.
          eval_examples: see `evaluate`; without any there are no evaluations.
          metric_fns: see `evaluate`.
          postprocess_fn: see `evaluate`.
          seed: of the order.

        Returns:
          For each period {"step": step, "train": metrics[, "eval": metrics]}.

        Raises:
          ValueError: no examples.
        """
        if not examples:
            raise ValueError("train_loop needs examples to train on, got none.")
        batches = data.get_dataset(
            self._task(examples),
            self._lengths,
            _NAME,
            self._batch_size,
            seed=seed,
            feature_converter=self.model.FEATURE_CONVERTER_CLS(pack=False),
        )
        history: list[dict[str, Any]] = []
        try:
            done = 0
            while done < num_steps:
                count = min(eval_period or num_steps, num_steps - done)
                self.train_summary = self._trainer.train(batches, count)  # type: ignore[arg-type]
                done += count
                history.append({"step": self.step, "train": self.train_summary})
                if eval_examples:
                    measured = self.evaluate(eval_examples, metric_fns, postprocess_fn)
                    history[-1]["eval"] = measured
        finally:
            batches.close()
        return history

    def save_checkpoint(self) -> str:
        """Write the state to `output_dir/checkpoint_<step>`; return this folder.

        Raises:
          ValueError: there is no `output_dir`.
        """
        from t5x.checkpoints import CheckpointManager, get_checkpoint_dir

        if self._output_dir is None:
            raise ValueError("save_checkpoint needs a folder: give InteractiveModel an output_dir.")
        manager = CheckpointManager(self._output_dir)
        manager.save(self.step, self.train_state.state_dict())
        manager.wait()
        manager.close()
        return get_checkpoint_dir(self._output_dir, self.step)

    # ------------------------------------------------------------------ inference

    def predict(self, examples: Sequence[Example], seed: int = 0) -> list[tuple[Example, Any]]:
        """Return pairs (example, prediction), decoded by the vocabulary of the targets.

        Args:
          examples: any number of examples; their targets may be left out.
          seed: of sampling.
        """
        return self._infer("predict_fn", examples, jax.random.PRNGKey(seed))[0]

    def predict_with_aux(
        self, examples: Sequence[Example], seed: int = 0
    ) -> tuple[list[tuple[Example, Any]], dict[str, list]]:
        """Return the pairs of `predict`, and {name: one value an example}, such as "scores"."""
        return self._infer("predict_with_aux_fn", examples, jax.random.PRNGKey(seed))

    def score(self, examples: Sequence[Example]) -> list[tuple[Example, float]]:
        """Return pairs (example, log-likelihood of its targets in nats).

        Raises:
          ValueError: an example without targets.
        """
        for number, example in enumerate(examples):
            if isinstance(example, str) or "targets" not in example:
                raise ValueError(f"score: example {number} has no 'targets' to score: {example!r}")
        return self._infer("score_fn", examples, None)[0]

    def evaluate(
        self,
        examples: Sequence[Example],
        metric_fns: Sequence[Callable[..., Mapping[str, Any]]] = (),
        postprocess_fn: Callable[..., Any] | None = None,
    ) -> dict[str, Any]:
        """Return metrics of the examples: those of the model's loss, and of its predictions.

        Args:
          examples: any number of examples with targets.
          metric_fns: functions (targets, predictions[, aux_values]) or (targets, scores) that
            return {name: value}.
          postprocess_fn: `fn(value, example=..., is_target=bool)` applied to targets and decoded
            predictions before.

        Raises:
          ValueError: no examples.
        """
        rows = self._preprocess(examples)
        size = self._batch_size
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        batches = (self._batches.make(group) for group in groups)
        measured: dict[str, Any] = self._trainer.eval({_NAME: batches})[_NAME]  # type: ignore
        if not metric_fns:
            return measured
        evaluator = data.Evaluator(
            self._task(examples, metric_fns, postprocess_fn),
            self.model.FEATURE_CONVERTER_CLS(pack=False),
            _NAME,
            batch_size=size,
            sequence_length=self._lengths,
        )
        params = self.train_state.eval_params
        bound = {
            name: lambda batch, function=function: function(params, batch)
            for name, function in self._functions.items()
        }
        return measured | evaluator.evaluate(**bound)[_NAME]

    # ------------------------------------------------------------------ examples

    def _infer(
        self, name: str, examples: Sequence[Example], rng: jax.Array | None
    ) -> tuple[list[tuple[Example, Any]], dict[str, list]]:
        rows = self._preprocess(examples)
        if len(rows) != len(examples):
            raise ValueError(
                f"The preprocessors made {len(rows)} of {len(examples)} examples; inference needs "
                "one for each."
            )
        params = self.train_state.eval_params
        results, aux = infer_examples(self._functions[name], params, self._batches, rows, rng)
        if name == "score_fn":
            return list(zip(examples, map(float, results))), aux
        vocabulary = self._features["targets"].vocabulary
        return [(e, decoded(result, vocabulary)) for e, result in zip(examples, results)], aux

    def _preprocess(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        return list(task_examples(self._task(examples), _NAME, self._lengths))

    def _task(
        self,
        examples: Sequence[Example],
        metric_fns: Sequence[Callable[..., Any]] = (),
        postprocess_fn: Callable[..., Any] | None = None,
    ) -> data.Task:
        nothing = np.zeros(0, np.int32)
        given = [{"inputs": e} if isinstance(e, str) else dict(e) for e in examples]
        return data.Task(
            _NAME,
            {_NAME: [{"targets": nothing, **example} for example in given]},
            self._preprocessors,
            self._features,
            metric_fns,
            postprocess_fn,
        )


def _features(
    model: Any, converter: Any, lengths: Mapping[str, Any], add_eos: bool
) -> dict[str, data.Feature]:
    """The task features of a model: frames, or text in its vocabularies."""
    features: dict[str, data.Feature] = {}
    for name in lengths:
        spec = converter.TASK_FEATURES.get(name)
        if spec is not None and np.issubdtype(spec.dtype, np.floating):
            features[name] = data.ContinuousFeature(dtype=spec.dtype, rank=spec.rank)
        else:
            side = "input" if name == "inputs" else "output"
            features[name] = data.Feature(getattr(model, f"{side}_vocabulary"), add_eos)
    return features


def _batch_spec(
    converter: Any, lengths: Mapping[str, Any], batch_size: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Shapes of a batch, as far as the lengths say, and dtypes."""
    shapes = {
        name: (batch_size, *axis_limits(length))
        for name, length in converter.get_model_feature_lengths(lengths).items()
    }
    return shapes, {name: converter.MODEL_FEATURES[name].dtype for name in shapes}


def _schedule(learning_rate: Callable[[Any], Any] | float) -> Callable[[Any], Any]:
    if callable(learning_rate):
        return learning_rate
    return lambda step: np.float32(learning_rate)
