"""Classes of drums: one table of classes, and coarser levels derived from it.

`CLASSES` lists the 18 classes that the pads of a Roland kit and General MIDI have between them. A
level merges them into groups ("3-hit", "5", "8-hit", "9"), so a model with 18 outputs can be read
at any level. Every pitch belongs to at most one class, every class to one group of each level.

Sources: the pitches of Roland kits and the maps "3-hit" and "8-hit" are those of OaF Drums
(Callender et al. 2020); the nine classes those of GrooVAE (Gillick et al. 2019); the five those of
ADTOF (Zehren et al. 2021).
"""

import functools
from typing import NamedTuple

import numpy as np


class DrumClass(NamedTuple):
    """A class of drums.

    Attributes:
      name: its usual name.
      pitches: MIDI pitches that denote it, the first of which is written; General MIDI's, and those
        of Roland modules for rims, edges and bows.
      groups: the base pitch of its group at the levels "3-hit", "5", "8-hit" and "9".
    """

    name: str
    pitches: tuple[int, ...]
    groups: tuple[int, int, int, int]


#: General MIDI's 35 and 41 are among the pitches; OaF Drums drops them.
CLASSES: tuple[DrumClass, ...] = (
    DrumClass("kick", (36, 35), (36, 36, 36, 36)),
    DrumClass("snare", (38, 40), (38, 38, 38, 38)),
    DrumClass("cross-stick", (37,), (38, 38, 38, 38)),
    DrumClass("clap", (39,), (38, 38, 38, 38)),
    DrumClass("high tom", (48, 50), (38, 47, 48, 50)),
    DrumClass("mid tom", (45, 47), (38, 47, 48, 47)),
    DrumClass("low tom", (43, 58, 41, 64), (38, 47, 48, 43)),
    DrumClass("closed hi-hat", (42, 22), (42, 42, 46, 42)),
    DrumClass("pedal hi-hat", (44,), (42, 42, 46, 42)),
    DrumClass("open hi-hat", (46, 26), (42, 42, 46, 46)),
    DrumClass("tambourine", (54,), (42, 42, 46, 42)),
    DrumClass("maracas", (70,), (42, 42, 46, 42)),
    DrumClass("crash 1", (49, 55), (42, 49, 49, 49)),
    DrumClass("crash 2", (57, 52), (42, 49, 49, 49)),
    DrumClass("ride", (51, 59), (42, 49, 51, 51)),
    DrumClass("ride bell", (53,), (42, 49, 53, 51)),
    DrumClass("cowbell", (56,), (42, 49, 53, 51)),
    DrumClass("claves", (75,), (38, 38, 75, 38)),
)

FULL = "18"
LEVELS = ("3-hit", "5", "8-hit", "9", FULL)
#: Pitches that the maps of OaF Drums do not know.
REFERENCE_UNKNOWN = (35, 41)

#: Names of groups that are not called as the class of their base pitch.
_GROUP_NAMES = {
    "3-hit": {38: "snare and toms", 42: "hats and cymbals"},
    "5": {42: "hi-hat", 47: "tom", 49: "cymbal"},
    "8-hit": {46: "hi-hat", 48: "tom", 49: "crash"},
    "9": {49: "crash"},
}


class Level(NamedTuple):
    """A partition of the drums into K groups.

    Attributes:
      name: one of `LEVELS`.
      names: of the groups.
      pitches: which stand for the groups in notes, int [K].
      members: float32 [18, K], 1 where a class belongs to a group.
    """

    name: str
    names: tuple[str, ...]
    pitches: np.ndarray
    members: np.ndarray

    @property
    def size(self) -> int:
        """K."""
        return len(self.names)


@functools.cache
def get_level(name: str) -> Level:
    """Return the level called `name`; its groups in the order of `CLASSES`.

    Raises:
      ValueError: an unknown level.
    """
    if name not in LEVELS:
        raise ValueError(f"no drum classes called {name!r}; choose from {', '.join(LEVELS)}")
    index = LEVELS.index(name)
    bases = [c.pitches[0] if name == FULL else c.groups[index] for c in CLASSES]
    pitches = list(dict.fromkeys(bases))
    members = np.array([[base == pitch for pitch in pitches] for base in bases], np.float32)
    class_names = {pitch: c.name for c in CLASSES for pitch in c.pitches}
    renamed = _GROUP_NAMES.get(name, {})
    names = tuple(renamed.get(pitch, class_names[pitch]) for pitch in pitches)
    return Level(name, names, np.array(pitches), members)


@functools.cache
def pitch_table(name: str, *, reference: bool = False) -> np.ndarray:
    """Return int [128]: the group of every MIDI pitch at a level, -1 for pitches without one.

    Args:
      name: of the level.
      reference: without the pitches that OaF Drums does not know.
    """
    level = get_level(name)
    table = np.full(128, -1)
    for drum, row in zip(CLASSES, level.members):
        table[list(drum.pitches)] = int(row.argmax())
    if reference:
        table[list(REFERENCE_UNKNOWN)] = -1
    return table


def map_notes(notes: np.ndarray, name: str) -> np.ndarray:
    """Return a copy with each pitch replaced by that of its group; notes of no group are left out.

    Mapping again changes nothing.

    Args:
      notes: NOTE_DTYPE [N].
      name: of the level.
    """
    group = pitch_table(name)[notes["pitch"]]
    mapped = notes[group >= 0].copy()
    mapped["pitch"] = get_level(name).pitches[group[group >= 0]]
    return mapped


def map_rolls(
    onsets: np.ndarray, velocities: np.ndarray, name: str, lowest: int = 21
) -> tuple[np.ndarray, np.ndarray]:
    """Map piano rolls as OaF Drums does: any onset and the largest velocity of every group.

    Args:
      onsets, velocities: [T, P], a column for each pitch from `lowest` on.
      name: of the level.

    Returns:
      Both, in the column of each group's pitch; the others are 0.
    """
    table = pitch_table(name, reference=True)[lowest : lowest + onsets.shape[1]]
    mapped = np.zeros_like(onsets), np.zeros_like(velocities)
    for group, pitch in enumerate(get_level(name).pitches):
        columns = np.flatnonzero(table == group)
        for roll, result in zip((onsets, velocities), mapped):
            result[:, pitch - lowest] = roll[:, columns].max(axis=1, initial=0)
    return mapped
