"""Feeds damaged files to every reader, and says which ends in anything but data or a clear error.

    python -m tests.fuzzing --kinds midi,audio --count 500 --seed 1

Each kind has whole files, which are damaged by a seeded generator: bytes changed, cut out, doubled
or exchanged for extreme values. A reader may return, or raise ValueError or OSError with the name
of the file. Anything else is a failure: another exception, a message without the name, a file that
takes more than 20 s, more than 4 GB of memory, or the end of the process. Failing files are kept.
"""

import argparse
import dataclasses
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

LONGEST_SECONDS = 20
MOST_BYTES = 4 << 30
GOLDEN = Path(__file__).parent / "golden"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_EXTREMES = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"\x00\x00\x00\x00",
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Files of a kind.

    Attributes:
      write: writes whole files or folders into a folder and returns them.
      read: reads one.
      damaged: patterns of the files of a folder that are damaged, one at a time.
    """

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    damaged: tuple[str, ...] = ()


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Return data with one to four places changed."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            break
        # Headers are where sizes are: half of the places are near the beginning.
        reach = len(changed) if rng.random() < 0.5 else min(len(changed), 64)
        at = int(rng.integers(reach))
        kind = rng.integers(6)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            extreme = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
            changed[at : at + len(extreme)] = extreme
        elif kind == 2:
            del changed[at : at + int(rng.integers(1, 64))]
        elif kind == 3:
            changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            changed[at:at] = rng.bytes(int(rng.integers(1, 16)))
        else:
            del changed[at:]
    return bytes(changed)


# ------------------------------------------------------------------------------------------ kinds


def _tune():
    from musax.notes import make_notes

    onset = np.arange(0, 4, 0.25)
    return make_notes(onset, onset + 0.2, 60 + np.arange(len(onset)) % 12, 90)


def _write_midi(folder: Path) -> list[Path]:
    from musax.midi import save_midi

    save_midi(folder / "tune.mid", _tune())
    return [folder / "tune.mid"]


def _read_midi(path: Path) -> None:
    from cdcd.contents import Melody
    from musax.metrics.transcription import evaluate
    from musax.midi import load_midi
    from musax.timeline import load_timeline
    from perceiver_ar.music import encode_piece

    notes = load_midi(path)
    load_timeline(path).bars_until(float(notes["offset"].max(initial=0.0)))
    evaluate(notes, notes)
    if (~notes["is_drum"]).any():
        for encode in (encode_piece, Melody().encode):
            try:
                encode(notes)
            except ValueError as error:  # verbs put the name before it
                raise ValueError(f"{path}: {error}") from error


def _write_audio(folder: Path) -> list[Path]:
    import soundfile

    time = np.arange(8000) / 16000
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.c_[time, 2 * time])
    formats = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF", "au": "AU"}
    for suffix, name in {**formats, "w64": "W64", "rf64": "RF64", "caf": "CAF"}.items():
        soundfile.write(folder / f"tone.{suffix}", tone, 16000, format=name)
    return sorted(folder.iterdir())


def _read_audio(path: Path) -> None:
    from musax.audio import load_audio

    load_audio(path, 16000)


def _write_notes(folder: Path) -> list[Path]:
    from musax.notes_io import save_notes_csv, save_notes_json

    save_notes_csv(folder / "tune.csv", _tune())
    save_notes_json(folder / "tune.json", _tune())
    return sorted(folder.iterdir())


def _read_notes(path: Path) -> None:
    from musax.notes_io import load_notes_csv, load_notes_json

    (load_notes_csv if path.suffix == ".csv" else load_notes_json)(path)


def _write_models(folder: Path) -> list[Path]:
    from tests import tiny_cdcd, tiny_drum_model, tiny_mt3, tiny_perceiver

    tiny_mt3.write_model(folder / "mt3")
    tiny_drum_model.save_tiny_model(folder / "drums")
    tiny_perceiver.save_tiny_model(folder / "perceiver")
    tiny_cdcd.save_tiny_model(folder / "cdcd")
    return sorted(folder.iterdir())


def _read_model(path: Path) -> None:
    from musax import pretrained

    pretrained.load(path)


def _write_legacy(folder: Path) -> list[Path]:
    (source,) = (GOLDEN / "t5x" / "checkpoint_small").iterdir()
    shutil.copytree(source, folder / source.name)
    return [folder / source.name]


def _read_checkpoint(path: Path) -> None:
    from t5x.checkpoints import load_state

    load_state(path)


def _write_shards(folder: Path) -> list[Path]:
    from t5x.data.records import write_array_record

    rows = [{"audio": np.zeros(50, np.int16), "name": f"take {i}", "id": i} for i in range(20)]
    write_array_record(folder / "train-00000-of-00001.array_record", rows)
    return sorted(folder.iterdir())


def _read_shards(path: Path) -> None:
    from t5x.data import ArrayRecordSource

    rows = ArrayRecordSource({"train": str(path)}).sequence("train")
    for i in range(len(rows)):
        rows[i]


def _write_gin(folder: Path) -> list[Path]:
    for source in (CONFIGS / "mt3" / "tiny_piano.gin", CONFIGS / "cdcd" / "letters.gin"):
        shutil.copy(source, folder / source.name)
    return sorted(folder.iterdir())


def _read_gin(path: Path) -> None:
    from t5x import gin_utils, train
    from tests.running import own_gin

    bindings = ['DATA_DIR="data"', 'MODEL_DIR="run"']
    with own_gin():
        gin_utils.parse([str(path)], bindings, [], train.train)


KINDS = {
    "midi": Kind(_write_midi, _read_midi),
    "audio": Kind(_write_audio, _read_audio),
    "notes": Kind(_write_notes, _read_notes),
    "models": Kind(_write_models, _read_model, ("config.json", "model.safetensors")),
    "legacy": Kind(_write_legacy, _read_checkpoint, ("checkpoint", "**/.zarray", "**/0*")),
    "shards": Kind(_write_shards, _read_shards),
    "gin": Kind(_write_gin, _read_gin),
}


# ------------------------------------------------------------------------------------------- runs


class TooLong(BaseException):
    """A reader took more than `LONGEST_SECONDS`; not an Exception, so that none catches it."""


def _stop(*_) -> None:
    raise TooLong


def _copies(
    kind: Kind, wholes: Sequence[Path], folder: Path, seed: int, count: int
) -> Iterator[Path]:
    """Yield `count` damaged files or folders, each in place of the one before."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        whole = wholes[int(rng.integers(len(wholes)))]
        place = folder / whole.name
        if whole.is_dir():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(whole, place)
            files = sorted({path for p in kind.damaged for path in place.glob(p) if path.is_file()})
            target = files[int(rng.integers(len(files)))]
        else:
            shutil.copy(whole, place)
            target = place
        target.write_bytes(damage(target.read_bytes(), rng))
        yield place


def _problem(read: Callable[[Path], object], place: Path) -> str | None:
    """Return what is wrong with how a file was read, or refused; None if nothing is."""
    signal.alarm(LONGEST_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(place)
    except TooLong:
        return f"more than {LONGEST_SECONDS} s"
    except (ValueError, OSError) as error:
        # An error of gin names the binding, which may be in a file that is included.
        about_gin = type(error).__name__ == "GinError" and "codec can't" not in str(error)
        clear = place.name in str(error) or about_gin
        return None if clear else f"{type(error).__name__} without the file's name: {error}"
    except Exception as error:  # what the search is for
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return None


def _search(name: str, seed: int, count: int, kept: str, results) -> None:
    """Damage and read files of a kind in this process, and put what was found on a queue."""
    signal.signal(signal.SIGALRM, _stop)
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as root:
        originals, folder = Path(root, "whole"), Path(root, "damaged")
        originals.mkdir()
        folder.mkdir()
        wholes = kind.write(originals)
        for whole in wholes:
            problem = _problem(kind.read, whole)
            if problem:
                results.put(("failed", f"{whole.name}, not damaged: {problem}"))
        for number, place in enumerate(_copies(kind, wholes, folder, seed, count)):
            copy = Path(kept, f"{name}-{seed}-{number}-{place.name}")
            results.put(("reading", number))
            problem = _problem(kind.read, place)
            if problem:
                (shutil.copytree if place.is_dir() else shutil.copy)(place, copy)
                results.put(("failed", f"{copy}: {problem[:300]}"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > MOST_BYTES:
            results.put(("failed", f"{peak / 2**30:.1f} GB of memory"))
    results.put(("done", peak))


def search(name: str, seed: int, count: int, kept: Path) -> tuple[list[str], float]:
    """Read `count` damaged files of a kind in a process of its own.

    Returns:
      (one line a failure, the most memory used, bytes).
    """
    kept.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_search, args=(name, seed, count, str(kept), results))
    process.start()
    failures, last, peak = [], -1, 0.0
    while True:
        try:
            what, value = results.get(timeout=1.0)
        except Exception:  # the queue is empty
            if process.is_alive():
                continue
            failures.append(f"{name}: the process ended with {process.exitcode} at file {last}")
            break
        if what == "done":
            peak = value
            break
        if what == "reading":
            last = value
        else:
            failures.append(value)
    process.join()
    return failures, peak


def main(argv: Sequence[str] | None = None) -> int:
    """Search all kinds, print a line a kind, and return 1 if something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument("--count", type=int, default=500, help="files a kind; default: 500")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="failing files go here")
    args = parser.parse_args(argv)
    rows = []
    for name in args.kinds.split(","):
        start = time.monotonic()
        failures, peak = search(name, args.seed, args.count, args.keep)
        seconds = time.monotonic() - start
        print(
            f"{name:8} {args.count} files, {len(failures)} failures, {seconds:.0f} s, "
            f"{peak / 2**20:.0f} MiB",
            flush=True,
        )
        for line in failures:
            print(f"  {line}", flush=True)
        rows.append({"kind": name, "files": args.count, "failures": failures})
    args.keep.mkdir(parents=True, exist_ok=True)
    (args.keep / "report.json").write_text(json.dumps(rows, indent=1))
    return int(any(row["failures"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
