#!/usr/bin/env python
"""Error rates of words spoken by runs of configs/cdcd/pronunciation*.gin, in one table.

Examples:
  # one sample, and the best of 10 and 50 by minimum Bayes risk; greedy and beam search beside them
  scripts/evaluate_pronunciation.py --run runs/pronunciation --run runs/pronunciation_ar

  # what guidance and a sharper score do, on some of the words
  scripts/evaluate_pronunciation.py --run runs/pronunciation --limit 300 \\
      --guidance 1 2 4 --temperatures 1 0.8

PER and WER are error rates of phonemes and of words, a prediction being compared with the
pronunciation that it is nearest to. Intervals are of 95 %, by bootstrap of words.
"""

import argparse
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from cdcd.mbr import UTILITIES, choose
from cdcd.pronunciation import pronunciation_errors
from cdcd.runs import TrainedRun, load_run
from musax.metrics.bootstrap import bootstrap_mean
from t5x.data.examples import task_examples
from t5x.decoding import beam_search, temperature_sample
from t5x.files import write_json
from t5x.models import EncoderDecoderModel

#: Phonemes of predictions: of each word, each sample.
Samples = list[list[list[str]]]


class Words(NamedTuple):
    """What is to be spoken.

    Attributes:
      inputs: int32 [N, T].
      spoken: the phonemes of all pronunciations of each word.
    """

    inputs: np.ndarray
    spoken: list[list[list[str]]]


def read_words(run: TrainedRun, split: str, limit: int | None) -> Words:
    """Words of a split, spread over it."""
    examples = list(task_examples(run.evaluate_task, split, seed=0))
    if limit is not None and limit < len(examples):
        examples = [examples[i] for i in np.linspace(0, len(examples) - 1, limit).astype(int)]
    inputs = np.zeros((len(examples), max(len(x["inputs"]) for x in examples)), np.int32)
    for row, example in zip(inputs, examples):
        row[: len(example["inputs"])] = example["inputs"]
    spoken = [[v.split() for v in x["pronunciations"].split("\n")] for x in examples]
    return Words(inputs, spoken)


def in_batches(
    predict: Any, run: TrainedRun, words: Words, samples: int, args: argparse.Namespace
) -> Samples:
    """Phonemes that `predict(inputs, rng)`, int [B, samples, L], makes of all words."""
    vocabulary = run.evaluate_task.output_features["targets"].vocabulary
    size = min(max(args.batch_size // samples, 1), len(words.inputs))
    made: Samples = []
    for first in range(0, len(words.inputs), size):
        part = words.inputs[first : first + size]
        full = jnp.asarray(np.resize(part, (size, part.shape[1])))
        ids = np.asarray(predict(full, jax.random.fold_in(jax.random.key(args.seed), first)))
        made += [[vocabulary.decode(row).split() for row in word] for word in ids[: len(part)]]
    return made


# --------------------------------------------------------------------------------------- decoding


def diffusion(run: TrainedRun, words: Words, args: argparse.Namespace) -> Iterator[tuple]:
    """(decoding, phonemes of each word) of continuous diffusion."""
    for guidance in args.guidance:
        for temperature in args.temperatures:
            predict = functools.partial(
                run.model.translate,
                run.params,
                num_decodes=max(args.samples),
                steps=args.steps,
                guidance=guidance,
                score_temperature=temperature,
            )
            made = in_batches(predict, run, words, max(args.samples), args)
            for name, chosen in best_of(made, args):
                yield f"guidance {guidance:g}, T {temperature:g}, {name}", chosen


def autoregressive(run: TrainedRun, words: Words, args: argparse.Namespace) -> Iterator[tuple]:
    """The same of the autoregressive model; its samples are of its own distribution."""

    def decode(function: Any, **options: Any) -> Samples:
        model = EncoderDecoderModel(run.model.module, None, None, None, decode_fn=function)

        @jax.jit
        def predict(params: Any, inputs: jax.Array, rng: jax.Array) -> jax.Array:
            start = jnp.zeros((inputs.shape[0], run.length), jnp.int32)
            batch = {"encoder_input_tokens": inputs, "decoder_input_tokens": start}
            return model.predict_batch_with_aux(
                params, batch, rng, return_all_decodes=True, **options
            )[0]

        count = options["num_decodes"]
        return in_batches(functools.partial(predict, run.params), run, words, count, args)

    greedy = functools.partial(temperature_sample, temperature=0.0)
    yield "greedy", [word[-1] for word in decode(greedy, num_decodes=1)]
    yield (
        f"beam search, {args.beams}",
        [word[-1] for word in decode(beam_search, num_decodes=args.beams)],
    )
    made = decode(temperature_sample, num_decodes=max(args.samples))
    # They are in the order of their scores.
    rng = np.random.default_rng(args.seed)
    yield from best_of([[word[i] for i in rng.permutation(len(word))] for word in made], args)


def best_of(made: Samples, args: argparse.Namespace) -> Iterator[tuple]:
    """(decoding, phonemes of each word) by minimum Bayes risk, of the first so many samples."""
    for count in sorted(args.samples):
        groups = [word[:count] for word in made]
        for utility in args.utility if count > 1 else args.utility[:1]:
            best = choose(groups, UTILITIES[utility])
            name = f"best of {count} by {utility}" if count > 1 else "one sample"
            yield name, [group[i] for group, i in zip(groups, best)]


# -------------------------------------------------------------------------------------- reporting


def scores(words: Words, predicted: list[list[str]]) -> dict[str, float]:
    """Error rates, that of words with its interval."""
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


def evaluate(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each run and way of decoding."""
    rows = []
    for folder in args.run:
        run = load_run(folder, args.step)
        kind = type(run.model).__name__
        decodings = {"TranslationModel": diffusion, "EncoderDecoderModel": autoregressive}
        if kind not in decodings:
            raise ValueError(
                f"{folder}: its model is a {kind}; expected a run of "
                "configs/cdcd/pronunciation.gin or pronunciation_ar.gin"
            )
        words = read_words(run, args.split, args.limit)
        name = f"{Path(folder).resolve().name}, {run.step} steps"
        for decoding, predicted in decodings[kind](run, words, args):
            rows.append({"model": name, "decoding": decoding, **scores(words, predicted)})
            Console(stderr=True).print(f"{decoding}: WER {rows[-1]['WER']:.3f}", highlight=False)
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table(title=title, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(x if isinstance(x, str) else f"{100 * x:.1f} %" for x in row.values()))
    Console(width=max(Console().width, 120)).print(table)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return number


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", action="append", required=True, metavar="RUN_DIR", help="MODEL_DIR of a run")
    add("--step", type=int, help="of the checkpoint; the last by default")
    add("--split", default="test", choices=("train", "validation", "test"))
    add("--limit", type=positive, help="words of the split; all by default")
    add("--samples", type=positive, nargs="+", default=[1, 10, 50], help="of each word (1 10 50)")
    add("--utility", nargs="+", choices=UTILITIES, default=["edit_distance"])
    add("--guidance", type=float, nargs="+", default=[1.0], help="of diffusion (1)")
    add("--temperatures", type=float, nargs="+", default=[1.0], help="of the score (1)")
    add("--steps", type=positive, default=50, help="of the sampler (50)")
    add("--beams", type=positive, default=4, help="of beam search (4)")
    add("--batch_size", type=positive, default=1000, help="samples at a time (1000)")
    add("--seed", type=int, default=0)
    add("--json", metavar="FILE", help="writes all numbers")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the evaluation that the command line asks for."""
    args = parse(arguments)
    try:
        rows = evaluate(args)
        show(f"{args.split} split", rows)
        if args.json:
            write_json(args.json, rows)
    except (ValueError, OSError) as error:
        raise SystemExit(f"evaluate_pronunciation: {error}") from error


if __name__ == "__main__":
    main()
