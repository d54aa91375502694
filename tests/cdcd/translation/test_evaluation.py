"""The configurations of pronunciation and the evaluation that compares their runs, tiny."""

import itertools
import json

import pytest

from cdcd.runs import load_run
from cdcd.translation import evaluation
from cdcd.translation.pronunciation import examples_of, read_dictionary
from musax import cli
from t5x import train

SIZES = {"WIDTH": 16, "ENCODER_LAYERS": 1, "LAYERS": 1, "HEADS": 2, "MLP_DIM": 16}
SIZES |= {"EMBED_DIM": 8, "NOISE_LOW": 0.18, "NOISE_HIGH": 53.0, "BATCH_SIZE": 16}
SIZES |= {"TRAIN_STEPS": 2, "EVAL_STEPS": 1}


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory):
    """All words of four of these letters, said letter by letter."""
    said = {"b": "B", "d": "D", "a": "AH0", "i": "IH1", "k": "K"}
    words = map("".join, itertools.product(said, repeat=4))
    path = tmp_path_factory.mktemp("data") / "small.dict"
    path.write_text("".join(f"{w} {' '.join(said[c] for c in w)}\n" for w in words))
    return path


def trained(name, dictionary, folder):
    """MODEL_DIR of a configuration after two steps."""
    settings = {"DATA_FILE": f"'{dictionary}'", "MODEL_DIR": f"'{folder / name}'"} | SIZES
    flags = [f"--gin.{key}={value}" for key, value in settings.items()]
    # The evaluation of the diffusion model, as of `CDCDModel` elsewhere, would be one more program.
    flags += ["--gin.HEAD_DIM=8"] if name.endswith("_ar") else ["--gin.EVAL_PERIOD=0"]
    assert train.main([f"--gin_file=configs/cdcd/{name}.gin", *flags]) == 0
    return folder / name


@pytest.fixture(scope="module")
def run_dir(dictionary, tmp_path_factory):
    """MODEL_DIR of the diffusion model."""
    return trained("pronunciation", dictionary, tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_runs_are_compared(run_dir, dictionary, tmp_path, capsys):
    run_dirs = [run_dir, trained("pronunciation_ar", dictionary, tmp_path)]
    status = cli.main(
        [
            *("evaluate", "pronounce", *(f"--model={each}" for each in run_dirs)),
            *("--limit", "6", "--samples", "3", "1", "--utility", "edit_distance", "chrf"),
            *("--steps", "2", "--guidance", "2", "--temperatures", "1", "0.8"),
            *("--beams", "2", "--batch-size", "7", "-o", str(tmp_path / "found.json")),
        ]
    )
    assert status == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    decodings = ["one sample", "best of 3 by edit_distance", "best of 3 by chrf"]
    expected = [f"guidance 2, T {t}, {name}" for t in ("1", "0.8") for name in decodings]
    assert [row["decoding"] for row in found] == [
        *expected,
        "greedy",
        "beam search, 2",
        *decodings,
    ]
    for row in found:
        assert row["decoding"] in printed
        assert 0 <= row["WER from"] <= row["WER"] <= row["WER to"] <= 1
        assert row["PER"] > 0


def test_words_are_those_of_the_split_and_predictions_scored(run_dir, dictionary):
    run = load_run(run_dir)
    words = evaluation.read_words(run, "test", None)
    examples = examples_of(read_dictionary(dictionary), "test", "evaluate", 16, 16)
    assert words.spoken == [[x["targets"].split()] for x in examples]
    vocabulary = run.evaluate_task.output_features["inputs"].vocabulary
    assert [vocabulary.decode(row) for row in words.inputs] == [x["inputs"] for x in examples]
    right = [variants[0] for variants in words.spoken]
    assert evaluation.scores(words, right) == {"PER": 0, "WER": 0, "WER from": 0, "WER to": 0}
    one_off = [["ZH", *right[0][1:]], *right[1:]]
    scores = evaluation.scores(words, one_off)
    assert scores["PER"] == pytest.approx(1 / (4 * len(right)))
    assert scores["WER"] == pytest.approx(1 / len(right))


def test_what_does_not_fit_is_named(tmp_path, run_dir, capsys):
    def error(status, *arguments):
        assert cli.main(["evaluate", "pronounce", "--model", *map(str, arguments)]) == status
        return capsys.readouterr().err

    assert "no config.gin there" in error(2, tmp_path)
    wrong = error(1, run_dir, "--temperatures", "1e-9", "--limit", "2", "--step", "9")
    assert "checkpoint of step 9" in wrong
    with pytest.raises(SystemExit):
        error(2, run_dir, "--samples", "0")
    assert "not a whole number of 1 or more" in capsys.readouterr().err
