"""Write prepared datasets from options such as those of `musax prepare`.

    write_takes("rendered-midi", "data/piano", options, split="train", shards=240)

The examples of a shard depend on its number and the options alone: shards can be rendered in
any order, by other processes, or on Apache Beam.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from musax.datasets import groove, pieces
from musax.datasets.rendered_drums import RenderedDrums
from musax.datasets.rendered_ensembles import RenderedEnsembles
from musax.datasets.rendered_midi import Instruments, RenderedMidi
from musax.rendering.soundfonts import find_soundfont
from t5x.data.prepared import write_dataset

#: How often pieces of a corpus are played, relative to the others.
_WEIGHTS = {"pop909": 8, "jsb": 1, "lakh64": 1}
_READERS = {"pop909": pieces.pop909, "jsb": pieces.jsb_chorales, "lakh64": pieces.lakh64_trios}


def rendered_midi(options: Mapping[str, Any]) -> RenderedMidi:
    """Return the source of takes of pieces played on single instruments."""
    corpora = [
        (_READERS[name](options[name], options["split"]), weight)
        for name, weight in _WEIGHTS.items()
        if options[name]
    ]
    if not corpora:
        raise ValueError("no music to play: give at least one of --pop909, --jsb, --lakh64")
    # Each corpus is repeated to its weight: eight takes of POP909 for one chorale and one trio.
    largest = max(len(corpus) for corpus, _ in corpora)
    mixed = [corpus[i % len(corpus)] for corpus, weight in corpora for i in range(weight * largest)]
    return RenderedMidi(
        mixed,
        Instruments(_soundfonts(options), virtual=options["virtual"], piano=options["piano"]),
        num_instruments=options["shards"],
        takes_per_instrument=options["takes"],
        random_pieces=options["random_pieces"] if options["vary"] else 0.0,
        **_rendering(options),
    )


def rendered_ensembles(options: Mapping[str, Any]) -> RenderedEnsembles:
    """Return the source of takes of small bands."""
    if not options["lakh64"]:
        raise ValueError("no bands to play: give --lakh64; --pop909 and --jsb add chords")
    split = options["split"]
    solos = pieces.pop909(options["pop909"], split) if options["pop909"] else []
    solos += pieces.jsb_chorales(options["jsb"], split) if options["jsb"] else []
    return RenderedEnsembles(
        pieces.lakh64_trios(options["lakh64"], split),
        solos,
        _soundfonts(options),
        num_takes=options["shards"] * options["takes"],
        takes_per_soundfont=options["takes"],
        **_rendering(options),
    )


def rendered_drums(options: Mapping[str, Any]) -> RenderedDrums:
    """Return the source of takes of drummers; a shard is one kit."""
    return RenderedDrums(
        groove.read_groove(options["groove"], options["split"]),
        tuple(options["kit"]),
        num_takes=options["shards"] * options["takes"],
        virtual=options["virtual"],
        mixed=options["mixed"],
        takes_per_kit=options["takes"],
        **_rendering(options),
    )


def _soundfonts(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return paths; without names, that of the bank that every installation has."""
    return tuple(str(find_soundfont(name)) for name in options["soundfont"] or [None])


def _rendering(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("seconds", "sample_rate", "seed", "vary")}


SOURCES = {
    "rendered-midi": rendered_midi,
    "rendered-ensembles": rendered_ensembles,
    "rendered-drums": rendered_drums,
}


@dataclasses.dataclass(frozen=True)
class ShardTakes:
    """The consecutive takes of a shard by its number; picklable.

    Attributes:
      dataset: of `SOURCES`.
      options: those that its function reads, sorted (name, value).
    """

    dataset: str
    options: tuple[tuple[str, Any], ...]

    def __call__(self, number: int) -> Iterator[dict[str, Any]]:
        source = self.source()
        takes = dict(self.options)["takes"]
        return (source[i] for i in range(number * takes, (number + 1) * takes))

    def source(self) -> Sequence[dict[str, Any]]:
        """Return the source; the one used last is kept, since reading pieces takes seconds."""
        if self not in _sources:
            source = SOURCES[self.dataset](dict(self.options))
            _sources.clear()
            _sources[self] = source
        return _sources[self]


_sources: dict[ShardTakes, Sequence[dict[str, Any]]] = {}


def write_takes(
    dataset: str, folder: str | Path, options: Mapping[str, Any], **writing: Any
) -> dict[str, Any]:
    """Render every shard of a dataset; shards that exist are kept.

    Args:
      dataset: of `SOURCES`.
      folder: where the shards go.
      options: those that the function in `SOURCES` reads; "split" and "shards" among them.
      writing: workers, runner, beam_options, progress of `t5x.data.prepared.write_dataset`.

    Returns:
      Counts: "examples", "shards", "bytes", …

    Raises:
      ValueError, OSError: an option is wrong; before anything is written.
    """
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    takes = ShardTakes(dataset, tuple(sorted(frozen.items())))
    takes.source()
    return write_dataset(takes, folder, options["split"], options["shards"], **writing)
