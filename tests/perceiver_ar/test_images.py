"""Pictures as tokens."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perceiver_ar import images
from perceiver_ar.generation import generate
from perceiver_ar.images import (
    fit_image,
    image_positions,
    image_task,
    image_to_tokens,
    read_image,
    tokens_to_image,
)
from perceiver_ar.sampler import Sampler
from t5x.data.examples import task_examples
from t5x.data.sources import TfdsSource
from tests.perceiver_ar.batches import assert_seqio_agrees, batches, scored
from tests.perceiver_ar.reference import tiny

SIZE = 4
VALUES = 3 * SIZE * SIZE


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Six pictures of several sizes, two of them for validation."""
    image = pytest.importorskip("PIL.Image")
    for i, name in enumerate(["train/a", "train/b", "train/c", "train/d", "val/a", "val/b"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.fromarray(picture(8, 8 + i, i)).save(tmp_path / f"{name}.png")
    return tmp_path


@given(st.integers(1, 5).flatmap(lambda n: hnp.arrays(np.uint8, (n, n, 3))))
def test_tokens_and_back(image):
    tokens = image_to_tokens(image)
    assert tokens.dtype == np.int32
    assert tokens[0] == 2
    assert tokens[1:].min() >= 3
    assert tokens.max() < images.VOCABULARY.vocab_size == 259
    np.testing.assert_array_equal(tokens_to_image(tokens, len(image)), image)
    np.testing.assert_array_equal(tokens_to_image(tokens[1:].tolist(), len(image)), image)


def test_positions_are_those_of_the_paper():
    positions = image_positions()
    assert positions.shape == (12_289, 3)
    assert (positions.max(axis=0) + 1).tolist() == [66, 66, 5]
    assert positions[:5].tolist() == [[1, 1, 1], [2, 2, 2], [2, 2, 3], [2, 2, 4], [3, 2, 2]]
    assert positions[-1].tolist() == [65, 65, 4]
    assert len(np.unique(positions, axis=0)) == 12_289


def test_a_position_says_which_value_a_token_is():
    image = picture(SIZE, SIZE)
    tokens, positions = image_to_tokens(image), image_positions(SIZE)
    for token, (x, y, channel) in zip(tokens[1:], positions[1:] - 2):
        assert token == image[y, x, channel] + 3


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([2, *[5] * 47], "47 values: expected 48"),
        ([5] * 50, "50 values"),
        ([], "0 values"),
        ([2, *[5] * 47, 1], "value 47 has the token 1.*do not sample EOS"),
        ([2, *[5] * 47, 259], "token 259"),
    ],
)
def test_what_is_no_picture_is_named(tokens, message):
    with pytest.raises(ValueError, match=message):
        tokens_to_image(tokens, SIZE)


def test_middle_square_by_means_of_areas():
    pytest.importorskip("PIL")
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = [[[10, 20, 30], [30, 40, 50], [90, 80, 70], [70, 60, 50]]] * 4
    image[:, :2] = image[:, 6:] = 255  # beside the square
    expected = [[[20, 30, 40], [80, 70, 60]]] * 2
    assert fit_image(image, 2).tolist() == expected
    assert fit_image(image.transpose(1, 0, 2), 2).tolist() == np.swapaxes(expected, 0, 1).tolist()
    assert fit_image(image[..., :1], 2)[0].tolist() == [[20] * 3, [80] * 3]


def test_pictures_that_fit_need_no_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    image = picture(SIZE, SIZE)
    assert fit_image(image, SIZE) is not None
    np.testing.assert_array_equal(fit_image(image, SIZE), image)
    with pytest.raises(ImportError, match="extra `images`"):
        fit_image(image, 2)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), 0])
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError, match="expected uint8"):
        fit_image(np.asarray(wrong), SIZE)


def test_files_of_any_kind(tmp_path):
    image = pytest.importorskip("PIL.Image")
    whole = image.fromarray(picture(SIZE, SIZE))
    for mode in ("RGB", "RGBA", "L", "P"):
        whole.convert(mode).save(tmp_path / "a.png")
        read = read_image(tmp_path / "a.png", SIZE)
        np.testing.assert_array_equal(read, np.asarray(whole.convert(mode).convert("RGB")))
    turned = image.Exif()
    turned[0x0112] = 6  # the camera lay on its side
    whole.save(tmp_path / "b.png", exif=turned)
    rotated = np.rot90(picture(SIZE, SIZE), -1)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", SIZE), rotated)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_damaged_file_is_named(content, tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "broken.png"
    image.fromarray(picture(50, 50)).save(path)
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(ValueError, match=r"broken\.png: no picture that can be read"):
        read_image(path)
    with pytest.raises(FileNotFoundError, match="none"):
        read_image(tmp_path / "none.png")


def test_a_picture_is_scored_once(folder):
    task = image_task(folder, num_latents=5, purpose="evaluate", size=SIZE)
    assert task.splits == ("train", "validation")
    found = scored(task, VALUES).reshape(2, VALUES)
    for tokens, name in zip(found, "ab"):
        image = tokens_to_image(tokens, SIZE)
        np.testing.assert_array_equal(image, read_image(folder / f"val/{name}.png", SIZE))


def test_crops_keep_their_positions(folder):
    task = image_task(folder, num_latents=8, size=SIZE)
    wanted = image_positions(SIZE).tolist()
    seen = 0
    for batch in batches(task, 20, shuffle=True, num_epochs=5):
        tokens, positions = batch["decoder_input_tokens"], batch["decoder_positions"]
        assert positions.shape == (2, 20, 3)
        for row, at in zip(tokens, positions.tolist()):
            count = int(np.sum(row > 0))
            first = wanted.index(at[0])
            assert at[:count] == wanted[first : first + count]
            assert (row[0] == 2) == (first == 0)
            seen += 1
    assert seen == 20


@pytest.mark.slow
def test_a_network_paints_whole_pictures():
    config, _, params = tiny(
        num_classes=259,
        max_context_length=VALUES,
        position_encoding_type="absolute",
        position_encoding="random",
        input_idx_size=(SIZE + 2, SIZE + 2, 5),
    )
    positions = tuple(map(tuple, image_positions(SIZE).tolist()))
    sampler = Sampler(config, VALUES, positions=positions)
    tokens, _ = generate(
        sampler, params, [[2], [2, 30]], rng=jax.random.PRNGKey(0), eos_id=-1, never=(0, 1, 2)
    )
    for row in tokens[:, 0]:
        assert tokens_to_image(row, SIZE).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("purpose", ["train", "evaluate", "predict"])
def test_seqio_reads_the_same(folder, purpose):
    pytest.importorskip("seqio")
    task = image_task(
        folder, num_latents=8, size=SIZE, purpose=purpose, prompt_length=9, name=f"art_{purpose}"
    )
    assert_seqio_agrees(task, VALUES)


@pytest.fixture(scope="module")
def tiny_art(tmp_path_factory):
    """A folder with the dataset tiny_art: three pictures to train on, one to judge by."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyArt(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(8, 10, 3))})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            splits = {"train": range(3), "validation": [3]}
            return {split: self._generate_examples(seeds) for split, seeds in splits.items()}

        def _generate_examples(self, seeds):
            yield from ((i, {"image": picture(8, 10, i)}) for i in seeds)

    data_dir = tmp_path_factory.mktemp("tfds")
    TinyArt(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def test_tfds(tiny_art):
    source = TfdsSource("tiny_art", data_dir=tiny_art)
    task = image_task(source, num_latents=8, size=SIZE, purpose="predict")
    found = [tokens_to_image(e["targets"], SIZE).tolist() for e in task_examples(task, "train")]
    assert sorted(found) == sorted(fit_image(picture(8, 10, i), SIZE).tolist() for i in range(3))
    (batch, *_) = batches(task, VALUES, batch_size=3)
    assert batch["decoder_prompt_lengths"].tolist() == [1, 1, 1]


def test_tfds_in_a_configuration(tiny_art):
    command = [sys.executable, "-m", "t5x.train", "--dry_run", "--gin.BATCH_SIZE=2"]
    command += ["--gin_file=configs/perceiver_ar/imagenet64.gin", "--gin.MODEL_DIR='unused'"]
    command += ["--gin.sources.TfdsSource.name='tiny_art'"]
    environment = {**os.environ, "TFDS_DATA_DIR": str(tiny_art)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "2x12288x3" in done.stdout + done.stderr
