"""Music that a model makes up, from nothing or from a beginning.

composer = Composer.from_pretrained("perceiver_ar-pop909")
piece = composer.compose(seconds=60, seed=1)
musax.midi.save_midi("piece.mid", piece.notes)

piece = composer.compose(musax.midi.load_midi("mine.mid"), prompt_seconds=20, seconds=30)
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from musax import pretrained
from musax.events.codec import SHIFT
from musax.events.piece_grammar import piece_grammar
from musax.events.pieces import PieceEncoding
from musax.notes import shift_notes, validate_notes
from perceiver_ar.generation import generate
from perceiver_ar.model_config import ModelConfig, read_model_config
from perceiver_ar.music import encode_piece
from perceiver_ar.network import PerceiverAR
from perceiver_ar.sampler import Sampler
from perceiver_ar.tasks import SOS
from t5x.checkpoints import check_params, load_params
from t5x.compilation_cache import enable_compilation_cache
from t5x.data.vocabularies import EOS_ID, NUM_SPECIAL_IDS

#: Sampling by default: what is least likely is left out.
TEMPERATURE, TOP_P = 1.0, 0.98

#: Notes of performance events that a model has let sound for so long are ended, s.
LONGEST_NOTE = 8.0

#: Tokens that a second of music is given room for.
_TOKENS_PER_SECOND = 80
_MIN_INPUTS = 1024

#: (seconds of music made, seconds in all)
Progress = Callable[[float, float], None]


@dataclasses.dataclass(frozen=True)
class Composition:
    """A piece of music.

    Attributes:
      notes: `musax.notes` array by onset, those of the prompt included; times in s.
      prompt_seconds: where the last event of the prompt is and the new music begins; 0 without
        one.
      seconds: length of prompt and new music.
      ended: the model ended the piece itself, before its time was up.
      tokens: int32 [L], SOS, the events of prompt and new music, and EOS if the model wrote it.
    """

    notes: np.ndarray
    prompt_seconds: float
    seconds: float
    ended: bool
    tokens: np.ndarray


class Composer:
    """A model of music.

    Args:
      config: what it is.
      params: of the network.
      source: what error messages call them.

    Raises:
      CheckpointError: parameters are missing, unknown, or have other shapes; lists which.
    """

    def __init__(self, config: ModelConfig, params: Any, source: Any = "model"):
        self.config = config
        network = PerceiverAR(config.network)
        tokens = np.ones((1, config.network.z_index_dim), np.int32)
        expected = jax.eval_shape(network.init, jax.random.key(0), tokens)["params"]
        check_params(params, expected, source)
        self.params = jax.device_put(jax.tree.map(lambda x: np.asarray(x, np.float32), params))
        self._clock = _Clock(config.encoding)
        classes = config.network.num_classes
        self._grammar = piece_grammar(config.encoding, classes, LONGEST_NOTE)

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike) -> "Composer":
        """Loads a model.

        Args:
          name_or_dir: the name of a shipped model, or a model folder (`python -m
            perceiver_ar.export` makes one of a training run).

        Raises:
          PretrainedError: an unknown name, or a folder without `config.json`.
          CheckpointError: arrays are missing or do not fit; names them.
          ModelConfigError: a wrong configuration; names the field.
        """
        enable_compilation_cache()
        path = pretrained.resolve(name_or_dir)
        return cls(read_model_config(path), load_params(path), path)

    def compose(self, prompt: np.ndarray | None = None, **options: Any) -> Composition:
        """Makes up a piece, or goes on with one; the options are those of `compose_many`."""
        return self.compose_many(1, prompt, **options)[0]

    def compose_many(
        self,
        count: int,
        prompt: np.ndarray | None = None,
        *,
        seconds: float = 60.0,
        prompt_seconds: float | None = None,
        seed: int = 0,
        temperature: float = TEMPERATURE,
        topk: int = 0,
        topp: float = TOP_P,
        progress: Progress | None = None,
    ) -> list[Composition]:
        """Makes up pieces together, which is faster than one after the other.

        Args:
          count: of pieces.
          prompt: note array they begin with; None for from nothing.
          seconds: of new music; a piece is cut there, unless the model ends it before.
          prompt_seconds: only so much of the prompt is used; notes that sound on then are ended by
            the model.
          seed: the same gives the same pieces.
          temperature: above 1 is wilder, below 1 tamer; 0 always takes the most likely event.
          topk: sample among so many of the most likely events; 0 for all.
          topp: sample among the most likely events of so much probability together; 1 for all.
          progress: called as music is made.

        Raises:
          EmptyPieceError: the prompt has no notes.
          ValueError: an argument is out of range, or the prompt is longer than the network knows.
        """
        _check_options(count, seconds, prompt_seconds, temperature, topp)
        start, lead, begins = self._prompt_tokens(prompt, prompt_seconds)
        room = len(start) + int(_TOKENS_PER_SECOND * seconds)
        room = max(1 << (room - 1).bit_length(), _MIN_INPUTS)
        sampler = Sampler(self.config.network, min(room, *self.config.network.max_positions))
        self._clock.start(count, seconds, progress)
        # Numbers as arrays do not compile anew for every value; a temperature of 0 is greedy.
        numbers = {"topk": jnp.int32(topk), "topp": jnp.float32(0 if topp == 1 else topp)}
        numbers["temperature"] = jnp.float32(temperature) if temperature else 0.0
        tokens, _ = generate(
            sampler,
            self.params,
            [start] * count,
            rng=jax.random.key(seed),
            stream_fn=self._clock,
            stream_every=16,
            constraint=self._grammar,
            **numbers,
        )
        return [self._composition(row[0], lead, begins, begins + seconds) for row in tokens]

    def _prompt_tokens(
        self, prompt: np.ndarray | None, seconds: float | None
    ) -> tuple[np.ndarray, float, float]:
        """Tokens of the prompt, the silence before its first note, and where it ends, in s."""
        if prompt is None:
            return np.array([SOS], np.int32), 0.0, 0.0
        notes = validate_notes(prompt, "prompt")
        if seconds is not None:
            notes = notes[notes["onset"] < seconds]
        encoding = self.config.encoding
        tokens, lead = encode_piece(notes, encoding), float(notes["onset"].min())
        steps = _elapsed_steps(tokens - NUM_SPECIAL_IDS, encoding)
        if seconds is not None:
            end = int(np.searchsorted(steps, (seconds - lead) * encoding.steps_per_second))
            tokens, steps = tokens[:end], steps[:end]
        return tokens, lead, lead + float(steps[-1]) / encoding.steps_per_second

    def _composition(self, row: np.ndarray, lead: float, begins: float, ends: float) -> Composition:
        """What a row of sampled tokens says, cut at `ends` s."""
        stop = np.flatnonzero(row <= EOS_ID)
        length = int(stop[0]) if stop.size else len(row)
        encoding, events = self.config.encoding, row[1:length] - NUM_SPECIAL_IDS
        decoded = encoding.decode(events)
        steps = int(_elapsed_steps(events, encoding).max(initial=0))
        seconds = lead + steps / encoding.steps_per_second
        by_model = bool(length < len(row) and row[length] == EOS_ID)
        notes = shift_notes(decoded.notes, lead)
        notes = notes[notes["onset"] < ends]
        notes["offset"] = np.minimum(notes["offset"], ends)
        return Composition(
            notes,
            begins,
            min(seconds, ends),
            by_model and seconds < ends,
            row[: length + by_model],
        )


def _check_options(
    count: int,
    seconds: float,
    prompt_seconds: float | None,
    temperature: float,
    topp: float,
) -> None:
    for name, value, good, expected in (
        ("count", count, count >= 1, "1 or more"),
        ("seconds", seconds, 0 < seconds < np.inf, "a positive number"),
        (
            "prompt_seconds",
            prompt_seconds,
            prompt_seconds is None or 0 < prompt_seconds < np.inf,
            "a positive number, or None",
        ),
        ("temperature", temperature, 0 <= temperature < np.inf, "0 or a positive number"),
        ("topp", topp, 0 < topp <= 1, "a probability above 0, up to 1"),
    ):
        if not good:
            raise ValueError(f"{name}={value}: expected {expected}")


def _elapsed_steps(events: np.ndarray, encoding: PieceEncoding) -> np.ndarray:
    """Time steps since the beginning after each event id, int [..., L]; other ids take none."""
    low, high = encoding.codec.event_type_range(SHIFT)
    is_shift = (events >= low) & (events <= high)
    return np.cumsum(np.where(is_shift, events - low, 0), axis=-1)


class _Clock:
    """Listens to sampling, tells how much music there is, and ends it when that is enough."""

    def __init__(self, encoding: PieceEncoding):
        self._encoding = encoding

    def start(self, rows: int, seconds: float, progress: Progress | None) -> None:
        """Of what is sampled next."""
        self._steps, self._ended = np.zeros(rows, np.int64), np.zeros(rows, bool)
        self._seconds, self._progress = seconds, progress

    def __call__(self, tokens: np.ndarray) -> bool:
        """Takes new tokens [B, 1, n]; whether there is enough of every piece."""
        tokens = tokens[:, 0]
        if tokens.shape[1]:
            steps = _elapsed_steps(tokens - NUM_SPECIAL_IDS, self._encoding)[:, -1]
            self._steps += steps
            self._ended |= (tokens <= EOS_ID).any(axis=1)
        enough = self._seconds * self._encoding.steps_per_second
        missing = np.where(self._ended, enough, self._steps).min() / enough
        if self._progress is not None:
            self._progress(min(missing, 1.0) * self._seconds, self._seconds)
        return bool(missing >= 1)
