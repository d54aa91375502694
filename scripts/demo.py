"""Transcribes the examples and shows what came out.

Every audio file in `examples/` is transcribed, and those in `examples/drums/` by the drum model;
where a `.mid` of the same name lies beside it, that holds the true notes, and the transcription is
scored against them. For each example the folder `--out` gets the notes as MIDI and CSV, a picture
of them over the spectrum, and audio of the MIDI file; for those with true notes also a picture of
what was hit, false and missed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musax.commands.console import audio_progress, minutes
from musax.commands.files import expand_inputs
from musax.commands.options import add_choice, default_model
from musax.commands.outputs import Job, plan_outputs
from musax.commands.transcribe import DECODES
from musax.commands.verb import save_result

FORMATS = ("mid", "csv", "png", "wav")
PNG_SECONDS = 60.0
SCORES = ("Onset F1", "Onset + offset F1", "Frame F1")
DRUMS, DRUM_CLASSES = "drums", "9"
DRUM_SCORES = ("onset F1 micro", "velocity F1 micro", "velocity MAE")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def main() -> int:
    """Runs the demo; 1 if there is nothing to transcribe."""
    args = parse_args()
    from musax import pretrained

    try:
        args.out.mkdir(parents=True, exist_ok=True)
        files = expand_inputs([str(args.examples)])
        drums = [file for file in files if file.parent.name == DRUMS]
        jobs = plan_jobs([file for file in files if file not in drums], FORMATS, args.out)
        model = pretrained.load(args.model)
    except ValueError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    rows, written, decode = [], [], args.decode
    for job in jobs:
        started = time.monotonic()
        with audio_progress(job.source.name, enabled=True) as progress:
            result = model.transcribe_file(job.source, decode=decode, progress=progress)
        took = time.monotonic() - started
        save_result(result, job.outputs, source=job.source)
        written += job.paths
        scores: dict[str, float] = {}
        truth = job.source.with_suffix(".mid")
        if truth.exists():
            scores, picture = compare(result.notes, truth, job.source, args.out)
            written.append(picture)
        rows.append((job.source.name, result, took, scores))
    show(rows, args.model, SCORES)
    if drums:
        written += transcribe_drums(drums, args.out)
    print("Written:")
    for path in written:
        print(f"  {path}")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the results")
    parser.add_argument("--examples", type=Path, default=EXAMPLES, metavar="DIR")
    parser.add_argument("--model", default=default_model("transcribe"), metavar="NAME|DIR")
    add_choice(parser, "--decode", DECODES, "default: constrained")
    parser.set_defaults(decode="constrained")
    return parser.parse_args()


def plan_jobs(files: list[Path], formats: Sequence[str], out: Path) -> Sequence[Job]:
    """Return the files to write for each recording."""
    return plan_outputs(argparse.Namespace(output=out, format=formats), files).jobs


def compare(notes: Any, truth: Path, audio: Path, out: Path) -> tuple[dict[str, float], Path]:
    """Scores of `notes` against the MIDI file `truth`, and the picture that shows them."""
    from musax.audio import load_audio
    from musax.metrics.transcription import evaluate
    from musax.midi import load_midi
    from musax.plots import plot_transcription, save_figure

    reference = load_midi(truth)
    samples, rate = load_audio(audio)
    seconds = min(len(samples) / rate, PNG_SECONDS)
    figure = plot_transcription(
        notes[notes["onset"] < seconds],
        reference=reference[reference["onset"] < seconds],
        audio=samples[: int(seconds * rate)],
        sample_rate=rate,
        seconds=seconds,
        title=f"{audio.name} against {truth.name}",
    )
    picture = out / f"{audio.stem}.compared.png"
    save_figure(figure, picture)
    return evaluate(reference, notes), picture


def transcribe_drums(files: list[Path], out: Path) -> list[Path]:
    """Transcribes recordings of drums; prints their table and returns what was written."""
    from drums.vocabularies import map_notes
    from musax import pretrained
    from musax.audio import load_audio
    from musax.drum_plots import plot_drums
    from musax.metrics.drums import evaluate
    from musax.midi import load_midi
    from musax.plots import save_figure

    name = default_model("drums")
    model = pretrained.load(name)
    rows, written = [], []
    for job in plan_jobs(files, ("mid", "csv", "wav"), out):
        started = time.monotonic()
        with audio_progress(job.source.name, enabled=True) as progress:
            result = model.transcribe_file(job.source, level=DRUM_CLASSES, progress=progress)
        took = time.monotonic() - started
        save_result(result, job.outputs)
        truth, reference, scores = job.source.with_suffix(".mid"), None, {}
        if truth.exists():
            reference = map_notes(load_midi(truth), DRUM_CLASSES)
            scores = evaluate([(reference, result.notes)])
        samples, rate = load_audio(job.source)
        picture = out / f"{job.source.stem}.png"
        title = f"{job.source.name}" + (f" against {truth.name}" if scores else "")
        figure = plot_drums(
            result.notes,
            audio=samples,
            sample_rate=rate,
            reference=reference,
            names=model.picker(DRUM_CLASSES).names,
            title=title,
        )
        save_figure(figure, picture)
        written += [*job.paths, picture]
        rows.append((job.source.name, result, took, scores))
    show(rows, name, DRUM_SCORES)
    return written


def show(
    rows: list[tuple[str, Any, float, dict[str, float]]], model: str, names: Sequence[str]
) -> None:
    """Print the table of results, with the scores of these names."""
    from musax.tables import Table

    cells = [
        {
            "Example": name,
            "Audio": minutes(result.seconds),
            "Notes": len(result.notes),
            "Time": took,
            **{score: scores.get(score) for score in names},
        }
        for name, result, took, scores in rows
    ]
    formats = {"Time": ".1f", **dict.fromkeys(names, ".2f")}
    print(Table(f"Transcriptions by {model}; time in s", cells, formats).to_text())
    print("Times include compiling, which is kept for later runs. Scores need true notes.")


if __name__ == "__main__":
    sys.exit(main())
