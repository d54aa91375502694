"""Predict or score a whole data set: `python -m t5x.infer --gin_file=...`.

The output is written in chunks (see `t5x.inference.chunks`): killed and started again, inference
goes on with the first example that is not in a whole chunk. Lines are in the order of the split
and carry the index of their example.
"""

if __name__ == "__main__":  # before the imports that take long
    from t5x import interrupts

    interrupts.end_the_process()

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from t5x import command_line, gin_utils, utils
from t5x.checkpoints.loading import checkpoint_step
from t5x.files import check_local
from t5x.inference.chunks import Chunks, MergeFn, merge_chunks_to_file
from t5x.inference.data import BatchMaker, make_readers, take
from t5x.inference.examples import infer_examples
from t5x.inference.states import InferenceStates
from t5x.inference.tasks import create_task_from_text_file, create_task_from_tfexample_file
from t5x.inference.writing import write_inferences_to_file
from t5x.training.dry_run import describe_inference
from t5x.training.evaluations import prediction_functions
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

__all__ = [
    "create_task_from_text_file",
    "create_task_from_tfexample_file",
    "infer",
    "merge_chunks_to_file",
    "write_inferences_to_file",
]

_FUNCTIONS = {
    "predict": "predict_fn",
    "score": "score_fn",
    "predict_with_aux": "predict_with_aux_fn",
}


def infer(
    *,
    mode: str,
    model: Any,
    dataset_cfg: utils.DatasetConfig,
    restore_checkpoint_cfg: utils.RestoreCheckpointConfig,
    partitioner: Any,
    output_dir: str,
    checkpoint_period: int,
    shard_id: int = 0,
    num_shards: int = 1,
    merge_chunked_results: bool = True,
    write_fn: Callable[..., None] = write_inferences_to_file,
    checkpoint_ds_iter: bool = True,
    train_state_initializer_cls: Callable[..., Any] = utils.TrainStateInitializer,
    fallback_init_rng: int | None = None,
    merge_fn: MergeFn = merge_chunks_to_file,
    summarize_config_fn: Callable[..., None] | None = gin_utils.summarize_gin_config,
    output_vocab_feature_name: str | None = "targets",
    file_extension: str = "jsonl",
    keep_aux_as_numpy: bool = False,
    use_orbax: bool = True,
    dry_run: bool = False,
) -> list[str]:
    """Infer every example of the task, or of each task of the mixture, once.

    Args:
      mode: "predict", "score" (log-likelihood of the targets) or "predict_with_aux".
      model: see `t5x.models.BaseModel`.
      dataset_cfg: the data; its features are not packed, and keep their lengths.
      restore_checkpoint_cfg: the checkpoint; of several, each has a folder `checkpoint_<step>`.
      partitioner: the mesh and its rules.
      output_dir: folder of the results, `<task>-<mode>.jsonl-<shard>-of-<shards>`.
      checkpoint_period: batches in a chunk.
      shard_id: this job takes the examples shard_id, shard_id + num_shards, ...
      num_shards: jobs that share the data.
      merge_chunked_results: join the chunks in the end; otherwise they stay in their folder.
      write_fn: called as f(path, (results, aux), examples, mode, vocabulary) for every chunk; an
        example has its `_id`.
      checkpoint_ds_iter: of upstream; the place in the data is always saved, as two numbers.
      train_state_initializer_cls: makes the state.
      fallback_init_rng: seed of what the checkpoint lacks, with `fallback_to_scratch`.
      merge_fn: called as f(paths of the chunks, path of the output).
      summarize_config_fn: called as f(output_dir, None, 0) to record the configuration.
      output_vocab_feature_name: feature whose vocabulary decodes predictions; None leaves ids.
      file_extension: of the output.
      keep_aux_as_numpy: hand auxiliary values to `write_fn` as arrays rather than lists.
      use_orbax: of upstream; the format of a checkpoint is found out.
      dry_run: build everything, print it and infer nothing.

    Returns:
      The output files (folders of chunks, if they are not merged).

    Raises:
      CheckpointError: there is no checkpoint, or it does not fit the model.
      ValueError: an argument that does not fit, or a task in another vocabulary than the model's;
        the message says which.
    """
    del checkpoint_ds_iter, use_orbax
    _check(mode, checkpoint_period, dataset_cfg)
    check_local(output_dir, "infer.output_dir")
    folder = Path(os.path.expanduser(output_dir)).absolute()
    first_process = jax.process_index() == 0
    partitioner.get_data_layout(dataset_cfg.batch_size)  # raises if the mesh does not divide it
    utils.verify_matching_vocabs(dataset_cfg, model)

    # ------------------------------------------------------------ data and parameters
    readers = make_readers(dataset_cfg, shard_id, num_shards)
    converter = model.FEATURE_CONVERTER_CLS(pack=False)
    batches = BatchMaker(converter, dataset_cfg.task_feature_lengths, dataset_cfg.batch_size)
    spec = _batch_spec(readers, batches)
    states = InferenceStates(
        model,
        partitioner,
        spec,
        restore_checkpoint_cfg,
        fallback_init_rng,
        train_state_initializer_cls,
    )
    if dry_run:
        shape = states.initializer.global_train_state_shape
        print(describe_inference(shape, partitioner, spec, states.paths))
        return []
    if summarize_config_fn is not None and first_process:
        summarize_config_fn(str(folder), None, 0)

    # ------------------------------------------------------------ checkpoint by checkpoint
    function = prediction_functions(model, partitioner)[_FUNCTIONS[mode]]
    job = _Job(mode, function, batches, checkpoint_period, write_fn, keep_aux_as_numpy)
    outputs = []
    for path in states.paths:
        where = folder if len(states.paths) == 1 else folder / f"checkpoint_{checkpoint_step(path)}"
        params = None
        for reader in readers:
            name = f"{reader.name}-{mode}.{file_extension}-{shard_id:05}-of-{num_shards:05}"
            work = f"tmp-{reader.name}-{shard_id:05}-of-{num_shards:05}"
            settings = _settings(mode, dataset_cfg, reader, path, checkpoint_period)
            chunks = Chunks(where, work, name, settings, first_process)
            outputs.append(str(chunks.output if merge_chunked_results else chunks.work))
            with contextlib.closing(chunks):
                if not chunks.open():
                    _say(f"{chunks.output}: done before")
                    continue
                if params is None:
                    params = states.read(path).params
                vocabulary = _vocabulary(reader, output_vocab_feature_name)
                job.run(params, reader, chunks, vocabulary)
                chunks.finish(merge_fn if merge_chunked_results else None)
            _say(f"{outputs[-1]}: {chunks.examples} examples")
    return outputs


class _Job:
    """What is done with each chunk of examples."""

    def __init__(
        self,
        mode: str,
        function: Callable[..., Any],
        batches: BatchMaker,
        period: int,
        write_fn: Callable[..., None],
        keep_aux_as_numpy: bool,
    ):
        self._mode, self._function, self._batches = mode, function, batches
        self._period, self._write_fn = period, write_fn
        self._keep_aux = keep_aux_as_numpy

    def run(self, params: Any, reader: Any, chunks: Chunks, vocabulary: Any) -> None:
        """Infer what is not in `chunks` yet."""
        examples = reader.read(chunks.position)
        size = self._period * self._batches.batch_size
        start, before = time.perf_counter(), chunks.examples
        while read := take(examples, size):
            rows = [example for example, _ in read]
            key = jax.random.fold_in(jax.random.PRNGKey(0), chunks.count)
            results = infer_examples(
                self._function,
                params,
                self._batches,
                rows,
                None if self._mode == "score" else key,
                self._keep_aux,
            )
            if chunks.writer:
                path = chunks.path(chunks.count)
                self._write_fn(str(path), results, rows, self._mode, vocabulary)
            chunks.complete(len(rows), read[-1][1])
            pace = (chunks.examples - before) / (time.perf_counter() - start)
            _say(f"{reader.name}: {chunks.examples} examples  {pace:.3g}/s")


def _check(mode: str, checkpoint_period: int, cfg: utils.DatasetConfig) -> None:
    if mode not in _FUNCTIONS:
        raise gin_utils.GinError(f"infer.mode is {mode!r}; use one of {sorted(_FUNCTIONS)}.")
    if checkpoint_period < 1:
        raise gin_utils.GinError(
            f"infer.checkpoint_period is {checkpoint_period}; it counts batches."
        )
    if cfg.pack:
        raise gin_utils.GinError(
            "infer.dataset_cfg has pack=True; examples must have their own row."
        )
    if cfg.task_feature_lengths is None:
        raise gin_utils.GinError(
            "infer.dataset_cfg has no task_feature_lengths; give them, such as "
            "{'inputs': 512, 'targets': 114}."
        )


def _batch_spec(readers: Sequence[Any], batches: BatchMaker) -> dict[str, Any]:
    """{model feature: (shape, dtype)}, by the first example."""
    for reader in readers:
        for example, _ in reader.read():
            return {n: (x.shape, x.dtype) for n, x in batches.make([example]).items()}
    raise gin_utils.GinError(
        f"{[reader.name for reader in readers]} have no examples in this split and shard."
    )


def _settings(
    mode: str, cfg: utils.DatasetConfig, reader: Any, path: Path, period: int
) -> dict[str, Any]:
    """What must be the same for chunks to belong together."""
    return {
        "mode": mode,
        "task": reader.name,
        "split": cfg.split,
        "data": reader.data,
        "task_feature_lengths": dict(cfg.task_feature_lengths or {}),
        "shuffle": cfg.shuffle,
        "seed": cfg.seed,
        "use_cached": cfg.use_cached,
        "batch_size": cfg.batch_size,
        "checkpoint_period": period,
        "checkpoint": str(Path(path).absolute()),
    }


def _vocabulary(reader: Any, feature: str | None) -> Any:
    found = reader.output_features.get(feature) if feature else None
    return None if found is None else found.vocabulary


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)


# ---------------------------------------------------------------------- command line

_EXAMPLE = """python -m t5x.infer \\
      --gin_file=my_model.gin --gin_file=t5x/configs/runs/infer.gin \\
      --gin.MIXTURE_OR_TASK_NAME=my_task --gin.MIXTURE_OR_TASK_MODULE=my.tasks \\
      --gin.TASK_FEATURE_LENGTHS="{'inputs': 512, 'targets': 114}" \\
      --gin.CHECKPOINT_PATH=runs/first/checkpoint_10000 --gin.INFER_OUTPUT_DIR=predictions"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard_id", type=int, help="number of the shard, counted from 0; overrides infer.shard_id"
    )


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    return {} if args.shard_id is None else {"shard_id": args.shard_id}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return command_line.run(
        infer,
        argv,
        program="t5x.infer",
        description=__doc__,
        example=_EXAMPLE,
        add_flags=_add_flags,
        arguments=_arguments,
    )


if __name__ == "__main__":
    # The module under its own name, so that there is one `infer` however gin files import it.
    from t5x.infer import main as _main

    sys.exit(_main())
