"""`musax evaluate score`: likelihoods of held-out data under models."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.evaluate.running import (
    add_models,
    check_folders,
    check_options_of,
    check_system,
    is_run,
)
from musax.commands.outputs import InputError

NAME, HELP = "score", "likelihood of held-out data"
DESCRIPTION = """\
Measure the likelihood of held-out data under training runs and models of one system: nats or bits
per token, with 95 % bootstrap intervals over whole sequences. A training run brings its data with
it; a model needs --data."""
EPILOG = """\
examples:
  musax evaluate score --model cdcd-melody --data data/lakh64
  # a run with less and less context, a plain decoder, and n-grams, in one table
  musax evaluate score --model runs/pop909 --model runs/pop909_decoder --context 256 1024 \\
      --latents 256 --baselines --buckets position --plot nats.png
  # in the blocks of the sampler
  musax evaluate score --model runs/pop909 --as-sampled
"""
SPLITS = ("train", "validation", "test")
CORPORA = ("pop909", "maestro", "asap", "giant_midi", "lakh", "lakh64_trios", "midi_folder")
BUCKETS = ("position", "inputs", "latents")
_ROWS = 256


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add models, data, and the options of each system."""
    add_models(parser, "score", required=True, runs=True)
    add = parser.add_argument
    add(
        "--data",
        metavar="DIR",
        help="folder of the data; needed unless the models are training runs",
    )
    add("--split", default="test", choices=SPLITS, help="split to score; default: %(default)s")
    add(
        "--limit",
        type=numbers.count,
        metavar="N",
        help=f"sequences of the split; default: all, {_ROWS} for models of cdcd",
    )
    add("--baselines", action="store_true", help="score unigrams and n-grams too")
    add(
        "--order",
        type=numbers.count,
        default=6,
        metavar="N",
        help="tokens of the n-grams; default: %(default)s",
    )
    options = {"perceiver_ar": _add_perceiver_ar(parser), "cdcd": _add_cdcd(parser)}
    parser.set_defaults(options_of=options)


def _add_perceiver_ar(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    add = parser.add_argument_group("options of perceiver_ar models").add_argument
    return [
        add("--step", type=int, metavar="N", help="step of a run's checkpoint; default: the last"),
        add(
            "--corpus",
            default="pop909",
            choices=CORPORA,
            help="corpus in --data; default: %(default)s",
        ),
        add(
            "--context",
            type=numbers.count,
            nargs="+",
            default=[],
            metavar="N",
            help="further context lengths, in tokens; one row each, after the model's own",
        ),
        add(
            "--latents",
            type=numbers.count,
            metavar="N",
            help="latents per block; default: the network's, as far as the context allows",
        ),
        add(
            "--stride",
            type=numbers.count,
            metavar="N",
            help="targets scored per block; default: half of the latents",
        ),
        add("--as-sampled", action="store_true", help="cut blocks as the sampler does"),
        add(
            "--batch-size",
            type=numbers.count,
            default=8,
            metavar="N",
            help="blocks at a time; default: %(default)s",
        ),
        add(
            "--copies",
            type=numbers.count,
            default=4,
            metavar="N",
            help="copies of the training split that n-grams count, all but one varied as in "
            "training; default: %(default)s",
        ),
        add("--buckets", choices=BUCKETS, help="also print means by this property of targets"),
        add("--plot", type=Path, metavar="FILE.png", help="picture of the buckets"),
    ]


def _add_cdcd(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    add = parser.add_argument_group("options of cdcd models").add_argument
    return [
        add_train_part(add),
        add(
            "--ordered-rows",
            type=numbers.seed,  # any whole number
            default=32,
            metavar="N",
            help="sequences that are decoded from left to right, which is slow; default: "
            "%(default)s",
        ),
    ]


def add_train_part(add: Callable[..., argparse.Action]) -> argparse.Action:
    """Add `--train-part`, of models of cdcd, by `add_argument` of a parser or group."""
    return add(
        "--train-part",
        type=int,
        nargs=2,
        metavar=("INDEX", "COUNT"),
        help="part of the training files that a model of cdcd was trained on; default: all",
    )


def check(args: argparse.Namespace) -> None:
    """Raise unless the models score, are of one system, and have data."""
    args.system = check_system(args.model, "score")
    check_options_of(args, args.options_of, args.system)
    check_data(args)
    if getattr(args, "plot", None) is not None:
        args.buckets = args.buckets or "position"


def check_data(args: argparse.Namespace) -> None:
    """Raise unless every model that is not a training run has `--data`, a folder."""
    models = [name for name in args.model if not is_run(name)]
    if models and args.data is None:
        raise InputError(f"{models[0]}: a model, not a training run: give its data with --data DIR")
    check_folders({"--data": args.data})


def evaluate(args: argparse.Namespace, progress: Any) -> Any:
    """Score with the package of the models."""
    return (_perceiver_ar if args.system == "perceiver_ar" else _cdcd)(args, progress)


def _perceiver_ar(args: argparse.Namespace, progress: Any) -> Any:
    from perceiver_ar import evaluation

    runs = [
        evaluation.load_run(name, args.step)
        if is_run(name)
        else evaluation.load_model(name, args.data, args.corpus)
        for name in args.model
    ]
    report = evaluation.evaluate(
        runs,
        split=args.split,
        limit=args.limit,
        windows=evaluation.Windows(
            args.context, args.latents, args.stride, args.as_sampled, args.batch_size
        ),
        baselines=evaluation.Baselines(args.order, args.copies) if args.baselines else None,
        buckets=args.buckets,
        progress=progress,
    )
    if args.plot is not None:
        from musax.plots import save_figure
        from perceiver_ar.plots import plot_buckets

        scored = {name: row for name, row in report.data.items() if row["parameters"]}
        by = evaluation.BUCKETS[args.buckets]
        save_figure(plot_buckets(evaluation.bucket_curves(scored), by=by), args.plot)
    return report


def _cdcd(args: argparse.Namespace, progress: Any) -> Any:
    from cdcd import evaluation

    return evaluation.evaluate_likelihood(
        load_cdcd(args),
        split=args.split,
        rows=args.limit or _ROWS,
        ordered_rows=args.ordered_rows,
        baseline_order=args.order if args.baselines else None,
        progress=progress,
    )


def load_cdcd(args: argparse.Namespace) -> dict[str, Any]:
    """Read runs and models of cdcd, by their names in tables."""
    from cdcd import evaluation

    part = args.train_part and tuple(args.train_part)
    return {
        Path(name).resolve().name: evaluation.load(name, args.data, part) for name in args.model
    }
