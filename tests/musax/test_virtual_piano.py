import numpy as np
import pytest

from musax.notes import empty_notes, make_notes
from musax.rendering.virtual_piano import PianoParameters, VirtualPiano

RATE = 16000


def piano(seed=0):
    return VirtualPiano(np.random.default_rng(seed), RATE, longest_s=2.0)


def test_same_generator_same_sound():
    notes = make_notes([0.1, 0.5], [0.4, 1.0], [40, 76], [30, 110])
    first, second = piano(3).render(notes), piano(3).render(notes)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert not np.array_equal(first, piano(4).render(notes))


@pytest.mark.parametrize("pitch", [33, 57, 81, 100])
def test_the_lowest_strong_partial_is_the_note(pitch):
    audio = piano(1).render(make_notes([0.0], [1.5], [pitch], [100]), seconds=1.5)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    hz = np.fft.rfftfreq(len(audio), 1 / RATE)
    f0 = 440 * 2 ** ((pitch - 69) / 12)
    near = (hz > f0 * 2 ** (-0.5 / 12)) & (hz < f0 * 2 ** (0.5 / 12))
    below = (hz > 0.6 * f0) & (hz < 0.9 * f0)
    assert spectrum[near].max() > 5 * spectrum[below].max()


def test_louder_notes_are_louder_and_brighter():
    def play(velocity):
        return piano(2).render(make_notes([0.0], [0.5], [48], [velocity]), seconds=0.5)

    def brightness(audio):
        power = np.abs(np.fft.rfft(audio)) ** 2
        return (power * np.arange(len(power))).sum() / power.sum()

    soft, loud = play(20), play(120)
    assert np.std(loud) > 2 * np.std(soft)
    assert brightness(loud) > brightness(soft)


def test_dampers_stop_a_note():
    parameters = PianoParameters.draw(np.random.default_rng(0), sustained_probability=0.0)
    one = VirtualPiano(np.random.default_rng(1), RATE, parameters, longest_s=3.0)
    audio = one.render(make_notes([0.0], [0.5], [60], [100]), seconds=3.0)
    end = int((0.5 + 6 * parameters.release_s) * RATE) + 1
    assert np.abs(audio[end:]).max(initial=0) == 0
    assert np.abs(audio[: RATE // 2]).max() > 0


def test_drums_and_keys_beyond_the_keyboard_are_left_out():
    notes = make_notes([0.0, 0.0], [0.5, 0.5], [40, 10], is_drum=[True, False])
    assert not piano().render(notes, seconds=1.0).any()
    assert len(piano().render(empty_notes(), seconds=0.25)) == RATE // 4
