"""Training and evaluating side by side: cdcd.side_by_side, `musax evaluate`, cdcd.metrics."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cdcd import metrics, side_by_side
from cdcd.contents import Melody
from cdcd.export import export
from cdcd.runs import load_model, load_run
from cdcd.sample_evaluation import judged_nats
from musax import cli
from musax.midi import save_midi
from musax.notes import make_notes
from tests.tiny_cdcd import save_tiny_model, tiny_config

SIZES = {"LENGTH": 16, "TASK_FEATURE_LENGTHS": {"targets": 16}, "WIDTH": 16, "LAYERS": 1}
SIZES |= {"HEADS": 2, "MLP_DIM": 16, "BASELINE_MLP_DIM": 32, "EMBED_DIM": 8, "BATCH_SIZE": 8}
SIZES |= {"EVAL_STEPS": 1, "SAVE_PERIOD": 1}


def evaluated(folder, task, *arguments):
    """What `musax evaluate` writes."""
    path = folder / "found.json"
    assert cli.main(["evaluate", task, *map(str, arguments), "-o", str(path)]) == 0
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "validation", "test"):
        (folder / split).mkdir()
        for number, words in enumerate(("to be or not ", "that is the question ")):
            (folder / split / f"{number}.txt").write_text(words * 40)
    return folder


def train(folder, data, *names):
    flags = [f"--gin.{name}={value!r}" for name, value in SIZES.items()]
    config = ["--config", "configs/cdcd/letters.gin", "--data", str(data)]
    main = side_by_side.main
    assert main([str(folder), *config, "--steps", "1", "--models", *names, *flags]) == 0


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A folder of runs of a step or two, of continuous diffusion and the judge."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder, data, "cdcd", "judge")
    return folder


@pytest.fixture(scope="module")
def all_runs(runs, data):
    """The same with the other models."""
    train(runs, data, "mdlm", "ar")
    return runs


@pytest.mark.slow
def test_equal_operations(runs, data):
    config, sizes = Path("configs/cdcd/letters.gin"), [f"{k}={v!r}" for k, v in SIZES.items()]

    def flops(name, others):
        variant = side_by_side.VARIANTS[name]
        files = side_by_side.gin_files(config, variant)
        return side_by_side.step_flops(files, side_by_side.macros_of(variant, str(data), others))

    full = {name: flops(name, []) for name in ("cdcd", "ar", "mdlm", "unconditioned")}
    assert full["ar"] == full["mdlm"] > full["cdcd"] > full["unconditioned"]
    more = round(flops("cdcd", sizes) / flops("ar", sizes))
    assert more > 1  # a network so small does most for its time
    assert {name: load_run(runs / name).step for name in ("cdcd", "judge")} == {
        "cdcd": 1,
        "judge": more,
    }


@pytest.mark.parametrize(
    "task", ["melody", "melody_gpu", "letters", "letters_gpu", "text8", "text8_gpu"]
)
def test_every_variant_of_a_task_has_its_files(task):
    for variant in side_by_side.VARIANTS.values():
        files = side_by_side.gin_files(Path(f"configs/cdcd/{task}.gin"), variant)
        assert all(Path(file).is_file() for file in files), files


def test_data_is_a_folder_or_a_file(data, tmp_path):
    (tmp_path / "text8").touch()
    ar, unwarped = side_by_side.VARIANTS["ar"], side_by_side.VARIANTS["unwarped"]
    assert side_by_side.macros_of(ar, str(data)) == [f"DATA_DIR={str(data)!r}"]
    file = f"DATA_FILE={str(tmp_path / 'text8')!r}"
    assert side_by_side.macros_of(unwarped, str(tmp_path / "text8"), ["WARP=True", "LAYERS=2"]) == [
        file,
        "LAYERS=2",
        "WARP=False",
    ]
    config = ["--config", "configs/cdcd/text8_gpu.gin", "--data", str(tmp_path / "none")]
    with pytest.raises(SystemExit, match="side_by_side: Macro DATA_FILE is required"):
        side_by_side.main([str(tmp_path), *config])


@pytest.mark.slow
def test_the_judge_reads_other_files(runs):
    def texts(run):
        rows = [np.asarray(run.train_task.sequence("train")[0]["targets"])]
        return "".join(chr(ord("a") + i - 4) if i > 3 else " " for row in rows for i in row)

    assert "not" in texts(load_run(runs / "cdcd"))
    assert "question" in texts(load_run(runs / "judge"))


@pytest.mark.slow
def test_all_parts_of_the_evaluation(all_runs, tmp_path, capsys):
    runs = all_runs
    models = [f"--model={runs / name}" for name in ("cdcd", "mdlm", "ar")]
    judged = ["--judge", str(runs / "judge"), "--temperatures", "0.5", "1"]
    few = ["--limit", "3", "--steps", "2"]
    options = {
        "score": ["--baselines", "--order", "2", "--limit", "5", "--ordered-rows", "2"],
        "compose": [*judged, *few, "--plot", str(tmp_path / "frontier.png")],
        "infill": [*few, "--plot", str(tmp_path / "infilling.png")],
    }
    found = {}
    for task, flags in options.items():
        found |= evaluated(tmp_path, task, *models, *flags)
    printed = capsys.readouterr().out
    assert all(title in printed for title in ("Bits per token", "Samples", "Gaps filled in"))
    estimates = {(row["model"], row["estimate"]): row for row in found["likelihood"]}
    uniform = math.log2(30)  # of networks that have hardly been trained
    for model in ("ar", "mdlm", "cdcd"):
        kind = "exact" if model == "ar" else "left to right"
        assert estimates[model, kind]["bits per token"] == pytest.approx(uniform, rel=0.1)
    assert estimates["2-gram", "exact"]["bits per token"] < 4  # it saw half of the words
    assert set(found["samples"]) == {"data", "cdcd", "mdlm", "ar"}
    assert all(len(points) == 2 for name, points in found["samples"].items() if name != "data")
    assert 0 < found["samples"]["data"][0]["copied_16"] < 1  # of one of the two files
    assert found["samples"]["cdcd"][0]["copied_16"] == 0.0
    assert set(found["infilling"]["ar"]) == {"0.1", "0.3", "0.5"}
    for kind in ("frontier", "infilling"):
        assert (tmp_path / f"{kind}.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "part", "flags"),
    [
        ("score", "likelihood", ["--limit", "3", "--ordered-rows", "0"]),
        pytest.param(
            *("infill", "words"),
            ["--limit", "3", "--steps", "2", "--temperatures", "1", "--parts", "words"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_model_folder_is_evaluated_as_its_run(runs, data, tmp_path, task, part, flags):
    folder = export(runs / "cdcd", tmp_path / "mine", "")
    of_run = evaluated(tmp_path, task, f"--model={runs / 'cdcd'}", *flags)
    of_model = evaluated(tmp_path, task, f"--model={folder}", "--data", data, *flags)
    assert of_run[part]
    for a, b in zip(of_run[part], of_model[part]):
        assert {**a, "model": "mine"} == b
    if part == "words":
        assert of_run["words"][0]["words"] == 3


@pytest.mark.slow
def test_a_model_folder_has_tasks_and_no_melodies(runs, data, tmp_path, capsys):
    folder = export(runs / "cdcd", tmp_path / "mine", "")
    assert load_model(folder, str(data), (1, 2)).train_task.num_input_examples("train") == 52
    part = ["--parts", "notes", "--data", str(data)]
    assert cli.main(["evaluate", "compose", "--model", str(folder), *part]) == 1
    assert "expected a model of melody, got one of letters" in capsys.readouterr().err


def test_notes_of_melodies(tmp_path, capsys):
    """Of a model that knows nothing, beside melodies in one key."""
    save_tiny_model(tmp_path / "model", tiny_config(Melody()))
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("valid", 20)):
        (tmp_path / "data" / "samples" / split / "melody").mkdir(parents=True)
        for number in range(count):
            path = tmp_path / "data" / "samples" / split / "melody" / f"{number}.mid"
            onset = np.arange(64.0)
            save_midi(path, make_notes(onset, onset + 1, rng.choice([60, 62, 64, 65, 67, 69], 64)))
    flags = ["--parts", "notes", "--limit", "6", "--steps", "2", "--temperatures", "1"]
    places = [f"--model={tmp_path / 'model'}", "--data", tmp_path / "data"]
    found = evaluated(tmp_path, "compose", *places, *flags)["notes"]
    assert [row["model"] for row in found] == [
        "test",
        "test, tokens shuffled over all rows",
        "model",
    ]
    assert found[0]["in-key share"] == 1.0
    assert 0.5 < found[2]["in-key share"] < 1.0
    assert "Notes of melodies" in capsys.readouterr().out


@pytest.mark.slow
def test_longer_rows_are_judged_in_parts(runs):
    judge = load_run(runs / "judge")
    rows = np.random.default_rng(0).integers(3, 30, (3, 32))
    halves = judged_nats(judge, rows[:, :16]) + judged_nats(judge, rows[:, 16:])
    np.testing.assert_allclose(judged_nats(judge, rows), halves, rtol=1e-5)
    with pytest.raises(ValueError, match="rows of 24 tokens and a judge of 16"):
        judged_nats(judge, rows[:, :24])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["compose", "--model", "{runs}/cdcd"], "give --judge", marks=pytest.mark.slow),
        (["compose", "--model", "cdcd-text", "--parts", "speed"], "cdcd-text: a model, not a"),
        (["infill", "--model", "cdcd-text", "--data", "{runs}/none"], "none: no such folder"),
        (["infill", "--model", "perceiver_ar-pop909"], "infill needs one of"),
    ],
)
def test_evaluations_that_cannot_start(request, tmp_path, capsys, arguments, message):
    needs_runs = any(text.startswith("{runs}/cdcd") for text in arguments)
    runs = request.getfixturevalue("runs") if needs_runs else tmp_path
    assert cli.main(["evaluate", *(text.format(runs=runs) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_words_of_known_rows():
    texts = ["to be or not that is it ", "abc de a longest phrases", "the lazy fox jumps over "]
    masks = [metrics.word_gaps(np.random.default_rng(i), texts) for i in range(20)]
    chosen = ["".join(np.array(list(text))[gap]) for m in masks for text, gap in zip(texts, m)]
    assert set(chosen) == {"not", "that", "", "lazy", "fox", "jumps", "over"}
    filled = ["to be or xyz that is it ", texts[1], "the lazy fox seven over "]
    gaps = np.array([[x != y for x, y in zip(a, b)] for a, b in zip(texts, filled)])
    gaps[2] = [18 > i >= 13 for i in range(24)]
    scores = metrics.word_scores(texts, filled, gaps, {"seven"})
    assert scores == {"found": 0.0, "known": 0.5}
    assert metrics.word_scores(texts, texts, gaps, {"not"}) == {"found": 1.0, "known": 0.5}
    with pytest.raises(ValueError, match="no text has a word that could be filled in"):
        metrics.word_scores(texts, texts, gaps & False, {"not"})


def test_gaps_and_what_is_found_in_them():
    gaps = metrics.span_masks(np.random.default_rng(0), (500, 20), 0.3)
    assert (gaps.sum(axis=1) == 6).all()
    assert (np.abs(np.diff(gaps.astype(int), axis=1)).sum(axis=1) <= 2).all()  # one gap
    assert gaps[:, 0].mean() == pytest.approx(1 / 15, abs=0.04)
    truth = np.tile(np.arange(20), (500, 1))
    filled = np.where(gaps & (truth % 2 == 0), -1, truth)
    scores = metrics.infilling_scores(truth, filled, gaps)
    assert scores["accuracy"] == scores["edits"] == 0.5
    assert scores["low"] <= 0.5 <= scores["high"]
    with pytest.raises(ValueError, match=r"share=0\.0"):
        metrics.span_masks(np.random.default_rng(0), (5, 20), 0.0)
