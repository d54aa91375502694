"""Models of text and melodies that compose, fill in and score.

writer = Writer.from_pretrained("cdcd-text")
writer.compose(count=3, seed=1)[0].text
writer.infill("to be or ___ to be", count=5)
writer.score("to be or not to be").bits_per_token

writer = Writer.from_pretrained("cdcd-melody")
writer.infill(musax.midi.load_midi("mine.mid"), bars=(5, 8))[0].save("filled.mid")
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cdcd.contents import Melody
from cdcd.contents import Text as TextContents
from cdcd.model_config import ModelConfig
from cdcd.sampler import SPECIAL_IDS, Rows, SamplerOptions, refine
from cdcd.scoring import BOUND, estimates_of, side_by_side, window_nats
from musax.model_config import PretrainedModel, check_fields
from musax.results import Piece, Score, Text

_SAMPLER_OPTIONS = {f.name for f in dataclasses.fields(SamplerOptions)} - {
    "score_temperature",
    "topp",
}
#: The option of each kind of model that is its temperature.
TEMPERATURE = {"cdcd": "score_temperature", "mdlm": "temperature", "ar": "temperature"}
#: Options of each kind of model, and their names in the model.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "cdcd": {
        **{name: name for name in _SAMPLER_OPTIONS},
        "temperature": TEMPERATURE["cdcd"],
        "top_p": "topp",
    },
    "mdlm": {"steps": "steps", "temperature": "temperature", "never": "never"},
    "ar": {"temperature": "temperature", "top_p": "topp", "never": "never"},
}
_BATCH = 32
#: Where the median pitch of a composed melody is by default.
TREBLE = (55, 96)
_ROUNDS_IN_RANGE = 6

#: (tokens sampled, tokens in all)
Progress = Callable[[int, int], None]


class Writer(PretrainedModel[ModelConfig]):
    """A model of text or melodies: continuous diffusion, masked diffusion or autoregressive.

    Args:
      config: the configuration.
      params: of the network.
      source: the file of the parameters, for messages.

    Raises:
      CheckpointError: arrays are missing, unknown, or of other shapes; lists which.
    """

    config_class = ModelConfig

    def __init__(self, config: ModelConfig, params: Any, source: Any = "model"):
        super().__init__(config, params, source)
        self.contents = config.contents
        self.model = config.model()
        ids = range(config.contents.vocabulary.vocab_size, config.network.vocab_size)
        self._never = (*SPECIAL_IDS, *ids)

    @classmethod
    def options(cls, task: str, config: ModelConfig) -> Collection[str]:
        """Return the names of the options of a task, those of the kind of model included."""
        names = set(super().options(task, config))
        if task != "score":
            names |= {*_OPTIONS[config.kind], "progress"}
            names |= {"rounds", "share"} if config.kind == "cdcd" else set()
        if config.content == "text":
            return names - {"bars", "seconds", "tempo", "pitch_range"}
        return names - {"blank"}

    def at_tempo(self, tempo: float) -> Self:
        """Return the same model with melodies of another tempo, quarter notes per minute.

        Raises:
          ValueError: a model of text, or a tempo that is not positive.
        """
        if not isinstance(self.contents, Melody):
            raise ValueError(f"tempo={tempo}: only models of melodies have one, this is of text")
        other = copy.copy(self)
        other.contents = dataclasses.replace(self.contents, tempo=tempo)
        return other

    # --------------------------------------------------------------------------------- composing

    def compose(
        self,
        prompt: str | np.ndarray | None = None,
        *,
        count: int = 1,
        tokens: int | None = None,
        bars: int | None = None,
        seconds: float | None = None,
        tempo: float | None = None,
        pitch_range: tuple[int, int] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> list[Piece] | list[Text]:
        """Compose texts or melodies, with or without a prompt.

        Args:
          prompt: the beginning: text, or a note array up to the end of its last note.
          count: number of results, which are composed together.
          tokens: length after the prompt; by default up to the training length. A
            longer sequence is sampled window after window.
          bars, seconds: for melodies, the length after the prompt instead of `tokens`.
          tempo: for melodies, quarter notes per minute; None for that of the configuration.
          pitch_range: for melodies without a prompt, MIDI pitches: those whose median is outside
            are sampled again, since half of what the model has learnt are bass lines; None for
            `TREBLE`.
          seed: the same seed gives the same results.
          **options: those of `fill_in`.

        Returns:
          `musax.results.Text`s or `Piece`s.

        Raises:
          ValueError: several lengths, or one that is not positive; a prompt of the training length
            without one; or see `fill_in`.
        """
        writer = self if tempo is None else self.at_tempo(tempo)
        if pitch_range is not None and isinstance(self.contents, TextContents):
            raise ValueError("pitch_range: only for models of melodies")
        if pitch_range is not None and prompt is not None:
            raise ValueError("pitch_range: only without a prompt, whose range is continued")
        given = np.zeros(0, np.int32) if prompt is None else writer.encode(prompt, "prompt")
        length = len(given) + writer._new_tokens(len(given), tokens, bars, seconds)
        row = np.pad(given, (0, length - len(given)))
        noisy = np.arange(length) >= len(given)
        if prompt is None and isinstance(self.contents, Melody):
            return writer._fill_in_range(row, noisy, count, seed, options, pitch_range or TREBLE)
        return writer._fill(row, noisy, count, seed, options)

    def _fill_in_range(
        self,
        tokens: np.ndarray,
        noisy: np.ndarray,
        count: int,
        seed: int,
        options: dict[str, Any],
        pitch_range: tuple[int, int],
    ) -> list[Any]:
        """Return pieces whose median pitch is in a range; after some rounds, the nearest to it."""
        low, high = pitch_range
        if not 0 <= low <= high <= 127:
            raise ValueError(
                f"pitch_range={low}, {high} (--range): expected two MIDI pitches, the low one first"
            )
        found: list[tuple[float, Any]] = []
        for number in range(_ROUNDS_IN_RANGE):
            key = (
                seed
                if number == 0
                else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            )
            # Twice as many as are wanted, since half are in the treble; never fewer than pay off.
            for piece in self._fill(tokens, noisy, max(2 * count, 4), key, options):
                pitch = np.median(piece.notes["pitch"]) if len(piece.notes) else -128.0
                found.append((max(low - pitch, pitch - high, 0.0), piece))
            inside = sum(distance == 0 for distance, _ in found)
            if inside >= count:
                break
        else:
            warnings.warn(
                f"{inside} of {count} melodies have their median pitch in {low} to {high}; the "
                "others are the nearest",
                stacklevel=3,
            )
        return [piece for _, piece in sorted(found, key=lambda each: each[0])[:count]]

    def _new_tokens(
        self, given: int, tokens: int | None, bars: int | None, seconds: float | None
    ) -> int:
        """Return the number of tokens to compose after `given` ones, as one length asks."""
        lengths = {"tokens": tokens, "bars": bars, "seconds": seconds}
        asked = {name: value for name, value in lengths.items() if value is not None}
        if len(asked) > 1:
            raise ValueError(f"{', '.join(asked)}: expected one length")
        if not asked:
            if given >= self.config.length:
                raise ValueError(
                    f"prompt: {given} tokens, the training length is {self.config.length}: give "
                    "the length after the prompt"
                )
            return self.config.length - given
        ((name, value),) = asked.items()
        scale = 1.0
        if name != "tokens":
            melody = self.contents
            if not isinstance(melody, Melody):
                raise ValueError(f"{name}={value}: only for models of melodies; give tokens")
            scale = melody.steps_per_bar if name == "bars" else melody.steps_per_second
        if not value * scale >= 1:
            raise ValueError(f"{name}={value}: expected a length of one token or more")
        return round(value * scale)

    def infill(
        self,
        given: str | np.ndarray,
        *,
        bars: tuple[int, int] | None = None,
        seconds: tuple[float, float] | None = None,
        blank: str = "_",
        tempo: float | None = None,
        count: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> list[Piece] | list[Text]:
        """Fill in gaps; given tokens never change.

        Text of letters is returned normalised (`cdcd.text.normalise_text8`), notes as their melody
        on the model's grid. The model may end a note that sounds when the gap begins.

        Args:
          given: text with blanks, one for each symbol, or a note array.
          bars: for notes, the first and last bar of the gap, counted from 1, in 4/4 at `tempo`; for
            those of a file in another metre see `musax.timeline.Timeline.bar`.
          seconds: for notes, instead of bars, start and end of the gap; it may reach two bars
            beyond the last.
          blank: the character that stands for a blank.
          tempo: for notes, quarter notes per minute; None for that of the configuration.
          count: number of results, which are filled in together.
          seed: the same seed gives the same results.
          **options: those of `fill_in`.

        Returns:
          `musax.results.Text`s or `Piece`s.

        Raises:
          ValueError: no gap, no given token, or see `fill_in`.
        """
        writer = self if tempo is None else self.at_tempo(tempo)
        contents = writer.contents
        if isinstance(contents, TextContents):
            if bars is not None or seconds is not None:
                raise ValueError("bars, seconds: only for models of melodies; mark blanks in text")
            tokens, noisy = contents.encode_blanks(_as_text(given, "text"), blank)
        else:
            tokens = contents.encode(_as_notes(given, "notes"), whole_bars=True)
            tokens = contents.extend(tokens, seconds)
            noisy = contents.gap(len(tokens), bars, seconds)
        return writer._fill(tokens, noisy, count, seed, options)

    def fill_in(
        self,
        tokens: np.ndarray,
        noisy: np.ndarray,
        count: int = 1,
        *,
        seed: int = 0,
        rounds: int = 0,
        share: float = 0.5,
        progress: Progress | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Sample some tokens given the others.

        The network sees as many tokens as in training. Longer sequences are filled in window after
        window, each with up to half of its tokens before its first gap; shorter ones are the
        beginning of what the network sees.

        Args:
          tokens: int32 [n], ids.
          noisy: bool [n], True for those to sample.
          count: number of results.
          seed: the same seed gives the same results.
          rounds: for continuous diffusion, number of refinement rounds, each of which samples a
            random `share` of the new tokens again, given all others (`cdcd.sampler.refine`).
          share: see `rounds`.
          progress: called after each window.
          **options: for continuous diffusion `temperature` (of the score), `top_p` and the other
            fields of `cdcd.sampler.SamplerOptions`; for masked diffusion `steps` and
            `temperature`; for the autoregressive model `temperature` and `top_p`.

        Returns:
          int32 [count, n].

        Raises:
          ValueError: an unknown option or one out of range, or a token outside the vocabulary.
          NotFiniteError: the network returned NaN.
        """
        tokens, noisy = np.asarray(tokens, np.int32), np.array(noisy, bool)
        if tokens.ndim != 1 or tokens.shape != noisy.shape or count < 1 or rounds < 0:
            raise ValueError(
                f"tokens {tokens.shape}, noisy {noisy.shape}, count={count}, rounds={rounds}: "
                "expected [n] and [n], 1 or more, and 0 or more"
            )
        settings = self._settings(options, rounds)
        rows, whole = np.repeat(tokens[None], count, axis=0), int(noisy.sum())
        key, number = jax.random.key(seed), 0
        while noisy.any():
            seen, kept = _next_window(noisy, self.config.length)
            rows[:, kept] = self._sample_window(
                rows[:, seen], noisy[seen], jax.random.fold_in(key, number), settings, rounds, share
            )[:, : kept.stop - kept.start]
            noisy[kept] = False
            number += 1
            if progress is not None:
                progress(whole - int(noisy.sum()), whole)
        return rows

    def _fill(
        self, tokens: np.ndarray, noisy: np.ndarray, count: int, seed: int, options: dict[str, Any]
    ) -> list[Any]:
        rows = self.fill_in(tokens, noisy, count, seed=seed, **options)
        contents = self.contents
        if isinstance(contents, TextContents):
            return [Text(contents.decode(row), row, noisy) for row in rows]
        rate = contents.steps_per_second
        seconds, start = len(tokens) / rate, int(noisy.argmax()) / rate
        return [
            Piece(contents.decode(row), seconds, start, False, row, noisy, contents.tempo)
            for row in rows
        ]

    def _settings(self, options: Mapping[str, Any], rounds: int) -> dict[str, Any]:
        """Return the options under the names of the model, checked."""
        kind = self.config.kind
        check_fields(options, _OPTIONS[kind], f"a model of kind {kind!r}", what="option")
        _check_sampling(options.get("temperature", 1.0), options.get("top_p", 1.0), kind == "ar")
        settings = {"never": self._never, **{_OPTIONS[kind][k]: v for k, v in options.items()}}
        if kind == "cdcd":
            self.model.sampler_options(**settings)  # type: ignore[union-attr]
        elif rounds:
            raise ValueError(f"rounds={rounds}: only for continuous diffusion, not for {kind!r}")
        return settings

    def _sample_window(
        self,
        tokens: np.ndarray,
        noisy: np.ndarray,
        key: Array,
        settings: Mapping[str, Any],
        rounds: int,
        share: float,
    ) -> np.ndarray:
        """Return rows [count, n], n up to the training length, with `noisy` [n] sampled."""
        width = tokens.shape[1]
        if self.config.kind != "ar":  # which sees only the tokens before
            missing = self.config.length - width
            tokens = np.pad(tokens, ((0, 0), (0, missing)))
            noisy = np.pad(noisy, (0, missing), constant_values=True)
        parts = []
        for first in range(0, len(tokens), _BATCH):
            part = jnp.asarray(tokens[first : first + _BATCH])
            rows = Rows(part, jnp.broadcast_to(jnp.asarray(noisy), part.shape))
            sample_key, refine_key = jax.random.split(jax.random.fold_in(key, first))
            found = self.model.make(self.params, rows, sample_key, **settings)
            if rounds:
                found = refine(
                    self.model.denoising,  # type: ignore[union-attr]
                    self.params,
                    rows._replace(tokens=found),
                    refine_key,
                    self.model.sampler_options(**settings),  # type: ignore[union-attr]
                    rounds=rounds,
                    share=share,
                    distribution=self.model.distribution(self.params),  # type: ignore[union-attr]
                )
            parts.append(np.asarray(found))
        return np.concatenate(parts)[:, :width]

    # ----------------------------------------------------------------------------------- scoring

    def encode(self, content: str | np.ndarray, what: str = "content") -> np.ndarray:
        """Return ids int32 [n] of a text or a note array.

        Raises:
          ValueError: an empty one, another type, or symbols outside the vocabulary.
        """
        if isinstance(self.contents, TextContents):
            return self.contents.encode(_as_text(content, what), what)
        return self.contents.encode(_as_notes(content, what), what)

    def score(
        self,
        content: str | np.ndarray,
        *,
        estimate: str | None = None,
        tempo: float | None = None,
        seed: int = 0,
        passes: int = 32,
    ) -> Score:
        """Return the likelihood of a text, or of the melody of notes.

        Consecutive windows of the training length are scored independently.

        Args:
          content: text or a note array.
          estimate: see `cdcd.scoring`; None for "exact" with the autoregressive model and
            "any_order" with the others. To compare kinds of models, set "left_to_right", the
            slowest, beside "exact". "bound" is an upper bound of the nats in expectation, and
            scores whole windows only.
          tempo: for notes, quarter notes per minute; None for that of the configuration.
          seed: of random estimates.
          passes: see `cdcd.scoring.window_nats`; more passes reduce the variance.

        Raises:
          ValueError: the content is empty, has symbols outside the vocabulary or is too short for
            a bound, or the model has no such estimate.
        """
        known = estimates_of(self.model)
        chosen = known[0] if estimate is None else estimate
        if chosen not in known:
            raise ValueError(f"estimate={chosen!r}: expected one of {', '.join(known)}")
        if passes < 1:
            raise ValueError(f"passes={passes}: expected 1 or more")
        tokens = (self if tempo is None else self.at_tempo(tempo)).encode(content)
        if chosen == BOUND:  # rows shorter than in training are badly denoised
            tokens = tokens[: len(tokens) // self.config.length * self.config.length]
            if not len(tokens):
                raise ValueError(
                    f"a bound needs at least {self.config.length} tokens, the training length: "
                    "use another estimate"
                )
        windows = side_by_side(tokens, self.config.length)
        key = jax.random.key(seed)
        nats = window_nats(self.model, self.params, windows, chosen, key, passes)
        return Score(float(nats.sum()), len(tokens), chosen)


def _check_sampling(temperature: float, top_p: float, greedy: bool) -> None:
    """Raise ValueError for options out of range, such as temperature 0 unless `greedy`."""
    if not (temperature > 0 or (greedy and temperature == 0)):
        expected = "0 or a positive number" if greedy else "a positive number"
        raise ValueError(f"temperature={temperature}: expected {expected}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: expected a probability above 0, up to 1")


def _as_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what}: a model of text needs a string, got {type(value).__name__}")
    return value


def _as_notes(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"{what}: a model of melodies needs a note array, got {type(value).__name__}"
        )
    return value


def _next_window(noisy: np.ndarray, length: int) -> tuple[slice, slice]:
    """Return the next window of noisy [n], and its part whose samples are kept.

    The first gap is kept; a later one that the end of the window cuts is left to the next window,
    which sees the tokens behind it.
    """
    first, whole = int(np.argmax(noisy)), len(noisy)
    start = max(0, min(first - length // 2, whole - length))
    stop = min(start + length, whole)
    kept = stop
    if stop < whole and noisy[stop]:
        given = np.flatnonzero(~noisy[first:stop])
        kept = first + int(given[-1]) + 1 if given.size else stop
    return slice(start, stop), slice(start, kept)
