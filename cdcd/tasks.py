"""Shared by the tasks of this package: long sequences of tokens, and parts of them of one length.

The tasks themselves are in `cdcd.text`, `cdcd.melodies` and, with inputs,
`cdcd.translation.pronunciation`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

from cdcd.preprocessors import (
    Parts,
    check_length,
    crop_stretches,
    random_crop,
    side_by_side,
)
from t5x.data.features import Feature
from t5x.data.sources import FunctionSource
from t5x.data.tasks import Task
from t5x.data.vocabularies import Vocabulary

#: Purposes of a task: random crops, or consecutive windows.
PURPOSES = ("train", "evaluate")


def check_purpose(purpose: str) -> None:
    """Raise ValueError unless it is one of `PURPOSES`."""
    if purpose not in PURPOSES:
        raise ValueError(f"purpose={purpose!r}: expected one of {', '.join(PURPOSES)}")


def check_part(part: tuple[int, int] | None) -> tuple[int, int]:
    """Return (index, count) of a part, (0, 1) for None; raise ValueError for another part."""
    index, count = part or (0, 1)
    if not 0 <= index < count:
        raise ValueError(
            f"train_part={part}: expected (index, count) with an index of 0 to count - 1"
        )
    return index, count


def sequence_task(
    name: str,
    sequences: Mapping[str, Callable[[], Sequence]],
    vocabulary: Vocabulary,
    length: int,
    *,
    purpose: str = "train",
    multiple: int = 1,
    augment: Sequence[Callable] = (),
) -> Task:
    """Return a task whose examples are `targets` int32 [length], parts of longer sequences.

    Training crops at random, see `cdcd.preprocessors`; sequences that are shorter than `length`
    are padded. Evaluation takes consecutive windows and leaves out a shorter last one.

    Args:
      name: of the task.
      sequences: for each split a function that gives its sequences of ids, int [n] each, or what
        is like it: with `len()` and slices.
      vocabulary: of the ids.
      length: of an example.
      purpose: one of `PURPOSES`.
      multiple: crops begin at multiples of it.
      augment: preprocessors of crops in training alone.

    Raises:
      ValueError: an argument is out of range; later, a split has no windows.
    """
    check_purpose(purpose)
    if length < 1 or multiple < 1:
        raise ValueError(f"length={length}, multiple={multiple}: expected 1 or more")
    if purpose == "train":
        divide = functools.partial(crop_stretches, length=length, multiple=multiple)
        crop = functools.partial(random_crop, length=length, multiple=multiple)
        steps = [crop, *augment]
    else:
        divide, steps = functools.partial(side_by_side, length=length), []

    def parts(split: str) -> Parts:
        found = sequences[split]()
        divided = Parts(found, [divide(len(each)) for each in found])
        if not len(divided):
            sizes = max((len(each) for each in found), default=0)
            raise ValueError(
                f"task {name!r}, split {split!r}: {len(found)} sequences of at most {sizes} tokens "
                f"have no window of length={length}: make it smaller, or give longer ones"
            )
        return divided

    return Task(
        name,
        FunctionSource({split: functools.partial(parts, split) for split in sequences}),
        preprocessors=[functools.partial(check_length, length=length), *steps],
        output_features={"targets": Feature(vocabulary, add_eos=False)},
    )
