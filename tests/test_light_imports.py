"""Importing stays light: what each part may load, in one new interpreter.

Parts are imported one after the other, lightest first, and after each the modules loaded so far are
compared with what it must not bring. So a part may not bring what those before it must not either.
"""

import json
import subprocess
import sys

import pytest

PACKAGES = ("t5x", "musax", "mt3", "drums", "perceiver_ar", "cdcd")
EXTRAS = {
    "tensorflow", "tensorflow_datasets", "seqio", "note_seq", "apache_beam", "matplotlib",
    "librosa", "tinysoundfont", "sentencepiece", "PIL",
}  # fmt: skip

#: Part: (what is run, what must not be loaded by then).
PARTS = {
    "the command line's help": (
        "import musax, musax.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    for arguments in (['--help'], ['transcribe', '--help'], ['drums', '--help']):\n"
        "        with contextlib.suppress(SystemExit):\n"
        "            musax.cli.main(arguments)\n",
        EXTRAS | {"jax", "numpy", "rich", "soundfile", "flax", "grain", "mt3", "drums", "cdcd"},
    ),
    "declaring tasks": (
        "import t5x.data",
        EXTRAS | {"jax", "flax", "grain", "array_record"},
    ),
    "audio, notes and spectrograms": (
        "import musax.audio, musax.midi, musax.notes, musax.plots, musax.spectrograms",
        EXTRAS | {"jax", "flax", "grain"},
    ),
    "diffusion": ("import musax.diffusion", EXTRAS | {"flax", "grain"}),
    "every module": (
        "import importlib, pathlib\n"
        "for package in PACKAGES:\n"
        "    folder = pathlib.Path(importlib.import_module(package).__file__).parent\n"
        "    for path in sorted(folder.rglob('*.py')):\n"
        "        parts = path.relative_to(folder.parent).with_suffix('').parts\n"
        "        if path.stem != '__main__':\n"
        "            importlib.import_module('.'.join(parts).removesuffix('.__init__'))\n",
        EXTRAS,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded():
    """Part -> names of the modules that were loaded by then."""
    code = "import contextlib, io, json, sys\nPACKAGES, parts = json.loads(sys.argv[1])\n"
    code += "loaded = {}\nfor name, text in parts.items():\n"
    code += "    exec(text)\n    loaded[name] = sorted(sys.modules)\n"
    code += "print('\\n' + json.dumps(loaded))"
    parts = {name: text for name, (text, _) in PARTS.items()}
    command = [sys.executable, "-c", code, json.dumps([PACKAGES, parts])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("part", PARTS)
def test_stays_light(loaded, part):
    _, heavy = PARTS[part]
    assert sorted(heavy.intersection(loaded[part])) == []
