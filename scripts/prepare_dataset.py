#!/usr/bin/env python
"""Writes datasets as ArrayRecord shards (or in E-GMD's layout), in parallel and resumably.

Examples:
  # 53 hours of POP909, chorales and Lakh trios on 240 instruments, for training
  scripts/prepare_dataset.py rendered_midi --pop909 data/pop909 --jsb data/jsb \\
      --lakh64 data/lakh64 --soundfont FluidR3_GM --soundfont sf_GMbank \\
      --instruments 240 --out data/rendered_midi

  # unseen pieces on a font kept for judging
  scripts/prepare_dataset.py rendered_midi --split valid --pop909 data/pop909 --virtual 0 \\
      --soundfont TimGM6mb --instruments 1 --piano 1 --no-vary --out data/rendered_midi

  # melody, bass, chords and drums: small bands for models that say who plays
  scripts/prepare_dataset.py rendered_ensembles --lakh64 data/lakh64 --pop909 data/pop909 \\
      --jsb data/jsb --soundfont FluidR3_GM --soundfont sf_GMbank --out data/bands

  # 53 hours of Groove's drummers on 100 kits: those given, mixtures of them, synthetic ones
  scripts/prepare_dataset.py rendered_drums --groove data/groove --kit GMRockKit \\
      --kit FluidR3_GM --kit FluidR3_GM:25 --shards 100 --takes 160 --out data/rendered_drums

  # ten performances of the test split on two kits, as E-GMD has them: WAV, MIDI, csv
  scripts/prepare_dataset.py egmd_mini --groove data/groove --kit GMRockKit --kit FluidR3_GM \\
      --split test --limit 10 --out data/egmd_mini

  # the preprocessing of a registered task, done once for use_cached=True
  scripts/prepare_dataset.py task shakespeare_punctuation --module t5x.examples.shakespeare.tasks \\
      --split train --out data/cached

Shards that are there already are left alone, so an interrupted run continues. At the end come
<split>.json with the counts, and COMPLETED-<split>. `--runner DirectRunner`, or any other runner,
does the work on Apache Beam (extra `beam`); further options are handed to it as they are.
"""

import argparse
import dataclasses
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.progress import track

from musax.datasets import groove, pieces
from musax.datasets.egmd_mini import write_egmd_mini
from musax.datasets.rendered_drums import RenderedDrums
from musax.datasets.rendered_ensembles import RenderedEnsembles
from musax.datasets.rendered_midi import Instruments, RenderedMidi
from musax.rendering.soundfonts import find_soundfont
from t5x.data.caching import cache_task
from t5x.data.prepared import write_dataset


def rendered_midi(args: argparse.Namespace) -> RenderedMidi:
    """The source that the arguments describe."""
    readers = {"pop909": pieces.pop909, "jsb": pieces.jsb_chorales, "lakh64": pieces.lakh64_trios}
    corpora = [
        (readers[name](directory, args.split), weight)
        for name, weight in (("pop909", 8), ("jsb", 1), ("lakh64", 1))
        if (directory := getattr(args, name))
    ]
    if not corpora:
        raise ValueError("give at least one of --pop909, --jsb, --lakh64")
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
        num_instruments=args.shards,
        takes_per_instrument=args.takes,
        seconds=args.seconds,
        sample_rate=args.sample_rate,
        seed=args.seed,
        random_pieces=args.random_pieces if args.vary else 0.0,
        vary=args.vary,
    )


def rendered_ensembles(args: argparse.Namespace) -> RenderedEnsembles:
    """The source that the arguments describe."""
    if not args.lakh64:
        raise ValueError("bands come from --lakh64; --pop909 and --jsb add chords")
    solos = pieces.pop909(args.pop909, args.split) if args.pop909 else []
    solos += pieces.jsb_chorales(args.jsb, args.split) if args.jsb else []
    return RenderedEnsembles(
        pieces.lakh64_trios(args.lakh64, args.split),
        solos,
        [str(find_soundfont(name)) for name in args.soundfont],
        num_takes=args.shards * args.takes,
        takes_per_soundfont=args.takes,
        seconds=args.seconds,
        sample_rate=args.sample_rate,
        seed=args.seed,
        vary=args.vary,
    )


def rendered_drums(args: argparse.Namespace) -> RenderedDrums:
    """The source that the arguments describe; a shard is one kit."""
    return RenderedDrums(
        groove.read_groove(args.groove, args.split),
        tuple(args.kit),
        num_takes=args.shards * args.takes,
        seconds=args.seconds,
        sample_rate=args.sample_rate,
        seed=args.seed,
        vary=args.vary,
        virtual=args.virtual,
        mixed=args.mixed,
        takes_per_kit=args.takes,
    )


RENDERERS = {
    "rendered_midi": rendered_midi,
    "rendered_ensembles": rendered_ensembles,
    "rendered_drums": rendered_drums,
}

#: The source of the arguments used last: reading the pieces takes seconds. A plain dict, since
#: Beam sends what lies in this script by value.
_sources: dict[tuple, Sequence] = {}


@dataclasses.dataclass(frozen=True)
class ShardTakes:
    """Shard number -> its consecutive takes. `arguments` are those of the command line."""

    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, number: int) -> Iterator[dict]:
        if self.arguments not in _sources:
            _sources.clear()
            _sources[self.arguments] = _source(argparse.Namespace(**dict(self.arguments)))
        source = _sources[self.arguments]
        takes = dict(self.arguments)["takes"]
        return (source[i] for i in range(number * takes, (number + 1) * takes))


def _source(args: argparse.Namespace) -> Sequence:
    return RENDERERS[args.dataset](args)


def prepare_takes(args: argparse.Namespace, **options: Any) -> dict:
    """Renders every shard; returns the counts."""
    _source(args)  # bad arguments show before any process starts
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(args).items()}
    takes = ShardTakes(tuple(sorted(frozen.items())))
    return write_dataset(takes, args.out, args.split, args.shards, **options)


def prepare_task(args: argparse.Namespace, **options: Any) -> dict:
    """Writes the cacheable examples of a registered task; returns the counts."""
    return cache_task(args.name, args.out, args.split, args.shards, args.module, **options)


def prepare_egmd_mini(args: argparse.Namespace) -> list[dict[str, str]]:
    """Writes recordings in E-GMD's layout; returns their rows of the csv."""
    performances = groove.read_groove(args.groove, args.split)
    count = min(args.limit or len(performances), len(performances)) * len(args.kit)
    return write_egmd_mini(
        performances,
        args.kit,
        args.out,
        limit=args.limit,
        seed=args.seed,
        workers=args.workers,
        progress=_progress("recordings", count),
    )


def _progress(what: str, total: int) -> Callable[[Iterable], Iterable]:
    def progress(items: Iterable) -> Iterable:
        return track(items, what, total=total, disable=not sys.stderr.isatty())

    return progress


def _options(args: argparse.Namespace, beam_options: Sequence[str]) -> dict[str, Any]:
    return {
        "workers": args.workers,
        "runner": args.runner,
        "beam_options": beam_options,
        "progress": _progress("shards", args.shards),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="dataset", required=True)
    midi = commands.add_parser("rendered_midi", help="MIDI played on instruments, exact notes")
    _add_takes_arguments(midi)
    p = midi.add_argument
    p("--virtual", type=float, default=0.5, help="share of virtual pianos")
    p("--piano", type=float, default=0.9, help="share of pianos on soundfonts")
    p("--random-pieces", type=float, default=0.06, help="share of random notes")
    p("--instruments", dest="shards", type=int, default=240, help="instruments, each one shard")
    bands = commands.add_parser("rendered_ensembles", help="bands: melody, bass, chords, drums")
    _add_takes_arguments(bands)
    bands.add_argument("--shards", type=int, default=160)
    drums = commands.add_parser("rendered_drums", help="Groove's drummers on many kits")
    _add_drums_arguments(drums)
    egmd = commands.add_parser("egmd_mini", help="Groove's drummers on kits, in E-GMD's layout")
    _add_groove_arguments(egmd)
    egmd.add_argument("--limit", type=int, help="at most so many performances, spread evenly")
    egmd.add_argument("--seed", type=int, default=0)
    egmd.set_defaults(runner=None)
    task = commands.add_parser("task", help="a registered task, preprocessed once")
    task.add_argument("name", help="of the task")
    task.add_argument("--module", help="Python module that registers it")
    task.add_argument("--split", default="train")
    task.add_argument("--shards", type=int, default=16)
    for command in (midi, bands, drums, egmd, task):
        command.add_argument("--out", required=True, help="folder to write into")
        command.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    for command in (midi, bands, drums, task):
        command.add_argument("--runner", help="work on Apache Beam, for example DirectRunner")
    return parser


def _add_takes_arguments(p: argparse.ArgumentParser) -> None:
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
    _add_rendering_arguments(p, seconds=20.0, sample_rate=16000)


def _add_groove_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--split", default="train", choices=groove.SPLITS)
    p.add_argument("--groove", required=True, help="folder of the Groove MIDI Dataset or E-GMD")
    p.add_argument(
        "--kit",
        action="append",
        default=[],
        help="a Hydrogen kit or a soundfont[:program], by name or path; repeatable",
    )


def _add_drums_arguments(p: argparse.ArgumentParser) -> None:
    _add_groove_arguments(p)
    p.add_argument("--virtual", type=float, default=0.2, help="share of synthetic kits")
    p.add_argument("--mixed", type=float, default=0.5, help="share of mixtures of kits")
    p.add_argument("--shards", type=int, default=160, help="each is one kit")
    _add_rendering_arguments(p, seconds=12.0, sample_rate=44100)


def _add_rendering_arguments(
    p: argparse.ArgumentParser, *, seconds: float, sample_rate: int
) -> None:
    p.add_argument("--vary", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--takes", type=int, default=40, help="takes of a shard")
    p.add_argument("--seconds", type=float, default=seconds, help="length of a take, s")
    p.add_argument("--sample-rate", type=int, default=sample_rate, help="Hz")
    p.add_argument("--seed", type=int, default=0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    args, beam_options = parser.parse_known_args(argv)
    if beam_options and not args.runner:
        parser.error(f"unknown arguments {' '.join(beam_options)} (Beam's need --runner)")
    try:
        if args.dataset == "egmd_mini":
            print(f"{args.out}: {len(prepare_egmd_mini(args))} recordings of {args.split}")
            return
        prepare = prepare_takes if args.dataset in RENDERERS else prepare_task
        info = prepare(args, **_options(args, beam_options))
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"prepare_dataset: {error}") from error
    print(f"{args.out}: {info['examples']} examples in {info['shards']} shards of {info['split']}")


if __name__ == "__main__":
    main()
