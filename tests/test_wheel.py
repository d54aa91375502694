"""The wheel: what is in it, and that README's «Train it» runs from it in an empty folder."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile
from pathlib import Path

import pytest

from musax import pretrained
from musax.midi import save_midi
from musax.notes import make_notes
from t5x import gin_files

ROOT = Path(__file__).parents[1]

#: README's steps are many; these options make each one small.
FEWER = {
    "prepare": "--instruments 1 --takes 1 --workers 1",
    "train": "--gin.TRAIN_STEPS={steps}",
    "evaluate": "--pieces 1 --seconds 3",
}


@pytest.fixture
def shipped(monkeypatch):
    """Folders of the checkout -> their places in the wheel, by the build hook."""
    interface = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.__dict__["BuildHookInterface"] = object
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    for name in ("hatchling", "hatchling.builders", "hatchling.builders.hooks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    plugin = types.ModuleType("hatchling.builders.hooks.plugin")
    monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["ShippedFolders"]()
    editable, wheel = {"force_include": {}}, {"force_include": {}}
    hook.initialize("editable", editable)
    hook.initialize("standard", wheel)
    assert not editable["force_include"]
    return wheel["force_include"]


def test_the_wheel_has_every_package_and_all_they_read(shipped):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages == found
    searched = [str(folder.relative_to(ROOT)) for folder in gin_files.OWN_FOLDERS[1:]]
    assert Path(shipped["configs"]).parent.as_posix() in searched
    assert Path(shipped["configs"]).name == "configs"  # files include "configs/mt3/model.gin"
    for config in (ROOT / "configs").rglob("*.gin"):
        assert config.parent.name in packages | {"ismir2022"}
    shipped_models = (ROOT / "pretrained").glob("*/config.json")
    assert {path.parent.name for path in shipped_models} <= {
        model.name for model in pretrained.list_models()
    }
    assert Path(pretrained.__file__).parent == ROOT / "musax"
    assert shipped["pretrained"].startswith("musax/")


def train_it():
    """The command lines of README's «Train it»."""
    section = (ROOT / "README.md").read_text().split("## Train it")[1].split("\n## ")[0]
    (block,) = re.findall(r"```shell\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def test_train_it_prepares_trains_exports_evaluates_and_transcribes():
    lines = train_it()
    assert all(words[0] == "musax" for words in lines)
    verbs = [words[1] for words in lines]
    assert verbs == [*["prepare"] * 2, *["train"] * 2, "export", "evaluate", "render", "transcribe"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what is in the wheel."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        pytest.skip("uv, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [uv, "build", "--wheel", "--quiet", "-o", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_train_it_runs_from_the_wheel_in_an_empty_folder(installed, tmp_path):
    for song in ("001", "801", "831"):  # of the three splits
        place = tmp_path / "data" / "pop909" / song
        place.mkdir(parents=True)
        onset = [i / 4 for i in range(40)]
        pitch = [48 + 5 * i % 36 for i in range(40)]
        notes = make_notes(onset, [o + 0.2 for o in onset], pitch, 80)
        save_midi(place / f"{song}.mid", notes)
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    where = run("-c", "import musax, t5x; print(musax.__file__, t5x.__file__)")
    assert where.stdout.count(str(installed)) == 2
    steps = 0
    for _, verb, *words in train_it():
        steps += 10 * (verb == "train")
        fewer = FEWER.get(verb, "").format(steps=steps).split()
        done = run("-m", "musax", verb, *words, *fewer)
        assert done.returncode == 0, (verb, words, done.stderr[-2000:])
    assert (tmp_path / "song.mid").is_file()
    assert (tmp_path / "models" / "my-piano" / "model.safetensors").is_file()
