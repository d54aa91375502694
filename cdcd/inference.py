"""Text and melodies that a model makes, fills in, and finds more or less likely.

writer = Writer.from_pretrained("cdcd-text")
writer.sample(3, seed=1)[0].text
writer.infill("to be or ___ to be", count=5)
writer.score("to be or not to be").bits_per_token

writer = Writer.from_pretrained("cdcd-melody")
tune = writer.infill(musax.midi.load_midi("mine.mid"), bars=(5, 8))[0]
musax.midi.save_midi("filled.mid", tune.notes)
"""

import copy
import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cdcd.contents import Melody, Text
from cdcd.model_config import ModelConfig, read_model_config
from cdcd.sampler import SPECIAL_IDS, Rows, SamplerOptions, refine
from cdcd.scoring import BOUND, estimates_of, side_by_side, window_nats
from musax import pretrained
from musax.model_fields import check_fields
from t5x.checkpoints import check_params, load_params
from t5x.compilation_cache import enable_compilation_cache

#: What the temperature of a kind of model is called among its options.
TEMPERATURE = {"cdcd": "score_temperature", "mdlm": "temperature", "ar": "temperature"}
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "cdcd": tuple(f.name for f in dataclasses.fields(SamplerOptions)),
    "mdlm": ("steps", "temperature", "never"),
    "ar": ("temperature", "topp", "never"),
}
_BATCH = 32

#: (tokens made, tokens in all)
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Generated:
    """What a model made.

    Attributes:
      tokens: int32 [n], ids.
      made: bool [n], the tokens that were made; the others were given.
      text: of models of text.
      notes: of models of melodies, a `musax.notes` array, times in s.
    """

    tokens: np.ndarray
    made: np.ndarray
    text: str | None = None
    notes: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """How likely something is.

    Attributes:
      nats: -log p of all tokens, or the estimate of it.
      tokens: how many they are.
      estimate: which, see `cdcd.scoring`.
    """

    nats: float
    tokens: int
    estimate: str

    @property
    def bits_per_token(self) -> float:
        """Of text in letters, bits per character."""
        return self.nats / self.tokens / math.log(2)


class Writer:
    """A model of text or melodies: continuous diffusion, or one of its rivals.

    Args:
      config: what it is.
      params: of the network.
      source: what error messages call them.

    Raises:
      CheckpointError: parameters are missing, unknown, or have other shapes; lists which.
    """

    def __init__(self, config: ModelConfig, params: Any, source: Any = "model"):
        self.config, self.contents = config, config.contents
        self.model = config.model()
        check_params(params, config.param_shapes(), source)
        self.params = jax.device_put(jax.tree.map(lambda x: np.asarray(x, np.float32), params))
        ids = range(config.contents.vocabulary.vocab_size, config.network.vocab_size)
        self._never = (*SPECIAL_IDS, *ids)

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike) -> "Writer":
        """Loads a model.

        Args:
          name_or_dir: the name of a shipped model, or a model folder (`python -m cdcd.export` makes
            one of a training run).

        Raises:
          PretrainedError: an unknown name, or a folder without `config.json`.
          CheckpointError: arrays are missing or do not fit; names them.
          ModelConfigError: a wrong configuration; names the field.
        """
        enable_compilation_cache()
        path = pretrained.resolve(name_or_dir)
        return cls(read_model_config(path), load_params(path), path)

    def at_tempo(self, tempo: float) -> Self:
        """The same model with melodies of another tempo, in quarters a minute.

        Raises:
          ValueError: it is a model of text, or the tempo not positive.
        """
        if not isinstance(self.contents, Melody):
            raise ValueError("a tempo is of melodies, and this is a model of text")
        other = copy.copy(self)
        other.contents = dataclasses.replace(self.contents, tempo=tempo)
        return other

    # ------------------------------------------------------------------------------------ making

    def sample(
        self,
        count: int = 1,
        length: int | None = None,
        seed: int = 0,
        prompt: str | np.ndarray | None = None,
        **options: Any,
    ) -> list[Generated]:
        """Makes text or melodies, from nothing or from a beginning.

        Args:
          count: how many.
          length: tokens of each, those of the prompt included; None for as many as in training.
            Longer ones are made window after window.
          seed: the same gives the same.
          prompt: the beginning: text, or a note array, which counts up to its last note's end.
          **options: those of `fill_in`.

        Raises:
          ValueError: the prompt is not shorter than the length, or see `fill_in`.
        """
        length = self.config.length if length is None else length
        given = np.zeros(0, np.int32) if prompt is None else self.encode(prompt, "prompt")
        if length < 1:
            raise ValueError(f"length={length}: expected 1 or more")
        if len(given) >= length:
            raise ValueError(
                f"the prompt has {len(given)} tokens, and length={length} leaves none to be made: "
                "give a greater length"
            )
        tokens = np.pad(given, (0, length - len(given)))
        return self._fill(tokens, np.arange(length) >= len(given), count, seed, options)

    def infill(
        self,
        given: str | np.ndarray,
        *,
        bars: tuple[int, int] | None = None,
        seconds: tuple[float, float] | None = None,
        blank: str = "_",
        count: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> list[Generated]:
        """Fills gaps in; tokens that are given never change.

        What comes back of a text in letters is normalised (`cdcd.text.normalise_text8`). Of notes
        it is their melody on the model's grid; a note that sounds when the gap begins ends where
        the model ends it.

        Args:
          given: text with blanks, one for each symbol, or a note array.
          bars: of notes: the first and last bar of the gap, counted from 1.
          seconds: of notes, instead: where the gap begins and ends.
          blank: the character that is a blank.
          count: of alternatives.
          seed: the same gives the same.
          **options: those of `fill_in`.

        Raises:
          ValueError: there is no gap, nothing but a gap, or see `fill_in`.
        """
        if isinstance(self.contents, Text):
            if bars is not None or seconds is not None:
                raise ValueError("bars and seconds are of melodies; in text, write blanks")
            tokens, noisy = self.contents.encode_blanks(_as_text(given, "text"), blank)
        else:
            tokens = self.contents.encode(_as_notes(given, "notes"), whole_bars=True)
            noisy = self.contents.gap(len(tokens), bars, seconds)
        return self._fill(tokens, noisy, count, seed, options)

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
        """Makes tokens anew of which others are given.

        The network sees as many as in training. Of longer ones it fills in one window after the
        other, which has up to half of what it sees before the first gap; shorter ones are taken for
        the beginning of what it sees.

        Args:
          tokens: int32 [n], ids.
          noisy: bool [n], True for those to be made.
          count: of results.
          seed: the same gives the same.
          rounds: of continuous diffusion: so often a random `share` of what was made is made anew,
            given all else (`cdcd.sampler.refine`).
          share: see `rounds`.
          progress: called after each window.
          **options: those of the model: of continuous diffusion the fields of
            `cdcd.sampler.SamplerOptions`, of masked diffusion `steps` and `temperature`, of the
            autoregressive model `temperature` and `topp`.

        Returns:
          int32 [count, n].

        Raises:
          ValueError: an argument is unknown or out of range, or a token none of the model's.
          NotFiniteError: the network made NaN.
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
            rows[:, kept] = self._make_window(
                rows[:, seen], noisy[seen], jax.random.fold_in(key, number), settings, rounds, share
            )[:, : kept.stop - kept.start]
            noisy[kept] = False
            number += 1
            if progress is not None:
                progress(whole - int(noisy.sum()), whole)
        return rows

    def _fill(
        self, tokens: np.ndarray, noisy: np.ndarray, count: int, seed: int, options: dict[str, Any]
    ) -> list[Generated]:
        rows = self.fill_in(tokens, noisy, count, seed=seed, **options)
        name = "text" if isinstance(self.contents, Text) else "notes"
        return [Generated(row, noisy, **{name: self.contents.decode(row)}) for row in rows]

    def _settings(self, options: Mapping[str, Any], rounds: int) -> dict[str, Any]:
        """The options of the model, checked."""
        kind = self.config.kind
        check_fields(options, _OPTIONS[kind], f"a model of kind {kind!r}", what="option")
        settings = {"never": self._never, **options}
        if kind == "cdcd":
            self.model.sampler_options(**settings)  # type: ignore[union-attr]
        elif rounds:
            raise ValueError(f"rounds={rounds}: only of continuous diffusion, not of {kind!r}")
        return settings

    def _make_window(
        self,
        tokens: np.ndarray,
        noisy: np.ndarray,
        key: Array,
        settings: Mapping[str, Any],
        rounds: int,
        share: float,
    ) -> np.ndarray:
        """Rows [count, n] of at most the training length with `noisy` [n] made, by batches."""
        width = tokens.shape[1]
        if self.config.kind != "ar":  # which does not see what is to come
            missing = self.config.length - width
            tokens = np.pad(tokens, ((0, 0), (0, missing)))
            noisy = np.pad(noisy, (0, missing), constant_values=True)
        made = []
        for first in range(0, len(tokens), _BATCH):
            part = jnp.asarray(tokens[first : first + _BATCH])
            rows = Rows(part, jnp.broadcast_to(jnp.asarray(noisy), part.shape))
            make_key, refine_key = jax.random.split(jax.random.fold_in(key, first))
            found = self.model.make(self.params, rows, make_key, **settings)
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
            made.append(np.asarray(found))
        return np.concatenate(made)[:, :width]

    # ----------------------------------------------------------------------------------- scoring

    def encode(self, content: str | np.ndarray, what: str = "content") -> np.ndarray:
        """Ids int32 [n] of a text or a note array.

        Raises:
          ValueError: it is empty, something else, or has what the model does not know.
        """
        if isinstance(self.contents, Text):
            return self.contents.encode(_as_text(content, what), what)
        return self.contents.encode(_as_notes(content, what), what)

    def score(
        self,
        content: str | np.ndarray,
        method: str | None = None,
        *,
        seed: int = 0,
        passes: int = 32,
    ) -> Score:
        """How likely a text or the melody of notes is.

        What is longer than a row in training is scored in windows side by side, each by itself.

        Args:
          content: text or a note array.
          method: an estimate, see `cdcd.scoring`; None for "exact" of the autoregressive model,
            and for "any_order" of the others. Of different kinds of models, "exact" compares with
            "left_to_right", the slowest; "bound" is an upper bound of the nats on average, of
            whole windows alone.
          seed: of what is random in estimates.
          passes: see `cdcd.scoring.window_nats`; more is less random.

        Raises:
          ValueError: the content is empty, has what the model does not know or is too short for a
            bound, or the model has no such estimate.
        """
        known = estimates_of(self.model)
        method = known[0] if method is None else method
        if method not in known:
            raise ValueError(f"method={method!r}: this model has {', '.join(known)}")
        if passes < 1:
            raise ValueError(f"passes={passes}: expected 1 or more")
        tokens = self.encode(content)
        if method == BOUND:  # rows that are shorter than in training are badly denoised
            tokens = tokens[: len(tokens) // self.config.length * self.config.length]
            if not len(tokens):
                raise ValueError(
                    f"a bound is of {self.config.length} tokens at least, a row in training: use "
                    "another method"
                )
        windows = side_by_side(tokens, self.config.length)
        key = jax.random.key(seed)
        nats = window_nats(self.model, self.params, windows, method, key, passes)
        return Score(float(nats.sum()), len(tokens), method)


def _as_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what}: this is a model of text; expected a string")
    return value


def _as_notes(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{what}: this is a model of melodies; expected a note array")
    return value


def _next_window(noisy: np.ndarray, length: int) -> tuple[slice, slice]:
    """What of noisy [n] to look at next, and as much of it as is then kept.

    The first gap is kept; a later one that the end of the window cuts is left for the next, which
    sees what is behind it.
    """
    first, whole = int(np.argmax(noisy)), len(noisy)
    start = max(0, min(first - length // 2, whole - length))
    stop = min(start + length, whole)
    kept = stop
    if stop < whole and noisy[stop]:
        given = np.flatnonzero(~noisy[first:stop])
        kept = first + int(given[-1]) + 1 if given.size else stop
    return slice(start, stop), slice(start, kept)
