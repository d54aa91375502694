"""Small pictures as sequences: red, green and blue of every pixel, row by row, without EOS.

    image_task("data/photos", num_latents=1024)
    image_task(TfdsSource("downsampled_imagenet/64x64"), num_latents=1024)

The ImageNet 64 x 64 of Hawthorne et al. 2022 (arXiv 2202.07765): 12,288 values behind SOS. A
position has three coordinates, for `PerceiverARConfig.input_idx_size` = (66, 66, 5).
"""

import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musax.datasets.files import file_source
from perceiver_ar.tasks import SOS, sequence_task
from t5x.data.sources import Source
from t5x.data.tasks import Task
from t5x.data.vocabularies import NUM_SPECIAL_IDS, PassThroughVocabulary
from t5x.extras import how_to_install

SIZE = 64
#: Padding, EOS (which is not used), SOS, and the values 0 to 255.
VOCABULARY = PassThroughVocabulary(NUM_SPECIAL_IDS + 256)
_SUFFIXES = (".png", ".jpg", ".jpeg")


def fit_image(image: Any, size: int = SIZE) -> np.ndarray:
    """Return the central square of a picture, resized by area averaging, uint8 [size, size, 3].

    Args:
      image: uint8 [height, width, 3] or [height, width, 1], or a Pillow image.
      size: pixels on a side.

    Raises:
      ImportError: Pillow is needed and not installed.
      ValueError: another type or shape.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise ValueError(
                f"a picture is {image.dtype} {image.shape}; expected uint8 [height, width, 3 or 1]"
            )
        image = np.repeat(image, 3 // image.shape[2], axis=2)
        if image.shape == (size, size, 3):
            return image
        image = _pillow().Image.fromarray(image)
    upright = _pillow().ImageOps.exif_transpose(image).convert("RGB")
    box = _pillow().Image.Resampling.BOX
    return np.asarray(_pillow().ImageOps.fit(upright, (size, size), method=box))


def read_image(path: str | os.PathLike, size: int = SIZE) -> np.ndarray:
    """Read a file of any format that Pillow knows, see `fit_image`.

    Raises:
      ImportError: Pillow is not installed.
      ValueError: naming the file that is not a picture, or is truncated.
    """
    pillow, data = _pillow(), Path(path).read_bytes()
    try:
        return fit_image(pillow.Image.open(io.BytesIO(data)), size)
    # What Pillow raises for a damaged file depends on its format.
    except (OSError, ValueError, SyntaxError, pillow.Image.DecompressionBombError) as e:
        raise ValueError(f"{path}: no picture that can be read ({e}); save it again") from e


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as e:
        raise ImportError(f"reading pictures needs Pillow: {how_to_install('images')}") from e
    return PIL


def image_to_tokens(image: np.ndarray) -> np.ndarray:
    """Convert uint8 [S, S, 3] to int32 [1 + 3 S^2]: SOS, then each value + 3."""
    return np.concatenate([[SOS], image.reshape(-1).astype(np.int32) + NUM_SPECIAL_IDS]).astype(
        np.int32
    )


def tokens_to_image(tokens: Sequence[int] | np.ndarray, size: int = SIZE) -> np.ndarray:
    """Convert tokens back to a picture, the inverse of `image_to_tokens`; SOS may be missing.

    Raises:
      ValueError: there are too few or too many tokens, or one that is no value.
    """
    values = np.asarray(tokens)
    values = (values[1:] if len(values) and values[0] == SOS else values) - NUM_SPECIAL_IDS
    if values.shape != (3 * size * size,):
        raise ValueError(
            f"{values.size} values: expected {3 * size * size}, red, green and blue of "
            f"{size} x {size} pixels"
        )
    wrong = np.flatnonzero((values < 0) | (values > 255))
    if wrong.size:
        raise ValueError(
            f"value {wrong[0]} has the token {values[wrong[0]] + NUM_SPECIAL_IDS}: expected "
            f"{NUM_SPECIAL_IDS} to {NUM_SPECIAL_IDS + 255}; do not sample EOS (eos_id=-1, "
            "never=(0, 1, 2))"
        )
    return values.astype(np.uint8).reshape(size, size, 3)


@functools.lru_cache(maxsize=4)
def image_positions(size: int = SIZE) -> np.ndarray:
    """Return x, y and channel of each token, int32 [1 + 3 S^2, 3], all + 2; those of SOS are 1.

    0 is the position of padding. Read-only.
    """
    y, x, channel = np.indices((size, size, 3)).reshape(3, -1)
    positions = np.stack([x, y, channel], axis=1) + 2
    positions = np.concatenate([[[1, 1, 1]], positions]).astype(np.int32)
    positions.setflags(write=False)
    return positions


def tokenize_image(example: dict, size: int = SIZE) -> dict:
    """Return `tokens` and `positions` of an example with `image` uint8 [H, W, C], or `path`."""
    if "image" in example:
        image = fit_image(np.asarray(example["image"]), size)
    else:
        image = read_image(example["path"], size)
    return {"tokens": image_to_tokens(image), "positions": image_positions(size)}


def image_task(
    images: str | os.PathLike | Sequence[str] | Source,
    *,
    size: int = SIZE,
    validation_files: Sequence[str] = (),
    test_files: Sequence[str] = (),
    name: str = "images",
    **options: Any,
) -> Task:
    """Return a task of pictures as sequences of 3 size^2 values.

    Args:
      images: a folder or patterns, see `musax.datasets.files.file_source`; or a source with `image`
        uint8 [H, W, C], such as `t5x.data.sources.TfdsSource("downsampled_imagenet/64x64")`.
      size: pixels on a side; larger pictures lose their edges, so as to be square, and detail.
      validation_files, test_files: see `file_source`.
      name: of the task.
      options: see `perceiver_ar.tasks.sequence_task`; `num_latents` is required.
    """
    if not isinstance(images, Source):
        images = file_source(images, _SUFFIXES, validation_files, test_files)
    tokenize = functools.partial(tokenize_image, size=size)
    return sequence_task(name, images, [tokenize], VOCABULARY, **options)
