"""Notes played by TinySoundFont, another player of soundfonts, sound as by ours."""

import numpy as np
import pytest

from musax.notes import make_notes
from musax.rendering.soundfonts import default_soundfont
from musax.rendering.synthesizer import Synthesizer

pytest.importorskip("tinysoundfont")

RATE = 44100


def theirs(program, is_drum, key, velocity, held, length):
    from tinysoundfont import _tinysoundfont as tsf

    player = tsf.SoundFont(str(default_soundfont()))
    player.set_output(tsf.OutputMode.Mono, RATE, 0.0)
    player.channel_set_bank(0, 0)
    player.channel_set_preset_number(0, program, is_drum)
    audio = np.zeros(length, np.float32)
    player.channel_note_on(0, key, velocity / 127)
    player.render(memoryview(audio[:held]).cast("B"), False)
    player.channel_note_off(0, key)
    player.render(memoryview(audio[held:]).cast("B"), False)
    return audio


@pytest.mark.parametrize(
    ("program", "is_drum", "key", "least"),
    [
        *((0, False, key, 0.999) for key in (28, 60, 99)),  # piano, whose filter follows the note
        (19, False, 69, 0.999),  # organ: a loop
        (33, False, 35, 0.99),
        (40, False, 72, 0.99),  # violin: vibrato
        (56, False, 67, 0.99),
        *((0, True, key, 0.99) for key in (36, 38, 42, 46, 49)),
    ],
)
def test_same_sound(program, is_drum, key, least):
    ours = Synthesizer(sample_rate=RATE).render(
        make_notes(0.0, 0.5, key, 90, program=program, is_drum=is_drum), seconds=1.0
    )
    other = theirs(program, is_drum, key, 90, RATE // 2, RATE)
    energy = np.sqrt(np.dot(ours, ours) * np.dot(other, other))
    assert np.dot(ours, other) / energy > least
    level = 10 * np.log10(np.dot(ours, ours) / np.dot(other, other))
    assert abs(level) < 0.2
