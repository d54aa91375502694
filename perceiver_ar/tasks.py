"""The tasks Perceiver AR trains on: `sequence_task` and the copy task.

Others are in `perceiver_ar.music`, `text`, `images` and `audio_codes`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_ar import preprocessors
from perceiver_ar.blocks import LatentSchedule
from t5x.data.features import Feature
from t5x.data.sources import GeneratedSource, Source
from t5x.data.tasks import Task, TaskRegistry
from t5x.data.vocabularies import EOS_ID, NUM_SPECIAL_IDS, PassThroughVocabulary, Vocabulary

#: First token of a sequence; the id that other vocabularies call unknown.
SOS = 2
_SPLITS = ("train", "validation", "test")


#: Purposes: random crops, windows that score each token once, prompts to continue.
PURPOSES = ("train", "evaluate", "predict")


def sequence_features(vocabulary: Vocabulary, purpose: str = "train") -> dict[str, Feature]:
    """Return output features of a task, for `PerceiverARFeatureConverter`.

    Raises:
      ValueError: an unknown purpose.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"purpose={purpose!r}: expected one of {', '.join(PURPOSES)}")
    numbers = PassThroughVocabulary(0)

    def plain(rank: int) -> Feature:
        return Feature(numbers, add_eos=False, rank=rank)

    return {
        "inputs": Feature(vocabulary, add_eos=False),
        "targets": Feature(vocabulary, add_eos=False),
        "positions": plain(2),
        "loss_weights": plain(1),
        "prompt_lengths" if purpose == "predict" else "latent_counts": plain(0),
    }


def sequence_task(
    name: str,
    source: Source | Mapping[str, Any],
    tokenize: Sequence[Callable],
    vocabulary: Vocabulary,
    *,
    num_latents: int,
    purpose: str = "train",
    augment: Sequence[Callable] = (),
    cropping: str = "full_latents",
    min_crop: int | None = None,
    stride: int | None = None,
    schedule: LatentSchedule | None = None,
    max_position: int | None = None,
    restart_positions: bool = False,
    prompt_length: int = 1,
    postprocess_fn: Callable | None = None,
    metric_fns: Sequence[Callable] = (),
) -> Task:
    """Return a task whose examples are whole sequences: texts, pieces of music, pictures.

    Args:
      name: of the task.
      source: of raw examples.
      tokenize: preprocessors of a raw example to one with `tokens` int32 [n + 1], SOS to EOS;
        optionally `positions` int32 [n + 1, C] and `prefix_lengths`, see
        `perceiver_ar.preprocessors`.
      vocabulary: of the tokens.
      num_latents: of the network.
      purpose: one of `PURPOSES`.
      augment: preprocessors of raw examples in training only.
      cropping, min_crop: see `preprocessors.draw_block`.
      stride, schedule: see `preprocessors.evaluation_windows`.
      max_position: see `preprocessors.number_positions`.
      restart_positions: see `preprocessors.restart_positions`; instead of a `max_position`, for
        sequences of any length.
      prompt_length: see `preprocessors.prompt_and_rest`.
      postprocess_fn, metric_fns: see `t5x.data.tasks.Task`; metrics are of predictions.
    """
    features = sequence_features(vocabulary, purpose)
    number = functools.partial(preprocessors.number_positions, max_position=max_position)
    crop = functools.partial(
        preprocessors.crop, num_latents=num_latents, method=cropping, min_crop=min_crop
    )
    windows = functools.partial(
        preprocessors.evaluation_windows,
        num_latents=num_latents,
        stride=stride,
        schedule=schedule,
    )
    prompt = functools.partial(preprocessors.prompt_and_rest, prompt_length=prompt_length)
    last = {"train": crop, "evaluate": windows, "predict": prompt}
    first = augment if purpose == "train" else ()
    restart = [preprocessors.restart_positions] if restart_positions else []
    return Task(
        name,
        source=source,
        preprocessors=[*first, *tokenize, number, last[purpose], *restart],
        output_features=features,
        postprocess_fn=postprocess_fn,
        metric_fns=metric_fns if purpose == "predict" else (),
    )


def copy_example(split: str, index: int, length: int, num_symbols: int) -> dict[str, Any]:
    """Return SOS, random bytes, the same backwards, EOS: int32 `tokens` of at most `length`.

    The copy task of section 4.1; SOS and the random half are given (`prefix_lengths`).
    """
    rng = np.random.default_rng((_SPLITS.index(split), index))
    symbols = NUM_SPECIAL_IDS + num_symbols
    half = rng.integers(NUM_SPECIAL_IDS, symbols, length // 2 - 1, dtype=np.int32)
    tokens = np.concatenate([[SOS], half, half[::-1], [EOS_ID]]).astype(np.int32)
    return {"tokens": tokens, "prefix_lengths": np.asarray(len(half) + 1, np.int32)}


def copy_task(
    length: int,
    num_latents: int,
    *,
    num_symbols: int = 256,
    purpose: str = "train",
    cropping: str = "full_latents",
    min_crop: int | None = None,
    train_on_given: bool = True,
    stride: int | None = None,
    num_examples: int = 1_000_000,
    middle: int | None = None,
    max_position: int | None = None,
    name: str = "copy",
) -> Task:
    """Return a task of random bytes and their mirror image.

    Args:
      length: tokens of an example; the context to train with.
      num_latents: of the network.
      num_symbols: different bytes.
      purpose: one of `PURPOSES`; evaluation and prediction are of the mirror image.
      cropping, min_crop: see `preprocessors.draw_block`.
      train_on_given: whether the random half is trained on as well, as in the reference.
      stride: see `preprocessors.evaluation_windows`.
      num_examples: of the split `train`; the others have a thousandth.
      middle: the position of the last random byte; by default positions are counted from 1. With
        one middle, the mirror images of all lengths are the same map of positions.
      max_position: see `preprocessors.number_positions`.
      name: of the task.

    Raises:
      ValueError: `length`, `num_symbols`, `middle` or `purpose` is out of range.
    """
    first_position = 1 if middle is None else middle - length // 2 + 1
    if first_position < 1:
        raise ValueError(
            f"copy_task: middle={middle} leaves no room for half of length={length}: expected "
            f"{length // 2} or more"
        )
    if length < 4 or not 1 <= num_symbols <= 256:
        raise ValueError(
            f"copy_task: length={length}, num_symbols={num_symbols}; expected a length of 4 or "
            "more and 1 to 256 symbols"
        )
    make = functools.partial(copy_example, length=length, num_symbols=num_symbols)
    few = max(num_examples // 1000, 1)
    tokenize: list[Callable] = [functools.partial(_count_from, first=first_position)]
    if purpose == "train" and train_on_given:
        tokenize.append(_without_prefix)
    return sequence_task(
        name,
        GeneratedSource(make, {"train": num_examples, "validation": few, "test": few}),
        tokenize,
        PassThroughVocabulary(NUM_SPECIAL_IDS + num_symbols, EOS_ID),
        num_latents=num_latents,
        purpose=purpose,
        cropping=cropping,
        min_crop=min_crop,
        stride=stride,
        max_position=max_position,
        postprocess_fn=_mirror_image,
        metric_fns=[copy_accuracy],
    )


def _count_from(example: dict, first: int) -> dict:
    counted = np.arange(first, first + len(example["tokens"]), dtype=np.int32)
    return {**example, "positions": counted[:, None]}


def _without_prefix(example: dict) -> dict:
    return {name: value for name, value in example.items() if name != "prefix_lengths"}


def _mirror_image(tokens: Any, example: dict, is_target: bool) -> list[int]:
    """Return ids up to and with EOS: the expected ones of a target, or those of a prediction."""
    tokens = [int(token) for token in tokens]
    first = int(example["prompt_lengths"]) - 1 if is_target else 0
    tokens = tokens[first:]
    return tokens[: tokens.index(EOS_ID) + 1] if EOS_ID in tokens else tokens


def copy_accuracy(
    targets: Sequence[Sequence[int]], predictions: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return the share of predicted tokens, and of whole sequences."""
    equal = [
        [i < len(found) and found[i] == token for i, token in enumerate(wanted)]
        for wanted, found in zip(targets, predictions)
    ]
    whole = [list(wanted) == list(found) for wanted, found in zip(targets, predictions)]
    return {
        "token_accuracy": float(np.mean([hit for row in equal for hit in row])),
        "sequence_accuracy": float(np.mean(whole)),
    }


#: Lengths of registered copy tasks, and the latents their networks have. `copy_<length>` trains,
#: `copy_<length>_evaluate` and `copy_<length>_predict` do as they say.
COPY_LENGTHS = {32: 16, 128: 32, 1024: 128, 8192: 512, 131_072: 1024}

for _length, _latents in COPY_LENGTHS.items():
    for _purpose in PURPOSES:
        _suffix = "" if _purpose == "train" else f"_{_purpose}"
        TaskRegistry.add(
            copy_task(_length, _latents, purpose=_purpose, name=f"copy_{_length}{_suffix}")
        )
