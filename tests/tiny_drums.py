"""Small drum data in the layouts of the real: a Hydrogen kit, Groove, E-GMD. Written by tests."""

import csv
from pathlib import Path

import numpy as np

from musax.audio import save_audio
from musax.datasets.groove import EGMD_COLUMNS, EGMD_CSV, GMD_CSV
from musax.midi import save_midi
from musax.notes import make_notes

RATE = 44100
#: Instrument -> (Hz of its sound, decay s, names of its recordings by rising velocity).
INSTRUMENTS = {
    "Kick": (60, 0.1, ("kick-soft.wav", "kick-mid.flac", "kick-hard.aiff")),
    "Stick": (1700, 0.02, ("stick.wav",)),
    "Snare": (190, 0.08, ("snare-1.wav", "snare-2.wav")),
    "Closed HH": (8000, 0.02, ("closed.wav",)),
    "Open HH": (7000, 0.6, ("open.wav",)),
    "Floor Tom": (90, 0.2, ("floor.wav",)),
    "Tom Hi": (180, 0.2, ("high.wav",)),
    "Crash": (5000, 0.8, ("crash.wav",)),
    "Ride": (4000, 0.6, ("ride.wav",)),
    "Cowbell": (560, 0.1, ("cowbell.wav",)),
}


def hit(hz: float, decay: float, level: float = 0.5, lead_s: float = 0.02) -> np.ndarray:
    """A damped sine that begins abruptly after `lead_s` of near silence, stereo."""
    seconds = np.arange(round(7 * decay * RATE)) / RATE
    sound = level * np.exp(-seconds / decay) * np.cos(2 * np.pi * hz * seconds)
    noise = 1e-4 * np.random.default_rng(0).standard_normal(round(lead_s * RATE))
    mono = np.concatenate([noise, sound])
    return np.stack([mono, 0.5 * mono], axis=1).astype(np.float32)


def write_kit(folder: Path, names=tuple(INSTRUMENTS), *, layers: bool = True) -> Path:
    """A kit as Hydrogen saves it; without `layers` as its oldest versions did."""
    folder.mkdir(parents=True)
    instruments = []
    for number, name in enumerate(names):
        hz, decay, files = INSTRUMENTS[name]
        for i, file in enumerate(files):
            save_audio(folder / file, hit(hz, decay, 0.5 * (i + 1) / len(files)), RATE)
        entries = "".join(
            f"<layer><filename>{file}</filename><min>{i / len(files)}</min>"
            f"<max>{(i + 1) / len(files)}</max><gain>1</gain><pitch>0</pitch></layer>"
            for i, file in enumerate(files)
        )
        if layers:
            entries = f"<instrumentComponent><gain>1</gain>{entries}</instrumentComponent>"
        else:
            entries = f"<filename>{files[-1]}</filename>"
        instruments.append(
            f"<instrument><id>{number}</id><name>{name}</name><volume>0.8</volume>"
            f"<midiOutNote>60</midiOutNote>{entries}</instrument>"
        )
    (folder / "drumkit.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<drumkit_info xmlns="http://www.hydrogen-music.org/drumkit"><name>tiny</name>'
        f"<instrumentList>{''.join(instruments)}</instrumentList></drumkit_info>\n"
    )
    return folder


def beat(bars: int = 4, velocity: int = 90) -> np.ndarray:
    """Kick, snare, closed and open hi-hat, a tom: 2 s a bar."""
    onset = 0.25 * np.arange(8 * bars)
    hats = make_notes(onset, onset + 0.1, [42] * 7 * bars + [46] * bars, velocity - 20, 0, True)
    drums = np.resize([36, 38, 36, 38, 43], 4 * bars)
    return np.concatenate(
        [hats, make_notes(onset[::2], onset[::2] + 0.1, drums, velocity, 0, True)]
    )


def write_groove(folder: Path, *, egmd: bool = False, absent: int = 0) -> Path:
    """Four performances, two of them for training; the last `absent` rows lack their files."""
    columns = EGMD_COLUMNS if egmd else tuple(c for c in EGMD_COLUMNS if c != "kit_name")
    rows = []
    splits = ("train", "validation", "test", "train")
    for i, split in enumerate(splits, 1):
        session = f"drummer{1 + i // 3}/session1"
        stem = f"{session}/{i}_rock_120_beat_4-4" + ("_1" if egmd else "")
        midi = f"{stem}.midi" if egmd else f"{stem}.mid"
        if i <= len(splits) - absent:
            (folder / session).mkdir(parents=True, exist_ok=True)
            save_midi(folder / midi, beat(2 + i))
        if egmd:
            save_audio(folder / f"{stem}.wav", hit(60, 0.1), RATE)
        row = {
            "drummer": f"drummer{1 + i // 3}",
            "session": session,
            "id": f"{session}/{i}",
            "style": "rock",
            "bpm": "120",
            "beat_type": "beat",
            "time_signature": "4-4",
            "duration": "4.5",
            "split": split,
            "midi_filename": midi,
            "audio_filename": f"{stem}.wav",
            "kit_name": "Acoustic Kit",
        }
        rows.append({name: row[name] for name in columns})
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / (EGMD_CSV if egmd else GMD_CSV), "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder
