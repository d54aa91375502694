"""Models of music that compose and score.

composer = Composer.from_pretrained("perceiver_ar-pop909")
composer.compose(seconds=60, seed=1)[0].save("piece.mid")
composer.compose(musax.midi.load_midi("mine.mid"), prompt_seconds=20, seconds=30, count=4)
composer.score(musax.midi.load_midi("mine.mid")).bits_per_token
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from musax.events.codec import SHIFT
from musax.events.piece_grammar import piece_grammar
from musax.events.pieces import PieceEncoding
from musax.model_config import PretrainedModel
from musax.notes import shift_notes, validate_notes
from musax.results import Piece, Score
from perceiver_ar.generation import generate
from perceiver_ar.model_config import ModelConfig
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.music import EmptyPieceError, encode_piece, heard_notes
from perceiver_ar.network import PerceiverAR
from perceiver_ar.sampler import Sampler
from perceiver_ar.tasks import SOS
from t5x.data.vocabularies import EOS_ID, NUM_SPECIAL_IDS

#: Default options of sampling; the least likely events are left out.
TEMPERATURE, TOP_P = 1.0, 0.98

#: Notes of performance events that the model does not end are ended after this time, s.
LONGEST_NOTE = 8.0

#: Tokens allocated for a second of music.
_TOKENS_PER_SECOND = 80
_MIN_INPUTS = 1024
#: Windows scored in one call.
_SCORED_TOGETHER = 4

#: (seconds of music composed, seconds in all)
Progress = Callable[[float, float], None]


class Composer(PretrainedModel[ModelConfig]):
    """A model of music.

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
        self.model = PerceiverARModel(PerceiverAR(config.network), None, None)
        self._clock = _Clock(config.encoding)
        classes = config.network.num_classes
        self._grammar = piece_grammar(config.encoding, classes, LONGEST_NOTE)

    def compose(
        self,
        prompt: np.ndarray | None = None,
        *,
        count: int = 1,
        seconds: float = 60.0,
        prompt_seconds: float | None = None,
        seed: int = 0,
        temperature: float = TEMPERATURE,
        top_k: int = 0,
        top_p: float = TOP_P,
        progress: Progress | None = None,
    ) -> list[Piece]:
        """Compose pieces, with or without a prompt.

        Args:
          prompt: note array that the pieces begin with; None for none.
          count: number of pieces; together they take little longer than one.
          seconds: length of the new music; the model may end a piece before.
          prompt_seconds: use only the beginning of the prompt; the model ends the notes that still
            sound there.
          seed: the same seed gives the same pieces.
          temperature: divides the logits: above 1 for more variety, below 1 for less; 0 always
            takes the most likely event.
          top_k: sample among this many of the most likely events; 0 for all.
          top_p: sample among the most likely events that together have this probability; 1 for
            all.
          progress: called while sampling.

        Raises:
          EmptyPieceError: the prompt has no notes, or none in its first `prompt_seconds`.
          ValueError: an option is out of range, or the prompt fills the model's positions. Music
            that ends early because they are full is a warning.
        """
        _check_options(count, seconds, prompt_seconds, temperature, top_p)
        start, lead, begins = self._prompt_tokens(prompt, prompt_seconds)
        positions = min(self.config.network.max_positions)
        if len(start) >= positions:
            raise ValueError(
                f"prompt: {len(start)} tokens, and the model has positions for {positions}: use "
                "less of it with prompt_seconds (--prompt-seconds)"
            )
        room = len(start) + int(_TOKENS_PER_SECOND * seconds)
        room = max(1 << (room - 1).bit_length(), _MIN_INPUTS)
        room = min(room, positions)
        sampler = Sampler(self.config.network, room)
        self._clock.start(count, seconds, progress)
        # Arrays, unlike numbers, do not compile a program for each value; temperature 0 is greedy.
        numbers: dict[str, Any] = {
            "topk": jnp.int32(top_k),
            "topp": jnp.float32(0 if top_p == 1 else top_p),
        }
        numbers["temperature"] = jnp.float32(temperature) if temperature else 0.0
        tokens, _ = generate(
            sampler,
            self.params,
            np.tile(start, (count, 1)),
            rng=jax.random.key(seed),
            stream_fn=self._clock,
            stream_every=16,
            constraint=self._grammar,
            **numbers,
        )
        pieces = [self._piece(row[0], lead, begins, begins + seconds) for row in tokens]
        _warn_if_cut_short(pieces, len(start), room, seconds)
        return pieces

    def score(self, notes: np.ndarray) -> Score:
        """Return the exact log-likelihood of the events of a piece, from its first note on.

        Longer pieces than the context are scored in overlapping windows, in which every event has
        at least half of the latents before it.

        Args:
          notes: note array [N].

        Raises:
          EmptyPieceError: no notes that the encoding can express.
          ValueError: invalid notes.
        """
        from perceiver_ar.likelihood import score_sequences

        tokens = encode_piece(validate_notes(notes, "notes"), self.config.encoding)
        network = self.config.network
        (scores,) = score_sequences(
            self.model,
            self.params,
            [{"tokens": tokens}],
            context=network.max_context_length,
            num_latents=network.z_index_dim,
            stride=max(network.z_index_dim // 2, 1),
            batch_size=1 if len(tokens) <= network.z_index_dim else _SCORED_TOGETHER,
        )
        return Score(float(scores.nats.sum(dtype=np.float64)), len(tokens) - 1, "exact")

    def _prompt_tokens(
        self, prompt: np.ndarray | None, seconds: float | None
    ) -> tuple[np.ndarray, float, float]:
        """Return the tokens of the prompt, the silence before its first note, and its end, s."""
        if prompt is None:
            return np.array([SOS], np.int32), 0.0, 0.0
        encoding = self.config.encoding
        notes = heard_notes(validate_notes(prompt, "prompt"), encoding)
        first = notes["onset"].min()
        if seconds is not None:
            notes = notes[notes["onset"] < seconds]
        if not len(notes):
            raise EmptyPieceError(
                f"prompt: no notes in its first {seconds:g} s, the first begins at {first:.2f} s: "
                "use more of it with prompt_seconds (--prompt-seconds)"
            )
        tokens, lead = encode_piece(notes, encoding), float(first)
        steps = _elapsed_steps(tokens - NUM_SPECIAL_IDS, encoding)
        if seconds is not None:
            end = int(np.searchsorted(steps, (seconds - lead) * encoding.steps_per_second))
            tokens, steps = tokens[:end], steps[:end]
        return tokens, lead, lead + float(steps[-1]) / encoding.steps_per_second

    def _piece(self, row: np.ndarray, lead: float, begins: float, ends: float) -> Piece:
        """Return the piece of a row of sampled tokens, cut at `ends` s."""
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
        return Piece(
            notes,
            seconds=min(seconds, ends),
            prompt_seconds=begins,
            ended=by_model and seconds < ends,
            tokens=row[: length + by_model],
        )


def _warn_if_cut_short(
    pieces: list[Piece], prompt_tokens: int, positions: int, seconds: float
) -> None:
    """Warn of pieces that are shorter than was asked for because all positions are used."""
    made = [piece.seconds - piece.prompt_seconds for piece in pieces if not piece.ended]
    if made and min(made) < 0.99 * seconds:
        warnings.warn(
            f"the model's {positions} positions were full after {min(made):.1f} s of new music, "
            f"{seconds:g} were asked for; the prompt takes {prompt_tokens} of them: use less of it "
            "with prompt_seconds (--prompt-seconds)",
            stacklevel=3,
        )


def _check_options(
    count: int,
    seconds: float,
    prompt_seconds: float | None,
    temperature: float,
    top_p: float,
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
        ("top_p", top_p, 0 < top_p <= 1, "a probability above 0, up to 1"),
    ):
        if not good:
            raise ValueError(f"{name}={value}: expected {expected}")


def _elapsed_steps(events: np.ndarray, encoding: PieceEncoding) -> np.ndarray:
    """Return time steps since the beginning after each event id, int [..., L]."""
    low, high = encoding.codec.event_type_range(SHIFT)
    is_shift = (events >= low) & (events <= high)
    return np.cumsum(np.where(is_shift, events - low, 0), axis=-1)


class _Clock:
    """Measure the music while it is sampled, and end sampling when it is long enough."""

    def __init__(self, encoding: PieceEncoding):
        self._encoding = encoding

    def start(self, rows: int, seconds: float, progress: Progress | None) -> None:
        """Begin a sampling of `rows` pieces."""
        self._steps, self._ended = np.zeros(rows, np.int64), np.zeros(rows, bool)
        self._seconds, self._progress = seconds, progress

    def __call__(self, tokens: np.ndarray) -> bool:
        """Take new tokens [B, 1, n]; return whether every piece is long enough."""
        tokens = tokens[:, 0]
        if tokens.shape[1]:
            steps = _elapsed_steps(tokens - NUM_SPECIAL_IDS, self._encoding)[:, -1]
            self._steps += steps
            self._ended |= (tokens <= EOS_ID).any(axis=1)
        enough = self._seconds * self._encoding.steps_per_second
        done = np.where(self._ended, enough, self._steps).min() / enough
        if self._progress is not None:
            self._progress(min(done, 1.0) * self._seconds, self._seconds)
        return bool(done >= 1)
