"""Pitches of drum notes: General MIDI and the extra zones of Roland's pads.

Groove and E-GMD (Gillick et al. 2019, Callender et al. 2020) are recorded with a Roland kit, which
plays two zones of a pad at two pitches: 38 and 40 are one snare drum, 46 and 26 one open hi-hat.
"""

from collections.abc import Iterable

#: Pitch -> name. Roland's name where it has one, otherwise that of General MIDI.
NAMES = {
    22: "closed hi-hat edge",
    26: "open hi-hat edge",
    35: "acoustic bass drum",
    36: "kick",
    37: "cross-stick",
    38: "snare",
    39: "clap",
    40: "snare rim",
    41: "low floor tom",
    42: "closed hi-hat",
    43: "tom 3",
    44: "hi-hat pedal",
    45: "tom 2",
    46: "open hi-hat",
    47: "tom 2 rim",
    48: "tom 1",
    49: "crash 1",
    50: "tom 1 rim",
    51: "ride",
    52: "crash 2 edge",
    53: "ride bell",
    54: "tambourine",
    55: "crash 1 edge",
    56: "cowbell",
    57: "crash 2",
    58: "tom 3 rim",
    59: "ride edge",
    60: "high bongo",
    61: "low bongo",
    62: "mute high conga",
    63: "open high conga",
    64: "low conga",
    67: "high agogo",
    68: "low agogo",
    70: "maracas",
    75: "claves",
    76: "high woodblock",
    77: "low woodblock",
}

#: Instruments: pitches of one drum or cymbal, or of a set of similar ones.
GROUPS = {
    "kick": (35, 36),
    "snare": (38, 40, 37),
    "hi-hat": (42, 22, 46, 26, 44),
    "toms": (41, 43, 58, 45, 47, 48, 50),
    "crash": (49, 55, 57, 52),
    "ride": (51, 59, 53),
    "percussion": (39, 54, 56, 60, 61, 62, 63, 64, 67, 68, 70, 75, 76, 77),
}

OPEN_HATS = (46, 26)
CLOSED_HATS = (42, 22)
HAT_PEDAL = 44

#: Pitch -> pads that may sound in its place, the best first. Only within one kind of sound: an open
#: hi-hat is never replaced by a closed one, a bell never by the bow of the ride. The pedal's chick
#: may be a closed hi-hat that is damped at once.
STAND_INS: dict[int, tuple[int, ...]] = {
    22: (42,),
    42: (22,),
    26: (46,),
    46: (26,),
    44: (42, 22),
    35: (36,),
    36: (35,),
    38: (40,),
    40: (38,),
    41: (43, 58, 45, 47),
    43: (41, 58, 45, 47, 48, 50),
    58: (43, 41, 45, 47, 48, 50),
    45: (47, 48, 50, 43, 41, 58),
    47: (45, 48, 50, 43, 41, 58),
    48: (50, 47, 45, 43, 41, 58),
    50: (48, 47, 45, 43, 41, 58),
    49: (57, 55, 52),
    57: (49, 55, 52),
    55: (49, 57, 52),
    52: (57, 49, 55),
    51: (59,),
    59: (51,),
    60: (61,),
    61: (60,),
    63: (64,),
    64: (63,),
    67: (68,),
    68: (67,),
    76: (77,),
    77: (76,),
}


def group_of(pitch: int) -> str | None:
    """Return the key of `GROUPS` that holds a pitch; None for others."""
    return next((name for name, pitches in GROUPS.items() if pitch in pitches), None)


#: Rows of a kit in pictures from the top: cymbals, hi-hat, toms from high to low, snare, kick.
_ROWS = (
    *(49, 55, 57, 52, 51, 53, 59),
    *(46, 26, 42, 22, 44),
    *(50, 48, 47, 45, 43, 58, 41),
    *(38, 40, 37, 36, 35),
)


def kit_order(pitches: Iterable[int]) -> list[int]:
    """Return pitches, each once, in the order of a kit from the top; percussion is above it."""
    place = {pitch: row for row, pitch in enumerate(_ROWS)}
    return sorted(set(pitches), key=lambda pitch: (place.get(pitch, -1), -pitch))
