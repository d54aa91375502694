"""The configurations: shown, with data of their kind but few."""

import re

import numpy as np
import pytest

from cdcd.config import DenoiserConfig
from cdcd.text import TEXT8_SIZE
from cdcd.translation.model import TranslationModel
from musax.midi import save_midi
from musax.notes import make_notes
from musax.trust import read_macros
from t5x import train
from tests.cdcd.tiny import clear_gin


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders as lakh64's and as those of `musax prepare text`."""
    folder = tmp_path_factory.mktemp("data")
    onset = np.arange(64.0)
    notes = make_notes(onset, onset + 1, 60 + np.arange(64) % 12)
    for split in ("train", "valid"):
        (folder / "melody" / "samples" / split / "melody").mkdir(parents=True)
        for number in range(8):
            path = folder / "melody" / "samples" / split / "melody" / f"{number}.mid"
            save_midi(path, notes)
    for split in ("train", "validation", "test"):
        (folder / "letters" / split).mkdir(parents=True)
        for number in range(2):
            (folder / "letters" / split / f"{number}.txt").write_text("to be or not to be " * 400)
    return folder


@pytest.fixture
def dry_run(data, tmp_path, monkeypatch, capsys):
    """A function from names of gin files to what a dry run says."""
    monkeypatch.setenv("MUSAX_CACHE_DIR", str(tmp_path / "cache"))

    def run(*names, flags=(), data_of=""):
        files = [f"--gin_file=configs/cdcd/{name}.gin" for name in names]
        folders = [f"MODEL_DIR={tmp_path / 'run'}"]
        if data_of is not None:
            folders.append(f"DATA_DIR={data / (data_of or names[0])}")
        flags = [f"--gin.{flag}" for flag in (*folders, *flags)]
        status = train.main([*files, *flags, "--dry_run"])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    yield run
    clear_gin()


def parameters_of(said):
    return int(re.search(r"total: \d+ parameters, ([\d,]+) numbers", said)[1].replace(",", ""))


def expected_parameters(symbols, width=128, embed=64, layers=4, mlp=512, time=128):
    norm = 2 * width * (1 + time)  # scale and shift
    block = 4 * width**2 + 2 * width * mlp + 2 * norm
    times = 64 + 2 * (128 * time + time)  # of 64 frequencies their sines and cosines
    ends = symbols * embed + (3 * embed + 2) * width + norm + (width + 1) * symbols
    return layers * block + times + ends + 200  # the curves have 100 bins


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corpus", "symbols", "batch"), [("melody", 93, "16x256"), ("letters", 30, "32x128")]
)
def test_models_of_a_size_side_by_side(dry_run, corpus, symbols, batch):
    said = dry_run(corpus)
    assert re.search(rf"decoder_target_tokens +{batch} +int32", said)
    assert parameters_of(said) == expected_parameters(symbols)
    for names in (("ar",), ("mdlm",), ("ar", f"{corpus}_judge")):
        said = dry_run(corpus, *names)
        assert re.search(rf"decoder_target_tokens +{batch} +int32", said)
        assert parameters_of(said) == pytest.approx(expected_parameters(symbols), rel=0.01)


@pytest.mark.slow
def test_models_of_other_sizes_side_by_side(dry_run):
    """MLP_DIM is the diffusion model's alone, also where it is an option."""
    sizes = {"width": 192, "layers": 6, "mlp": 768}
    expected = expected_parameters(30, **sizes)
    assert parameters_of(dry_run("letters_gpu", data_of="letters")) == expected
    for name in ("ar", "mdlm"):
        assert parameters_of(dry_run("letters_gpu", name, data_of="letters")) == pytest.approx(
            expected, rel=0.02
        )
    ar = dry_run("letters", "ar")
    assert parameters_of(dry_run("letters", "ar", flags=["MLP_DIM=64"])) == parameters_of(ar)


@pytest.mark.slow
def test_models_of_text8_side_by_side(dry_run, tmp_path):
    text8 = tmp_path / "text8"
    text8.write_bytes(b"a" * TEXT8_SIZE)
    flags = [f"DATA_FILE={str(text8)!r}"]
    sizes = {"width": 512, "embed": 256, "layers": 8, "mlp": 2048}
    expected = expected_parameters(30, **sizes)
    assert parameters_of(dry_run("text8_gpu", flags=flags, data_of=None)) == expected
    for names in (("ar",), ("mdlm",), ("ar", "text8_judge")):
        said = dry_run("text8_gpu", *names, flags=flags, data_of=None)
        assert re.search(r"decoder_target_tokens +64x256 +int32", said)
        assert parameters_of(said) == pytest.approx(expected, rel=0.01)
    text8.unlink()  # pytest would keep it


@pytest.mark.slow
def test_a_base_model_of_the_paper(dry_run):
    """Its sizes are the defaults; 1.3 billion and the vocabulary are options."""
    flags = ["VOCAB_SIZE=32000", "EMBED_DIM=256", "WIDTH=1024", "LAYERS=8", "HEADS=8"]
    said = dry_run("letters", flags=[*flags, "MLP_DIM=4096", "DTYPE='bfloat16'"])
    sizes = {"width": 1024, "embed": 256, "layers": 8, "mlp": 4096}
    assert parameters_of(said) == expected_parameters(32_000, **sizes)


_EARLIER = """
from __gin__ import dynamic_registration
from cdcd import config
from cdcd import network
from cdcd import pronunciation
from cdcd import translation
from cdcd import translation_network

NETWORK = @network.Denoiser()
network.Denoiser.config = @config.NetworkConfig()
config.NetworkConfig:
  vocab_size = 7
  width = 32
MODEL = @translation.TranslationModel()
translation.TranslationModel:
  module = @translation_network.Translator()
  input_vocabulary = None
  output_vocabulary = None
  optimizer_def = None
translation_network.Translator.config = @translation_network.TranslationConfig()
translation_network.TranslationConfig.vocab_size = 9
translation_network.TranslationConfig.input_vocab_size = 8
translation_network.TranslationConfig.target_length = 4
EXAMPLES = @pronunciation.read_dictionary
"""


def test_configurations_of_earlier_versions_are_read(tmp_path):
    (tmp_path / "config.gin").write_text(_EARLIER)
    network, model = read_macros(tmp_path, "NETWORK", "MODEL")
    clear_gin()
    assert type(network.config) is DenoiserConfig
    assert (network.config.vocab_size, network.config.width) == (7, 32)
    assert type(model) is TranslationModel
    assert model.module.config.vocab_size == 9
