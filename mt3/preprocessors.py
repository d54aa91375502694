"""From a recording with notes to model features: the steps of MT3's data pipeline.

Each step is a pure function of an example (a dict of arrays), under its upstream name. A training
chain is

    tokenize, split_tokens, select_random_chunk, extract_target_sequence_with_indices,
    map_midi_programs, run_length_encode_shifts, (mixing,) remove_redundant_state_changes,
    compute_spectrograms, handle_too_long, tokenize_and_append_eos

which takes {audio float32 [n], sample_rate, notes} to {inputs float32 [T, F], targets int32 [L]}
and draws what the reference draws. `random_segment` does the work of its first six steps at once,
without the index over the recording, for training on the fly.
"""

from collections.abc import Iterable, Iterator, Mapping

import gin
import numpy as np

from mt3.vocabularies import PROGRAM_GRANULARITIES
from musax.audio import resample, to_float
from musax.events import run_length
from musax.events.codec import Codec
from musax.events.indexed import IndexedEvents, encode_and_index_events, extract_segment
from musax.events.spec import EncodingSpec
from musax.events.tokenize import notes_to_tokens
from musax.notes import NOTE_DTYPE, NOTE_FIELDS, empty_notes, validate_notes
from musax.spectrograms import (
    SpectrogramConfig,
    audio_to_frames,
    compute_spectrogram,
    flatten_frames,
)

Example = dict[str, np.ndarray]

MAX_FRAMES_PER_CHUNK = 2000
FRAME_FEATURES = (
    "inputs",
    "input_times",
    "input_event_start_indices",
    "input_event_end_indices",
    "input_state_event_indices",
)
"""Features with one row per audio frame."""


def _audio_of(example: Mapping, config: SpectrogramConfig) -> np.ndarray:
    """Return the example's audio at the rate of the spectrogram, float32 [n]."""
    audio = to_float(example["audio"])
    if audio.ndim != 1:
        raise ValueError(f"audio has shape {audio.shape}; expected mono samples [n]")
    rate = int(example.get("sample_rate", config.sample_rate))
    return audio if rate == config.sample_rate else resample(audio, rate, config.sample_rate)


def tokenize(
    example: Mapping, *, spectrogram_config: SpectrogramConfig, codec: Codec, spec: EncodingSpec
) -> Example:
    """Add frames of audio, events of all notes, and the index from frames to events.

    Args:
      example: audio [n] (see `musax.audio.to_float`), sample_rate in Hz (the spectrogram's if
        missing), notes [N]; other features are kept.

    Returns:
      inputs float32 [F, hop], input_times float32 [F] (s), targets int32 [E] (unit shifts and
      events), input_event_{start,end}_indices int32 [F] and, with ties, state_events int32 [S],
      input_state_event_indices int32 [F].
    """
    notes = validate_notes(example["notes"], str(example.get("id", "notes")))
    audio = _audio_of(example, spectrogram_config)
    frames, times = audio_to_frames(audio, spectrogram_config)
    events = encode_and_index_events(notes, times, codec, spec)
    kept = {k: v for k, v in example.items() if k not in ("audio", "sample_rate")}
    tokenized = {
        **kept,
        "inputs": frames,
        "input_times": times.astype(np.float32),
        "targets": events.events,
        "input_event_start_indices": events.event_start_indices,
        "input_event_end_indices": events.event_end_indices,
    }
    if spec.ties:
        tokenized["state_events"] = events.state_events
        tokenized["input_state_event_indices"] = events.state_event_indices
    return tokenized


def _slice_frames(example: Mapping, start: int, end: int) -> Example:
    return {k: v[start:end] if k in FRAME_FEATURES else v for k, v in example.items()}


def split_tokens(
    example: Mapping, *, max_tokens_per_segment: int = MAX_FRAMES_PER_CHUNK
) -> Iterator[Example]:
    """Yield consecutive chunks of at most `max_tokens_per_segment` frames.

    Features with one row per frame are split, all others passed on whole, except `notes`, which
    only the first chunk keeps.
    """
    for start in range(0, len(example["inputs"]), max_tokens_per_segment):
        chunk = _slice_frames(example, start, start + max_tokens_per_segment)
        if start and "notes" in chunk:
            chunk["notes"] = empty_notes()
        yield chunk


def split_tokens_to_inputs_length(
    example: Mapping, sequence_length: Mapping[str, int]
) -> Iterator[Example]:
    """Apply `split_tokens` with segments of the inputs' length, for evaluation."""
    return split_tokens(example, max_tokens_per_segment=sequence_length["inputs"])


def select_random_chunk(
    example: Mapping,
    rng: np.random.Generator,
    sequence_length: Mapping[str, int],
    *,
    uniform_random_start: bool = True,
) -> Example:
    """Return a random chunk of `sequence_length["inputs"]` frames.

    With `uniform_random_start` the start is uniform in (-length, frames), so chunks at both
    borders may be shorter; otherwise it is a random multiple of the length.
    """
    length, frames = sequence_length["inputs"], len(example["inputs"])
    if uniform_random_start:
        start = int(rng.integers(-length + 1, frames))
    else:
        start = length * int(rng.integers(-(-frames // length)))
    return _slice_frames(example, max(start, 0), min(start + length, frames))


def extract_target_sequence_with_indices(
    example: Mapping, *, codec: Codec, spec: EncodingSpec
) -> Example:
    """Set `targets` to the events of the example's frames, after the state with ties."""
    starts = example["input_event_start_indices"]
    indexed = IndexedEvents(
        example["targets"],
        starts,
        example["input_event_end_indices"],
        example.get("state_events", np.zeros(0, np.int32)),
        example.get("input_state_event_indices", np.zeros(len(starts), np.int32)),
    )
    targets = extract_segment(indexed, 0, len(starts), codec, spec)
    dropped = ("state_events", *(name for name in FRAME_FEATURES if "_event_" in name))
    kept = {k: v for k, v in example.items() if k not in dropped}
    return {**kept, "targets": targets}


@gin.configurable(module="mt3.preprocessors")  # pyright: ignore[reportCallIssue]
def map_midi_programs(example: Mapping, *, codec: Codec, granularity_type: str = "full") -> Example:
    """Apply a granularity ("flat", "midi_class" or "full") to the targets' programs."""
    if granularity_type not in PROGRAM_GRANULARITIES:
        raise ValueError(
            f"granularity_type {granularity_type!r} is not one of {list(PROGRAM_GRANULARITIES)}"
        )
    tokens_map_fn = PROGRAM_GRANULARITIES[granularity_type].tokens_map_fn
    return {**example, "targets": tokens_map_fn(example["targets"], codec)}


def run_length_encode_shifts(example: Mapping, *, codec: Codec) -> Example:
    """Replace unit shifts in `targets` by steps since the start of the segment."""
    return {**example, "targets": run_length.run_length_encode_shifts(example["targets"], codec)}


def remove_redundant_state_changes(
    example: Mapping, *, codec: Codec, state_change_event_types=("velocity", "program")
) -> Example:
    """Drop each velocity and program of `targets` that repeats the one before."""
    targets = run_length.remove_redundant_state_changes(
        example["targets"], codec, state_change_event_types
    )
    return {**example, "targets": targets}


def random_segment(
    example: Mapping,
    rng: np.random.Generator,
    sequence_length: Mapping[str, int],
    *,
    spectrogram_config: SpectrogramConfig,
    codec: Codec,
    spec: EncodingSpec,
) -> Example:
    """Return frames and run-length-encoded targets of a random segment, straight from notes.

    The start is drawn as in `select_random_chunk`. In a segment that reaches the end of the audio
    all later notes belong to it, as in the reference.

    Args:
      example: audio [n] (see `musax.audio.to_float`), sample_rate in Hz, notes [N].

    Returns:
      inputs float32 [T, hop], input_times float32 [T] (s), targets int32 [L] as codec ids, not yet
      freed from redundant state changes.
    """
    frames, times = audio_to_frames(_audio_of(example, spectrogram_config), spectrogram_config)
    chunk = {"inputs": frames, "input_times": times}
    chunk = select_random_chunk(chunk, rng, sequence_length)
    start, count = chunk["input_times"][0], len(chunk["inputs"])
    following = round(start * spectrogram_config.frames_per_second) + count
    end = float(times[following]) if following < len(times) else None
    targets = notes_to_tokens(example["notes"], start, end, codec, spec, keep_redundant=True)
    return {**chunk, "input_times": chunk["input_times"].astype(np.float32), "targets": targets}


def compute_spectrograms(example: Mapping, *, spectrogram_config: SpectrogramConfig) -> Example:
    """Make `inputs` [T, hop] a spectrogram float32 [T, F]; keep the samples as `raw_inputs`."""
    samples = flatten_frames(example["inputs"])
    inputs = compute_spectrogram(samples, spectrogram_config).astype(np.float32)
    return {**example, "inputs": inputs, "raw_inputs": samples}


def handle_too_long(
    example: Mapping,
    output_features: Mapping,
    sequence_length: Mapping[str, int],
    *,
    skip: bool = False,
) -> Example | None:
    """Reject features longer than `sequence_length` (less one where EOS will be added).

    Returns None, which drops the example, if `skip`; otherwise raises ValueError.
    """
    for name, length in sequence_length.items():
        if name not in output_features or name not in example:
            continue
        room = length - bool(output_features[name].add_eos)
        if len(example[name]) > room:
            if skip:
                return None
            raise ValueError(
                f"feature {name!r} has length {len(example[name])}, but only {room} fit; raise "
                f"sequence_length[{name!r}] or use handle_too_long(skip=True)"
            )
    return dict(example)


def tokenize_and_append_eos(
    example: Mapping, output_features: Mapping, *, copy_pretokenized: bool = False
) -> Example:
    """Convert codec ids to vocabulary ids, and append EOS where the feature asks for it.

    Features of rank other than 1 are left alone. With `copy_pretokenized` the codec ids stay
    under `<feature>_pretokenized`.
    """
    finished = dict(example)
    for name, feature in output_features.items():
        if name not in example or feature.rank != 1:
            continue
        ids = np.asarray(feature.vocabulary.encode(example[name]), feature.dtype)
        if feature.add_eos:
            ids = np.append(ids, np.asarray(feature.vocabulary.eos_id, feature.dtype))
        if copy_pretokenized:
            finished[f"{name}_pretokenized"] = example[name]
        finished[name] = ids
    return finished


def add_unique_id(examples: Iterable[Mapping]) -> Iterator[Example]:
    """Number examples: `unique_id` int32 [1], by which evaluation gathers their segments."""
    for index, example in enumerate(examples):
        yield {**example, "unique_id": np.array([index], np.int32)}


def add_dummy_targets(example: Mapping) -> Example:
    """Add empty `targets`, for inference."""
    return {**example, "targets": np.zeros(0, np.int32)}


def notes_from_columns(example: Mapping) -> Example:
    """Gather features onset, offset, pitch, velocity, program, is_drum ([N] each) as `notes`."""
    notes = np.empty(len(example["onset"]), NOTE_DTYPE)
    for name in NOTE_FIELDS:
        notes[name] = example[name]
    return {**{k: v for k, v in example.items() if k not in NOTE_FIELDS}, "notes": notes}
