import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcd import inference
from cdcd.contents import Bytes, Letters, Melody
from cdcd.inference import Writer
from musax import pretrained
from musax.midi import load_midi
from musax.notes import empty_notes, make_notes
from musax.results import Piece, Score
from t5x.checkpoints import CheckpointError
from t5x.data.vocabularies import NUM_SPECIAL_IDS
from tests.tiny_cdcd import LENGTH, save_tiny_model, tiny_config, tiny_params

TUNE = make_notes([0.0, 1.0, 2.0, 2.5, 4.0], [0.5, 1.5, 2.5, 3.5, 4.5], [60, 64, 67, 72, 60])
STEPS = {"steps": 4}


@functools.cache
def make_writer(contents, kind="cdcd", **options):
    """The same one for the same arguments: tests share its compiled programs."""
    config = tiny_config(contents, kind, **options)
    return Writer(config, tiny_params(config))


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return pretrained.load(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def melodies():
    return make_writer(Melody())


# ------------------------------------------------------------------------------------------ windows


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
def test_windows_fill_every_gap_and_cut_none_but_long_ones(noisy, length):
    noisy = np.array(noisy)
    while noisy.any():
        first = int(np.argmax(noisy))
        seen, kept = inference._next_window(noisy, length)
        assert seen.start == kept.start <= first < kept.stop <= seen.stop <= len(noisy)
        assert seen.stop - seen.start == min(length, len(noisy))
        assert first - seen.start <= length // 2 or seen.stop == len(noisy)
        behind = noisy[kept.stop : kept.stop + 1].any()
        if behind and noisy[kept.stop - 1]:  # a gap is cut: the first, which is all that is made
            assert noisy[first : kept.stop].all()
        noisy[kept] = False


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(3, 29), st.booleans()), min_size=1, max_size=50),
    st.integers(0, 9),
)
def test_given_tokens_never_change(writer, tokens, seed):
    ids, noisy = (np.array(each) for each in zip(*tokens))
    rows = writer.fill_in(ids, noisy, 2, seed=seed, **STEPS)
    assert rows.shape == (2, len(ids))
    np.testing.assert_array_equal(rows[:, ~noisy], np.stack([ids[~noisy]] * 2))
    assert rows.min() >= NUM_SPECIAL_IDS


def test_a_window_sees_both_sides_of_its_gap(writer, monkeypatch):
    seen = []

    def make(params, rows, rng, **options):
        seen.append((np.asarray(rows.tokens[0]), np.asarray(rows.noisy[0])))
        return np.where(rows.noisy, 9, rows.tokens)

    monkeypatch.setattr(writer.model, "make", make)
    tokens = np.arange(40) % 20 + 3
    noisy = np.zeros(40, bool)
    noisy[[4, 5, 25, 26]] = True
    rows = writer.fill_in(tokens, noisy)
    np.testing.assert_array_equal(rows[0], np.where(noisy, 9, tokens))
    np.testing.assert_array_equal([each[0] for each, _ in seen], tokens[[0, 17]])
    assert [mask.sum() for _, mask in seen] == [2, 2]
    seen.clear()
    writer.fill_in(tokens[:5], np.arange(5) >= 3)
    ((_, mask),) = seen
    assert mask.tolist() == [False] * 3 + [True] * (LENGTH - 3)  # the rest is unknown too


# ----------------------------------------------------------------------------------------- sampling


def test_a_seed_is_a_text(writer):
    first, second = writer.compose(count=2, seed=1, **STEPS)
    assert first.text != second.text
    assert [x.text for x in writer.compose(count=2, seed=1, **STEPS)] == [first.text, second.text]
    assert writer.compose(seed=2, **STEPS)[0].text != first.text
    assert len(first.text) == len(first.tokens) == LENGTH
    assert first.made.all()


@pytest.mark.parametrize("kind", ["cdcd", "mdlm", "ar"])
def test_a_prompt_is_continued_beyond_a_window(kind):
    options = {} if kind == "ar" else STEPS
    writer = make_writer(Letters(), kind)
    for made in writer.compose(count=2, tokens=37, prompt="Hi, THERE", **options):
        assert len(made.text) == 45
        assert made.text.startswith("hi there")
        assert made.made.tolist() == [False] * 8 + [True] * 37


def test_shorter_than_in_training_is_the_beginning(writer):
    (whole,), (short,) = (writer.compose(seed=3, tokens=n, **STEPS) for n in (LENGTH, 5))
    assert whole.text[:5] == short.text


def test_more_than_a_batch(writer, monkeypatch):
    monkeypatch.setattr(inference, "_BATCH", 2)
    texts = [x.text for x in writer.compose(count=5, **STEPS)]
    assert len(set(texts)) == 5


def test_a_melody_is_sampled_and_continued(melodies):
    (made,) = melodies.compose(tokens=28, prompt=TUNE[:2], **STEPS)
    for length in ({"bars": 2}, {"seconds": 4.0}, {"seconds": 8.0, "tempo": 60}):
        (same,) = melodies.compose(prompt=TUNE[:1], **length, **STEPS)
        assert same.made.sum() == 32
    assert made.prompt_seconds == 1.5
    assert (made.seconds, made.tempo) == (5.0, 120.0)
    assert made.notes["pitch"][:2].tolist() == [60, 64]
    assert made.made.argmax() == 12  # where the last note ends
    assert made.notes["offset"].max() <= 5.0


def test_melodies_lie_in_a_range(melodies, monkeypatch):
    rounds = []

    def fill(tokens, noisy, count, seed, options):
        rounds.append((count, seed))
        pitch = 36 if len(rounds) < 3 else 72
        return [Piece(make_notes(0.0, 1.0, pitch), 1.0, 0.0, False, tokens)] * count

    monkeypatch.setattr(melodies, "_fill", fill)
    (made,) = melodies.compose(seed=5)
    assert made.notes["pitch"].tolist() == [72]
    assert len(rounds) == 3
    assert rounds[0] == (4, 5)
    assert len({seed for _, seed in rounds}) == 3
    with pytest.warns(UserWarning, match="0 of 1 melodies have their median pitch in 90 to 96"):
        (made,) = melodies.compose(pitch_range=(90, 96))
    assert made.notes["pitch"].tolist() == [72]


def test_ids_beyond_the_vocabulary_are_not_made():
    writer = make_writer(Letters(), vocab_size=60)
    (made,) = writer.compose(tokens=64, **STEPS)
    assert made.tokens.max() < 30
    assert len(made.text) == 64


# ---------------------------------------------------------------------------------------- infilling


@pytest.mark.parametrize("kind", ["cdcd", "mdlm", "ar"])
def test_blanks_are_filled_in(kind):
    options = {} if kind == "ar" else STEPS
    found = make_writer(Letters(), kind).infill("To be, ____ __ __", count=2, **options)
    assert len({each.text for each in found}) == 2
    for each in found:
        assert each.text.startswith("to be ")
        assert each.text[10] == each.text[13] == " "
        assert len(each.text) == 16


def test_other_blanks_and_bytes():
    (made,) = make_writer(Bytes()).infill("snake_case = ??", blank="?", **STEPS)
    assert made.text.startswith("snake_case = ")
    assert made.made.tolist() == [False] * 13 + [True] * 2


def test_bars_are_sampled_again(melodies):
    before = melodies.contents.encode(TUNE, whole_bars=True)
    found = [melodies.infill(TUNE, bars=(2, 2), seed=seed, **STEPS)[0] for seed in range(2)]
    assert not np.array_equal(found[0].tokens, found[1].tokens)
    for each in found:
        np.testing.assert_array_equal(each.tokens[~each.made], before[~each.made])
        assert np.flatnonzero(each.made).tolist() == list(range(16, 32))
        outside = (each.notes["onset"] < 2) | (each.notes["onset"] >= 4)
        assert each.notes["pitch"][outside].tolist() == [60, 64, 60]


def test_a_gap_in_seconds_at_another_tempo(melodies):
    slow = melodies.at_tempo(60.0)
    (made,) = slow.infill(TUNE, seconds=(2.0, 3.0), **STEPS)
    assert np.flatnonzero(made.made).tolist() == [8, 9, 10, 11]
    assert made.notes["onset"][-1] == 4.0
    assert melodies.contents.tempo == 120


def test_a_real_piece_longer_than_a_window(melodies):
    piece = load_midi("examples/rendering.mid")
    (made,) = melodies.infill(piece, bars=(3, 4), **STEPS)
    melody = melodies.contents.decode(melodies.contents.encode(piece))
    for part in (slice(None, 4.0), slice(8.0, None)):
        inside = [
            notes["pitch"][
                (notes["onset"] >= (part.start or 0)) & (notes["onset"] < (part.stop or 99))
            ]
            for notes in (made.notes, melody)
        ]
        np.testing.assert_array_equal(*inside)


def test_rounds_change_what_was_made_alone(writer):
    (once,), (again,) = (writer.infill("to be ______ be", rounds=n, **STEPS) for n in (0, 3))
    assert once.text != again.text
    assert again.text[:6] == "to be "
    assert again.text[-3:] == " be"


def test_progress_is_told(writer):
    told = []
    writer.compose(tokens=40, progress=lambda *at: told.append(at), **STEPS)
    assert told == [(16, 40), (24, 40), (32, 40), (40, 40)]


# ------------------------------------------------------------------------------------------ scoring


def test_windows_are_scored_by_themselves():
    writer = make_writer(Letters(), "ar")
    text = "what is longer than a row is cut"
    whole, parts = writer.score(text), [writer.score(text[i : i + LENGTH]) for i in (0, 16)]
    assert whole.nats == pytest.approx(sum(part.nats for part in parts), rel=1e-5)
    assert whole.tokens == 32
    assert whole.estimate == "exact"


def test_a_bound_is_of_whole_windows(writer, monkeypatch):
    def nats(model, params, windows, estimate, rng, passes):
        assert estimate == "bound"
        return np.count_nonzero(windows, axis=1)

    monkeypatch.setattr(inference, "window_nats", nats)
    assert writer.score("a" * 40, estimate="bound") == Score(32.0, 32, "bound")


def test_a_melody_has_a_score(melodies):
    score = melodies.score(TUNE, estimate="left_to_right")
    assert score.tokens == 36
    assert 0 < score.bits_per_token < 20


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.compose(stepz=3), "unknown option stepz; did you mean 'steps'"),
        (lambda w: w.compose(steps=0), "steps=0: expected 1 or more"),
        (lambda w: w.compose(method="rk4"), "method='rk4': expected one of euler"),
        (lambda w: w.compose(count=0), "count=0"),
        (lambda w: w.compose(rounds=-1), "rounds=-1"),
        (lambda w: w.compose(tokens=0), "tokens=0: expected a length of one token"),
        (lambda w: w.compose(tokens=3, seconds=1.0), "tokens, seconds: expected one length"),
        (lambda w: w.compose(bars=2), "bars=2: only for models of melodies"),
        (lambda w: w.compose(pitch_range=(60, 72)), "pitch_range: only for models of melodies"),
        (lambda w: w.compose(prompt=""), "prompt: empty"),
        (lambda w: w.compose(prompt="a" * 20), "prompt: 20 tokens, the training length is 16"),
        (lambda w: w.compose(prompt=TUNE), "prompt: a model of text needs a string"),
        (lambda w: w.infill("no blanks"), "no blanks"),
        (lambda w: w.infill("___"), "only blanks"),
        (lambda w: w.infill("a_", bars=(1, 2)), "bars, seconds: only for models of melodies"),
        (lambda w: w.infill(TUNE), "text: a model of text needs a string, got ndarray"),
        (lambda w: w.at_tempo(90), "tempo=90: only models of melodies"),
        (lambda w: w.score(""), "empty"),
        (
            lambda w: w.score("a", estimate="exact"),
            "estimate='exact': expected one of any",
        ),
        (lambda w: w.score("a", passes=0), "passes=0"),
        (
            lambda w: w.score("a", estimate="bound"),
            "a bound needs at least 16 tokens",
        ),
        (lambda w: w.fill_in(np.array([99, 3]), np.array([False, True])), "token 99 is outside"),
        (lambda w: w.fill_in(np.array([3]), np.array([True, True])), r"noisy \(2,\)"),
    ],
)
def test_mistakes_with_text(writer, call, message):
    with pytest.raises(ValueError, match=message):
        call(writer)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.infill(TUNE), "expected either bars or seconds"),
        (lambda w: w.infill(TUNE, bars=(2, 9)), "bars 2 to 9: expected bars of 1 to 3"),
        (lambda w: w.infill(empty_notes(), bars=(1, 1)), "no notes of a melody"),
        (lambda w: w.infill("a_"), "a model of melodies needs a note array, got str"),
        (lambda w: w.compose(prompt=empty_notes()), "prompt: no notes of a melody"),
        (lambda w: w.compose(prompt=TUNE, pitch_range=(60, 72)), "only without a prompt"),
        (
            lambda w: w.compose(pitch_range=(72, 60)),
            r"pitch_range=72, 60 \(--range\): expected two MIDI",
        ),
        (lambda w: w.score("text"), "a model of melodies needs"),
    ],
)
def test_mistakes_with_melodies(melodies, call, message):
    with pytest.raises(ValueError, match=message):
        call(melodies)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("ar", {"steps": 4}, "model of kind 'ar': unknown option steps"),
        ("mdlm", {"guidance": 2.0}, "unknown option guidance"),
        ("mdlm", {"rounds": 2}, "rounds=2: only for continuous diffusion"),
        ("ar", {"temperature": -1}, "temperature=-1: expected 0 or a positive"),
        ("cdcd", {"temperature": 0}, "^temperature=0: expected a positive number"),
        ("cdcd", {"score_temperature": 1}, "unknown option score_temperature; did you mean 'te"),
        ("mdlm", {"top_p": 0.5}, "unknown option top_p"),
        ("ar", {"top_p": 0.0}, "top_p=0.0: expected a probability"),
    ],
)
def test_options_of_other_kinds(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_writer(Letters(), kind).compose(**options)


def test_parameters_of_another_network():
    config = tiny_config(kind="ar")
    with pytest.raises(CheckpointError, match="folder does not fit the model"):
        Writer(tiny_config(), tiny_params(config), "folder")


def test_the_shipped_model_of_text_knows_english():
    writer = pretrained.load("cdcd-text")
    sentence = "good morrow my lord what news from the king your father"
    mixed = "".join(np.random.default_rng(0).permutation(list(sentence)))
    real, wrong = (writer.score(text, passes=8).bits_per_token for text in (sentence, mixed))
    assert real < 2.4
    assert wrong > real + 2


def test_the_shipped_model_of_melodies_finds_a_bar_of_a_pattern():
    """Eight bars of the same figure, of which the model is not told the fifth."""
    writer = pretrained.load("cdcd-melody").at_tempo(120)
    onset = np.arange(64) / 4
    tune = make_notes(onset, onset + 0.25, np.tile([60, 64, 67, 64, 72, 67, 64, 67], 8))
    found = writer.infill(tune, bars=(5, 5), count=4, seed=0, steps=32)
    begins = slice(64, 80, 2)  # every other step a note begins
    expected = writer.encode(tune)[begins]
    right = [np.mean(writer.encode(piece.notes)[begins] == expected) for piece in found]
    assert np.mean(right) > 0.4  # by chance one of dozens
