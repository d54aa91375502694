#!/usr/bin/env python
"""Writes datasets as ArrayRecord shards, in parallel and resumably.

Examples:
  # 53 hours of POP909, chorales and Lakh trios on 240 instruments, for training
  scripts/prepare_dataset.py rendered_midi --pop909 data/pop909 --jsb data/jsb \\
      --lakh64 data/lakh64 --soundfont FluidR3_GM --soundfont MuseScore_General \\
      --instruments 240 --out data/rendered_midi

  # unseen pieces on a font kept for judging
  scripts/prepare_dataset.py rendered_midi --split valid --pop909 data/pop909 --virtual 0 \\
      --soundfont TimGM6mb --instruments 1 --piano 1 --no-vary --out data/rendered_midi

A shard that is there already is left alone, so an interrupted run continues. `--runner NAME` runs
the same work on Apache Beam (extra `beam`).
"""

import argparse
import functools
import multiprocessing
import sys
from pathlib import Path

from rich.progress import track

from musax.datasets import pieces
from musax.datasets.rendered_midi import Instruments, RenderedMidi
from musax.rendering.soundfonts import find_soundfont
from t5x.data.records import write_array_record


def rendered_midi(args: argparse.Namespace) -> RenderedMidi:
    """The source that the arguments describe."""
    readers = {"pop909": pieces.pop909, "jsb": pieces.jsb_chorales, "lakh64": pieces.lakh64_trios}
    corpora = [
        (readers[name](directory, args.split), weight)
        for name, weight in (("pop909", 8), ("jsb", 1), ("lakh64", 1))
        if (directory := getattr(args, name))
    ]
    if not corpora:
        raise SystemExit("give at least one of --pop909, --jsb, --lakh64")
    # Each corpus is repeated to its weight: eight takes of POP909 for one chorale and one trio.
    largest = max(len(corpus) for corpus, _ in corpora)
    mixed = [corpus[i % len(corpus)] for corpus, weight in corpora for i in range(weight * largest)]
    return RenderedMidi(
        mixed,
        Instruments(
            tuple(str(find_soundfont(name)) for name in args.soundfont),
            virtual=args.virtual,
            piano=args.piano,
        ),
        num_instruments=args.instruments,
        takes_per_instrument=args.takes,
        seconds=args.seconds,
        sample_rate=args.sample_rate,
        seed=args.seed,
        random_pieces=args.random_pieces if args.vary else 0.0,
        vary=args.vary,
    )


def write_shard(shard: int, args: argparse.Namespace) -> int:
    """Renders one instrument's takes into one file; returns how many, 0 if it was there."""
    path = Path(args.out) / f"{args.split}-{shard:05d}-of-{args.instruments:05d}.array_record"
    if path.exists():
        return 0
    source = _source(tuple(sorted((k, _frozen(v)) for k, v in vars(args).items())))
    first = shard * args.takes
    return write_array_record(path, (source[i] for i in range(first, first + args.takes)))


@functools.lru_cache(maxsize=1)
def _source(items: tuple) -> RenderedMidi:
    return rendered_midi(argparse.Namespace(**dict(items)))


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


def run(args: argparse.Namespace) -> None:
    """Writes every shard, on local processes or on Beam."""
    Path(args.out).mkdir(parents=True, exist_ok=True)
    try:
        rendered_midi(args)  # bad arguments show before any process starts
    except (ValueError, OSError) as error:
        raise SystemExit(f"prepare_dataset: {error}") from error
    work = functools.partial(write_shard, args=args)
    if args.runner:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        with beam.Pipeline(options=PipelineOptions(runner=args.runner)) as pipeline:
            _ = pipeline | beam.Create(range(args.instruments)) | beam.Reshuffle() | beam.Map(work)
        return
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        shards = pool.imap_unordered(work, range(args.instruments))
        for _ in track(
            shards, "rendering", total=args.instruments, disable=not sys.stderr.isatty()
        ):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="dataset", required=True)
    p = commands.add_parser("rendered_midi", help="MIDI played on many instruments, exact notes")
    p.add_argument("--out", required=True, help="folder for the shards")
    p.add_argument("--split", default="train", choices=pieces.SPLITS)
    p.add_argument("--pop909", help="folder of the POP909 dataset")
    p.add_argument("--jsb", help="folder of the JSB chorales")
    p.add_argument("--lakh64", help="folder of the 64-bar Lakh excerpts")
    p.add_argument(
        "--soundfont",
        action="append",
        default=[],
        help="path or name of an SF2 or SF3 file; repeatable",
    )
    p.add_argument("--virtual", type=float, default=0.5, help="share of virtual pianos")
    p.add_argument("--piano", type=float, default=0.9, help="share of pianos on soundfonts")
    p.add_argument("--random-pieces", type=float, default=0.06, help="share of random notes")
    p.add_argument("--vary", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--instruments", type=int, default=240, help="instruments, each one shard")
    p.add_argument("--takes", type=int, default=40, help="takes of an instrument")
    p.add_argument("--seconds", type=float, default=20.0, help="length of a take, s")
    p.add_argument("--sample-rate", type=int, default=16000, help="Hz")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    p.add_argument("--runner", help="run on Apache Beam with this runner, e.g. DirectRunner")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
