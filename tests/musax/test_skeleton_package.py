"""The whole of a package but its network and data, in a few lines on `musax.model_config`.

A package "skeleton" learns which notes follow which: configuration, model, task, export, errors.
"""

import dataclasses
import json
from typing import Annotated

import jax
import numpy as np
import pytest

import musax
from musax import cli, exporting, pretrained
from musax.midi import load_midi
from musax.model_config import BaseModelConfig, ModelConfigError, Part, PretrainedModel
from musax.notes import make_notes
from musax.results import Piece
from t5x.checkpoints import CheckpointError

# ------------------------------------------------------------------------------------- the package


@dataclasses.dataclass(frozen=True)
class Grid:
    """Notes of equal length."""

    step: float = 0.25


@dataclasses.dataclass(frozen=True)
class Swing:
    """Notes of two lengths in turn."""

    long: float
    short: float


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the network."""

    num_pitches: int
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class ModelConfig(BaseModelConfig):
    """A chain of notes."""

    system = "skeleton"

    network: Annotated[Sizes, Part(brief=True)]
    rhythm: Annotated[Grid | Swing, Part(kinds={"grid": Grid, "swing": Swing})]
    lowest: int = 60

    def param_shapes(self):
        size = self.network.num_pitches
        return {"chain": jax.ShapeDtypeStruct((size, size), np.float32)}


class Composer(PretrainedModel[ModelConfig]):
    """A model that composes."""

    config_class = ModelConfig

    def compose(self, *, count=1, seed=0, length=8):
        return [self._piece(seed + i, length) for i in range(count)]

    def _piece(self, seed, length):
        rng, chain = np.random.default_rng(seed), np.asarray(self.params["chain"])
        steps = [0]
        for _ in range(length - 1):
            steps.append(int(rng.choice(len(chain), p=chain[steps[-1]])))
        onset = 0.25 * np.arange(length)
        notes = make_notes(onset, onset + 0.25, self.config.lowest + np.array(steps))
        return Piece(notes, 0.25 * length, 0.0, False, np.array(steps))


def read_run(run_dir, step):
    config = ModelConfig(Sizes(4), Grid())
    return exporting.ExportedRun(config, {"chain": np.full((4, 4), 1 / 4)}, step or 7)


# --------------------------------------------------------------------------------------- its tests


@pytest.fixture
def folder(tmp_path, monkeypatch):
    system = pretrained.System(f"{__name__}:Composer", ("compose",))
    monkeypatch.setitem(pretrained.SYSTEMS, "skeleton", system)
    monkeypatch.setenv("MUSAX_PRETRAINED", str(tmp_path))
    card = "---\ndata_licence: CC0\n---\n\n# Skeleton\n\nChains of notes.\n"
    return exporting.export_run(read_run, "run", tmp_path / "skeleton-tiny", card, None, "bfloat16")


def test_a_run_becomes_a_model_that_does_its_task(folder, tmp_path):
    (info,) = (each for each in pretrained.list_models("compose") if each.system == "skeleton")
    assert (info.name, info.summary, info.licence) == ("skeleton-tiny", "Chains of notes.", "CC0")
    values = json.loads((folder / "config.json").read_text())
    assert values == {
        "system": "skeleton",
        "network": {"num_pitches": 4},
        "rhythm": {"kind": "grid", "step": 0.25},
        "lowest": 60,
    }
    model = musax.load("skeleton-tiny", task="compose")
    assert model.params["chain"].dtype == np.float32
    first, second = model.compose(count=2, seed=1)
    assert not np.array_equal(first.notes, second.notes)
    first.save(tmp_path / "piece.mid")
    assert ModelConfig.read(folder) == model.config
    with pytest.raises(
        pretrained.PretrainedError, match=r"skeleton \(compose\); score needs one of"
    ):
        musax.load("skeleton-tiny", task="score")


def test_a_verb_runs_the_model_with_the_options_it_has(folder, tmp_path, capsys):
    out = tmp_path / "piece.mid"
    arguments = ["compose", "--model", "skeleton-tiny", "-o", str(out), "--seed", "1"]
    assert cli.main(arguments) == 0
    assert "8 notes, 0:02, seed 1" in capsys.readouterr().out
    assert len(load_midi(out)) == 8
    out.unlink()
    for option, value in (("--prompt", "song.mid"), ("--temperature", "0.5")):
        assert cli.main([*arguments, option, value]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "skeleton-tiny: " in line
        assert f"has no option {option}" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"num_pitches": "4"}}, "network.num_pitches='4': expected a whole number"),
        ({"network": {"num_pitches": True}}, "network.num_pitches=True: expected a whole number"),
        ({"network": {}}, "network.num_pitches is missing"),
        ({"network": {"num_pitches": 3, "dtype": 3}}, "network.dtype=3: expected a string"),
        ({"rhythm": {"kind": "swing", "long": 1}}, "rhythm.short is missing"),
        ({"rhythm": {"kind": "swign"}}, "rhythm.kind='swign': expected one of grid, swing"),
        ({"rhythm": {"kind": "grid", "stepp": 1}}, "rhythm.stepp; did you mean 'step'"),
        ({"lowest": [60] * 99}, r"lowest=\[60, 60, .*\.\.\.\]: expected a whole number"),
        ({"lowst": 3}, "unknown field lowst; did you mean 'lowest'"),
        ({"system": None}, '"system" is None'),
    ],
)
def test_a_wrong_field_is_named_with_its_file(folder, change, message):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelConfigError, match=message) as error:
        Composer.from_pretrained(folder)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_other_damage(folder):
    with pytest.raises(
        CheckpointError, match=r"shape: chain is \(2, 2\), the model expects \(4, 4\)"
    ):
        Composer(ModelConfig(Sizes(4), Grid()), {"chain": np.zeros((2, 2))}, "here")
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ModelConfigError, match=r"config\.json: expected a JSON object, got list"):
        Composer.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelConfigError, match=r"config\.json: missing"):
        Composer.from_pretrained(folder)
    with pytest.raises(ModelConfigError, match="values: expected a JSON object, got list"):
        ModelConfig.from_json([], "values")  # type: ignore[arg-type]
