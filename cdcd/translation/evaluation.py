"""Error rates of words spoken by runs of configs/cdcd/pronunciation*.gin, in one table.

    print(evaluate(["runs/pronunciation", "runs/pronunciation_ar"]).render())

PER and WER are error rates of phonemes and of words; a prediction is compared with the nearest of a
word's pronunciations. Intervals are of 95 %, by bootstrap of words.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdcd.runs import load_run
from cdcd.translation.mbr import UTILITIES, choose
from cdcd.translation.pronunciation import pronunciation_errors
from musax.metrics import Progress, no_progress
from musax.metrics.bootstrap import bootstrap_mean
from musax.runs import TrainedRun
from musax.tables import Report, Table
from t5x.data.pipeline import task_examples
from t5x.decoding import beam_search, temperature_sample
from t5x.models import EncoderDecoderModel

#: Phonemes of predictions: of each word, each sample.
Samples = list[list[list[str]]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How words are spoken.

    Attributes:
      samples: of each word, of which one is chosen by minimum Bayes risk; a row for each number.
      utilities: keys of `UTILITIES`, by which it is chosen.
      guidance, temperatures: of diffusion, rows each.
      steps: of the sampler of diffusion.
      beams: of beam search, of the autoregressive model.
      batch_size: samples at a time.
      seed: of random numbers.
    """

    samples: Sequence[int] = (1, 10, 50)
    utilities: Sequence[str] = ("edit_distance",)
    guidance: Sequence[float] = (1.0,)
    temperatures: Sequence[float] = (1.0,)
    steps: int = 50
    beams: int = 4
    batch_size: int = 1000
    seed: int = 0


class Words(NamedTuple):
    """Words to speak.

    Attributes:
      inputs: int32 [N, T].
      spoken: the phonemes of all pronunciations of each word.
    """

    inputs: np.ndarray
    spoken: list[list[list[str]]]


def read_words(run: TrainedRun, split: str, limit: int | None) -> Words:
    """Read words, spread over a split."""
    examples = list(task_examples(run.evaluate_task, split, seed=0))
    if limit is not None and limit < len(examples):
        examples = [examples[i] for i in np.linspace(0, len(examples) - 1, limit).astype(int)]
    inputs = np.zeros((len(examples), max(len(x["inputs"]) for x in examples)), np.int32)
    for row, example in zip(inputs, examples):
        row[: len(example["inputs"])] = example["inputs"]
    spoken = [[v.split() for v in x["pronunciations"].split("\n")] for x in examples]
    return Words(inputs, spoken)


def in_batches(
    predict: Any, run: TrainedRun, words: Words, samples: int, options: Decoding
) -> Samples:
    """Return the phonemes of all words by `predict(inputs, rng)`, ids int [B, samples, L]."""
    vocabulary = run.evaluate_task.output_features["targets"].vocabulary
    size = min(max(options.batch_size // samples, 1), len(words.inputs))
    decoded: Samples = []
    for first in range(0, len(words.inputs), size):
        part = words.inputs[first : first + size]
        full = jnp.asarray(np.resize(part, (size, part.shape[1])))
        ids = np.asarray(predict(full, jax.random.fold_in(jax.random.key(options.seed), first)))
        decoded += [[vocabulary.decode(row).split() for row in word] for word in ids[: len(part)]]
    return decoded


# --------------------------------------------------------------------------------------- decoding


def diffusion(run: TrainedRun, words: Words, options: Decoding) -> Iterator[tuple]:
    """Yield (decoding, phonemes of each word) of continuous diffusion."""
    for guidance in options.guidance:
        for temperature in options.temperatures:
            predict = functools.partial(
                run.model.translate,
                run.params,
                num_decodes=max(options.samples),
                steps=options.steps,
                guidance=guidance,
                score_temperature=temperature,
            )
            drawn = in_batches(predict, run, words, max(options.samples), options)
            for name, chosen in best_of(drawn, options):
                yield f"guidance {guidance:g}, T {temperature:g}, {name}", chosen


def autoregressive(run: TrainedRun, words: Words, options: Decoding) -> Iterator[tuple]:
    """Yield the same of the autoregressive model, whose samples are of its own distribution."""

    def decode(function: Any, **settings: Any) -> Samples:
        model = EncoderDecoderModel(run.model.module, None, None, None, decode_fn=function)

        @jax.jit
        def predict(params: Any, inputs: jax.Array, rng: jax.Array) -> jax.Array:
            start = jnp.zeros((inputs.shape[0], run.length), jnp.int32)
            batch = {"encoder_input_tokens": inputs, "decoder_input_tokens": start}
            return model.predict_batch_with_aux(
                params, batch, rng, return_all_decodes=True, **settings
            )[0]

        count = settings["num_decodes"]
        return in_batches(functools.partial(predict, run.params), run, words, count, options)

    greedy = functools.partial(temperature_sample, temperature=0.0)
    yield "greedy", [word[-1] for word in decode(greedy, num_decodes=1)]
    yield (
        f"beam search, {options.beams}",
        [word[-1] for word in decode(beam_search, num_decodes=options.beams)],
    )
    drawn = decode(temperature_sample, num_decodes=max(options.samples))
    # They are in the order of their scores.
    rng = np.random.default_rng(options.seed)
    yield from best_of([[word[i] for i in rng.permutation(len(word))] for word in drawn], options)


def best_of(samples: Samples, options: Decoding) -> Iterator[tuple]:
    """Yield (decoding, phonemes of each word) by minimum Bayes risk among the first samples."""
    for count in sorted(options.samples):
        groups = [word[:count] for word in samples]
        for utility in options.utilities if count > 1 else options.utilities[:1]:
            best = choose(groups, UTILITIES[utility])
            name = f"best of {count} by {utility}" if count > 1 else "one sample"
            yield name, [group[i] for group, i in zip(groups, best)]


# ---------------------------------------------------------------------------------------- results


def scores(words: Words, predicted: list[list[str]]) -> dict[str, float]:
    """Return error rates, that of words with its interval."""
    pairs = zip(words.spoken, predicted)
    wrong = np.array([spoken not in variants for variants, spoken in pairs], np.float64)
    found = pronunciation_errors(words.spoken, predicted)
    _, low, high = bootstrap_mean(wrong)
    return {
        "PER": found["phoneme_error_rate"],
        "WER": found["word_error_rate"],
        "WER from": low,
        "WER to": high,
    }


def evaluate(
    run_dirs: Sequence[str],
    *,
    step: int | None = None,
    split: str = "test",
    limit: int | None = None,
    options: Decoding = Decoding(),
    progress: Progress = no_progress,
) -> Report:
    """Measure the error rates of runs by each way of decoding.

    Args:
      run_dirs: MODEL_DIRs of runs.
      step: of the checkpoints; None for the last.
      split: "train", "validation" or "test".
      limit: words, spread over the split; None for all.
      options: of decoding.
      progress: called after each way of decoding.

    Raises:
      FileNotFoundError: no such run or checkpoint.
      ValueError: a run is not one of pronunciation, or an option is out of range.
    """
    rows: list[dict[str, Any]] = []
    decodings = {"TranslationModel": diffusion, "EncoderDecoderModel": autoregressive}
    for done, folder in enumerate(run_dirs, start=1):
        run = load_run(folder, step)
        kind = type(run.model).__name__
        if kind not in decodings:
            raise ValueError(
                f"{folder}: its model is a {kind}; expected a run of "
                "configs/cdcd/pronunciation.gin or pronunciation_ar.gin"
            )
        words = read_words(run, split, limit)
        name = f"{Path(folder).resolve().name}, {run.step} steps"
        for decoding, predicted in decodings[kind](run, words, options):
            rows.append({"model": name, "decoding": decoding, **scores(words, predicted)})
            progress(f"{name}, {decoding}", done, len(run_dirs))
    rates = {"PER": _percent, "WER": _percent, "WER from": _percent, "WER to": _percent}
    return Report([Table(f"{split} split", rows, rates)], rows)


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"
