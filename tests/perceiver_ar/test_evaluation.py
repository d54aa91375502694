"""`musax evaluate` on runs of the configurations at a tiny size."""

import json

import jax
import numpy as np
import pytest

from musax import cli
from musax.midi import save_midi
from musax.notes import make_notes
from perceiver_ar.export import export
from perceiver_ar.inference import Composer
from t5x.checkpoints.loading import load_params, run_checkpoint
from tests import running

SIZES = {
    "pop909": {
        "LENGTH": 64,
        "config.PerceiverARConfig.input_embed_dim": 16,
        "config.PerceiverARConfig.num_z_channels": 16,
        "config.PerceiverARConfig.num_transformers_per_block": 1,
        "config.PerceiverARConfig.num_cross_attend_heads": 2,
        "config.PerceiverARConfig.num_transformer_heads": 2,
    },
    "pop909_decoder": {
        "LENGTH": 32,
        "network.TransformerConfig.emb_dim": 16,
        "network.TransformerConfig.num_heads": 2,
        "network.TransformerConfig.head_dim": 8,
        "network.TransformerConfig.mlp_dim": 32,
        "network.TransformerConfig.num_layers": 1,
    },
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Songs in the folders of POP909, some of each split."""
    folder = tmp_path_factory.mktemp("songs")
    for number in (1, 2, 3, 801, 802, 831, 832):
        rng = np.random.default_rng(number)
        onset = np.cumsum(rng.choice([0.25, 0.5], 60))
        notes = make_notes(onset, onset + 0.4, rng.choice([60, 62, 64, 65, 67, 69], 60), 80)
        path = folder / f"{number:03}" / f"{number:03}.mid"
        path.parent.mkdir()
        save_midi(path, notes)
    return folder


def train(name, corpus, run, *flags):
    """Train a configuration of `SIZES` for two steps; return what was printed."""
    sizes = SIZES[name]
    settings = sizes | {
        "DATA_DIR": f"'{corpus}'",
        "MODEL_DIR": f"'{run}'",
        "NUM_LATENTS": 32,
        "TASK_FEATURE_LENGTHS": dict.fromkeys(("inputs", "targets"), sizes["LENGTH"]),
        "TRAIN_STEPS": 2,
        "EVAL_STEPS": 1,
    }
    return running.train(f"configs/perceiver_ar/{name}.gin", *flags, settings=settings)


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """MODEL_DIR of Perceiver AR."""
    folder = tmp_path_factory.mktemp("runs") / "pop909"
    train("pop909", corpus, folder)
    return folder


@pytest.fixture(scope="module")
def decoder_run(corpus, tmp_path_factory):
    """MODEL_DIR of the plain decoder."""
    folder = tmp_path_factory.mktemp("runs") / "pop909_decoder"
    train("pop909_decoder", corpus, folder)
    return folder


def test_a_dry_run_of_the_plain_decoder(corpus, tmp_path):
    shown = train("pop909_decoder", corpus, tmp_path, "--dry_run")
    assert "logits_dense" in shown


@pytest.mark.slow
def test_runs_and_baselines_are_compared(run, decoder_run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    status = cli.main(
        [
            *("evaluate", "score", *(f"--model={x}" for x in (run, decoder_run))),
            *("--context", "16", "--stride", "8", "--limit", "1", "--baselines", "--copies", "2"),
            *("--plot", str(tmp_path / "nats.png"), "-o", str(tmp_path / "nats.json")),
        ]
    )
    assert status == 0
    found = json.loads((tmp_path / "nats.json").read_text())
    printed = capsys.readouterr().out
    contexts = ["context 64, 32", "context 16, 16", "context 32, 32", "context 16, 16"]
    assert [name.split(" latents")[0].split("steps), ")[-1] for name in found][:4] == contexts
    assert [name.split(",")[0] for name in found][4:] == ["unigram", "6-gram"]
    targets = {row["targets"] for row in found.values()}
    assert len(targets) == 1
    for row in found.values():
        assert row["nats per note"] == pytest.approx(row["nats per token"] * row["targets"] / 60)
        assert sum(bucket["count"] for bucket in row["buckets"]) in targets
        assert f"{row['perplexity']:.4f}" in printed
        assert row["interval"][0] <= row["nats per token"] <= row["interval"][1]
    rows = list(found.values())
    assert rows[0]["difference"] == 0
    assert rows[5]["nats per token"] < rows[4]["nats per token"] < rows[0]["nats per token"]
    assert (tmp_path / "nats.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_run_becomes_a_model(run, corpus, tmp_path):
    folder = export(run, tmp_path / "model", "# Songs\n", dtype="bfloat16")
    assert (folder / "README.md").read_text() == "# Songs\n"
    composer = Composer.from_pretrained(folder)
    trained = load_params(run_checkpoint(run))
    rounded = jax.tree.map(lambda x: x.astype("bfloat16").astype(np.float32), trained)
    jax.tree.map(np.testing.assert_array_equal, composer.params, rounded)
    assert composer.config.network.num_z_channels == 16
    assert composer.compose(seconds=1.0)[0].seconds <= 1.0
    # It is scored and samples as its run, but for the rounding.
    written, flags = tmp_path / "found.json", ["--data", str(corpus), "--limit", "1"]
    nats = []
    for name in (folder, run):
        model = [f"--model={name}", "--latents", "32", "--stride", "8"]
        assert cli.main(["evaluate", "score", *model, *flags, "-o", str(written)]) == 0
        (row,) = json.loads(written.read_text()).values()
        nats.append(row["nats per note"])
    assert nats[0] == pytest.approx(nats[1], rel=0.01)
    composed = [f"--model={folder}", *flags, "--seconds", "5", "-o", str(written)]
    assert cli.main(["evaluate", "compose", *composed]) == 0
    assert json.loads(written.read_text())["measures"]["samples"]["notes per second"] > 0
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 7; there are"):
        export(run, tmp_path / "other", "", step=7)


def test_samples_are_compared_with_the_data(corpus, tmp_path, capsys):
    """Of two samples one is a training piece."""
    pytest.importorskip("matplotlib")
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "a.mid").write_bytes((corpus / "001" / "001.mid").read_bytes())
    (samples / "b.mid").write_bytes((corpus / "802" / "802.mid").read_bytes())
    status = cli.main(
        [
            *("evaluate", "compose", "--samples", str(samples), "--data", str(corpus)),
            *("--plot", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.json")),
        ]
    )
    assert status == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["distance from test"]["samples"]["pitch"]["overlap"] > 0.7
    copies = found["copies of train, exact"]
    assert copies["samples"]["of 32 notes"] == pytest.approx(0.5)
    assert copies["samples"]["longest"] == 60
    assert copies["test"]["of 16 notes"] == 0
    assert found["measures"]["samples"]["in-key share"] > 0.99
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert "2 of validation: overlap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["compose"], 2, "either --model NAME|DIR"),
        (["compose", "--samples", "{tmp}"], 2, "give --data"),
        (["compose", "--samples", "{tmp}", "--data", "{corpus}"], 1, "no .mid or .midi files"),
        (["compose", "--model", "{run}", "--data", "{corpus}"], 2, "musax export"),
        (["score", "--model", "{tmp}"], 2, "config.gin"),
        (["score", "--model", "{run}", "--step", "7"], 1, "checkpoint of step 7"),
        (["score", "--model", "{run}", "--ordered-rows", "1"], 2, "models of cdcd"),
    ],
)
def test_what_does_not_fit_is_named(run, corpus, tmp_path, capsys, arguments, status, message):
    places = {"tmp": tmp_path, "corpus": corpus, "run": run}
    assert cli.main(["evaluate", *(text.format(**places) for text in arguments)]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
