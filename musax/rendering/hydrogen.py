"""Drum kits of the Hydrogen drum machine: a folder with drumkit.xml and its recordings.

The MIDI notes in these files are mostly defaults, so an instrument's name decides; its note is used
only where the name is not informative and the kit's other notes agree with their names.
"""

import os
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musax.audio import AudioError, AudioWarning, load_audio, resample
from musax.drum_pitches import NAMES, group_of
from musax.rendering.drum_pads import DrumKit, DrumKitError, Pad, make_pad
from t5x.user_paths import user_path

KIT_FILE = "drumkit.xml"
SYSTEM_FOLDERS = (
    "~/.hydrogen/data/drumkits",
    "/usr/share/hydrogen/data/drumkits",
    "/usr/local/share/hydrogen/data/drumkits",
)

_SKIP = -1
#: Pattern in the lower-case name -> pitch; the first that is found counts, `_SKIP` leaves the
#: instrument out (damped by hand, swelling, or without a pitch of its own).
_PATTERNS = tuple(
    (re.compile(pattern), pitch)
    for pattern, pitch in (
        (r"choke|swish|flink|roll|zap|\bfx\b|whistle|side o?hh|hat (low|ring|free)", _SKIP),
        (r"side ?stick|x-?stick|cross ?stick|rim ?click|\bstick\b", 37),
        (r"clap", 39),
        (r"cow ?bell", 56),
        (r"tambourine (pedal|foot)", _SKIP),
        (r"tambourine", 54),
        (r"maraca|shaker", 70),
        (r"clave", 75),
        (r"wood ?block.*hi", 76),
        (r"wood ?block.*lo", 77),
        (r"agogo.*hi", 67),
        (r"agogo.*lo", 68),
        (r"bongo.*hi", 60),
        (r"bongo.*lo", 61),
        (r"conga.*(2|lo)", 64),
        (r"conga", 63),
        (r"djembe.*bass", 64),
        (r"djembe.*tone", 63),
        (r"semi-? ?open|half-? ?open", 26),
        (r"(hat|hh).*(pedal|foot|\bpd\b)|(pedal|foot).*(hat|hh)", 44),
        (r"(hat|hh).*(closed|\bcl\b)|closed.*(hat|hh)", 42),
        (r"(hat|hh).*(open|\bop\b)|open.*(hat|hh)|\bohh\b", 46),
        (r"kick|bass ?drum|\bbd\b", 36),
        (r"snare.*rim|rim ?shot", 40),
        (r"snare", 38),
        (r"floor|tom.*lo|lo.*tom|tom ?3", 43),
        (r"tom.*mid|mid.*tom|tom ?2", 45),
        (r"\btom", 48),
        (r"\btom.*hi|hi.*tom", 48),
        (r"splash", 55),
        (r"china", 52),
        (r"crash/ride (bell|cup)|ride.*(bell|cup)", 53),
        (r"ride.*bow", 51),
        (r"crash", 49),
        (r"ride", 51),
        (r"\bbell$|^.* bell$", 53),
        (r"cymbal", 49),
    )
)

#: Second and third instruments of a pitch go to its sisters before they become alternates.
_SISTERS = {36: (35,), 38: (40,), 49: (57,), 51: (59,), 42: (22,), 55: (), 48: (), 45: (), 43: ()}

#: Kit folder -> start of an instrument's name -> pitch, where a name misleads: found by looking at
#: (and measuring) the recordings of the kits that Debian packages.
_CORRECTIONS: dict[str, dict[str, int]] = {
    "Audiophob": {"Pedal HH": _SKIP, "Cowbell": _SKIP, "Ride Jazz": _SKIP},
    "BJA_Pacific": {"Ride 2": _SKIP},
    "ColomboAcousticDrumkit": {
        "redo super": _SKIP,
        "Pedal HH": 26,  # half-open hats, all of them
        "tomhi2": _SKIP,
        "tomhi3": _SKIP,
        "tomhi4": _SKIP,
        "ride-crash20inch": 51,
    },
    "ForzeeStereo": {
        "Snare 2": _SKIP,  # snares off: a tom
        "Ride (": 59,
        "Crash/Ride (": 57,
        "Crash/Ride Bow": _SKIP,
        "Stick": _SKIP,  # two sticks
    },
    "ElectricEmpireKit": {"Hat Closed Bs": _SKIP},
    "rumpf_kit_z01_h2": {  # thuds and voices under the names of drums
        "Sample:": _SKIP,
        "c#3 - stick": _SKIP,
        "a#3 - hi-hat open": _SKIP,
        "c4 - middle tom": _SKIP,
        "d4 - high tom": _SKIP,
        "d#4 - cymbal 1": _SKIP,
        "e4 - cymbal 2": _SKIP,
        "f4 - ride bell": _SKIP,
    },
    "circAfrique v4": {
        "Sangban1 Bell Hit": 56,
        "Kenkeni1 Bell Hit": 56,
        "Dununba1 Bell": _SKIP,
        "Sangban1": _SKIP,
        "Kenkeni1": _SKIP,
    },
}
#: Recordings that belong to another class than the instrument that lists them.
_MISPLACED = {
    "ColomboAcousticDrumkit": re.compile(r"^crash16i__ride|^hihat-open-1\."),
}


class _Sample(NamedTuple):
    file: str
    low: float  # velocities 0 to 1
    high: float
    gain: float
    semitones: float


class _Instrument(NamedTuple):
    name: str
    note: int | None
    gain: float
    samples: list[_Sample]


def hydrogen_folders() -> list[Path]:
    """Return the folders that are searched for kits, the user's own first."""
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    shared = os.environ.get("XDG_DATA_DIRS", "").split(os.pathsep)
    data = [f"{root}/hydrogen/data/drumkits" for root in (home, *shared) if root]
    return list(dict.fromkeys(user_path(x) for x in (*data, *SYSTEM_FOLDERS)))


def list_hydrogen_kits() -> dict[str, Path]:
    """Return name -> folder of every kit found; of equal names the user's own."""
    found: dict[str, Path] = {}
    for folder in hydrogen_folders():
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if (path / KIT_FILE).is_file():
                    found.setdefault(path.name, path)
    return found


def load_hydrogen_kit(folder: Path, sample_rate: int) -> DrumKit:
    """Read a kit.

    Raises:
      DrumKitError: the xml cannot be read, or no instrument has a recording that can be used.
    """
    instruments = list(_read_instruments(folder / KIT_FILE))
    notes_agree = _notes_agree(instruments, folder.name)
    pads: dict[int, Pad] = {}
    alternates: dict[int, tuple[Pad, ...]] = {}
    for instrument in instruments:
        pitch = _pitch(instrument, folder.name, notes_agree)
        pad = _load_pad(instrument, folder, sample_rate) if pitch is not None else None
        if pitch is None or pad is None:
            continue
        free = next((p for p in (pitch, *_SISTERS.get(pitch, ())) if p not in pads), None)
        if free is not None:
            pads[free] = pad
        else:
            alternates[pitch] = (*alternates.get(pitch, ()), pad)
    if not pads:
        raise DrumKitError(
            f"{folder}: no drum to play; expected instruments in {KIT_FILE} named like Kick, "
            "Snare, Closed HH, with <layer> or <filename> entries of recordings in this folder"
        )
    return DrumKit(folder.name, sample_rate, pads, alternates)


def _read_instruments(path: Path) -> Iterator[_Instrument]:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DrumKitError(
            f"{path}: not a Hydrogen kit that can be read ({error}); expected the XML of a "
            "<drumkit_info>; fetch the kit again"
        ) from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # newer kits have a namespace
    for element in root.iter("instrument"):
        yield _read_instrument(element, path)


def _read_instrument(element: ElementTree.Element, path: Path) -> _Instrument:
    name = (element.findtext("name") or "").strip()

    def number(parent: ElementTree.Element, tag: str, default: float) -> float:
        text = parent.findtext(tag)
        try:
            return default if text is None else float(text)
        except ValueError:
            raise DrumKitError(
                f"{path}: instrument {name!r}: <{tag}>{text}</{tag}> is not a number; correct it"
            ) from None

    samples = []
    for parent in [element, *element.findall("instrumentComponent")]:
        gain = number(parent, "gain", 1.0) if parent is not element else 1.0
        for layer in [*([parent] if parent is element else []), *parent.findall("layer")]:
            if file := layer.findtext("filename"):
                is_layer = layer is not element
                samples.append(
                    _Sample(
                        file,
                        number(layer, "min", 0.0),
                        number(layer, "max", 1.0),
                        gain * (number(layer, "gain", 1.0) if is_layer else 1.0),
                        number(layer, "pitch", 0.0),
                    )
                )
    note = element.findtext("midiOutNote")
    gain = number(element, "volume", 1.0) * number(element, "gain", 1.0)
    return _Instrument(name, int(note) if note and note.isdecimal() else None, gain, samples)


def _pitch(instrument: _Instrument, kit: str, notes_agree: bool) -> int | None:
    """Return the pitch of an instrument; None to leave it out."""
    pitch = _named_pitch(instrument.name, kit)
    if pitch is None and notes_agree and instrument.note in NAMES:
        pitch = instrument.note
    return None if pitch == _SKIP else pitch


def _named_pitch(name: str, kit: str) -> int | None:
    for start, pitch in _CORRECTIONS.get(kit, {}).items():
        if name.startswith(start):
            return pitch
    lower = name.lower().replace("_", " ")
    return next((pitch for pattern, pitch in _PATTERNS if pattern.search(lower)), None)


def _notes_agree(instruments: list[_Instrument], kit: str) -> bool:
    """Return whether MIDI notes differ and 8 of 10 agree in group with the instrument's name."""
    pairs = [
        (named, instrument.note)
        for instrument in instruments
        if instrument.note is not None
        and (named := _named_pitch(instrument.name, kit)) not in (None, _SKIP)
    ]
    agreeing = sum(group_of(named) == group_of(note) for named, note in pairs)
    different = len({note for _, note in pairs})
    return different >= 4 and min(different, agreeing) >= 0.8 * len(pairs)


def _load_pad(instrument: _Instrument, folder: Path, rate: int) -> Pad | None:
    misplaced = _MISPLACED.get(folder.name)
    layers: dict[tuple[float, float], list[np.ndarray]] = {}
    for sample in sorted(instrument.samples, key=lambda s: (s.high, s.low)):
        if misplaced and misplaced.search(sample.file):
            continue
        try:
            audio, own_rate = load_audio(folder / sample.file)
        except AudioError as error:
            # Packaged kits do name recordings that were left out of the package.
            message = f"{folder}: instrument {instrument.name!r} lacks a recording: {error}"
            warnings.warn(message, AudioWarning, stacklevel=5)
            continue
        # A layer that is tuned up is played faster, which is reading it at a higher rate.
        audio = resample(audio, own_rate * 2 ** (sample.semitones / 12), rate)
        audio = audio * np.float32(instrument.gain * sample.gain)
        layers.setdefault((sample.low, sample.high), []).append(audio)
    # Where ranges overlap, Hydrogen takes the first that fits: sorted by upper ends, that is the
    # layer with the lowest upper end above the velocity.
    rising = [(127 * high, takes) for (_, high), takes in layers.items()]
    return make_pad(rising, rate, name=instrument.name)
