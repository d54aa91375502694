"""The recipes of long copy tasks: their sizes, and stages that go on with one another."""

import json
import re
from pathlib import Path

import pytest

from perceiver_ar import copy_stages
from tests.running import train

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_reference_sweep_has_its_size(tmp_path):
    config = "configs/perceiver_ar/copy_131072.gin"
    shown = train(config, "--dry_run", f"--gin.MODEL_DIR='{tmp_path}'")
    d, v, layers, positions = 1024, 259, 6, 131_073
    cross_and_ends = 12 * d**2 + 15 * d + d**2 + d + 2 * d + 2 * d * v + v
    expected = layers * (12 * d**2 + 13 * d) + cross_and_ends + positions * d
    assert f"{expected:,} numbers" in shown
    assert re.search(r"decoder_input_tokens +8x131072 ", shown)


def test_the_file_is_the_last_stage_by_itself(tmp_path):
    flags = list(copy_stages.stage_flags(copy_stages.STAGES[8192], tmp_path))[-1]
    set_by_stages = dict(flag.removeprefix("--gin.").split("=", 1) for flag in flags)
    text = (ROOT / copy_stages.CONFIG).read_text()
    in_file = dict(re.findall(r"^([A-Z_]+) = (.*?)(?: +#.*)?$", text, re.MULTILINE))
    for name in set_by_stages.keys() - {"MODEL_DIR", "RESTORE_FROM"}:
        value = set_by_stages[name].replace("'", '"')
        assert in_file[name] == value, name


@pytest.mark.slow
def test_stages_go_on_with_one_another(tmp_path, capfd):
    assert copy_stages.main([str(tmp_path), "--stages", "8:4:4:3", "16:8:4:4"]) == 0
    assert (
        f"restored from {tmp_path}/8/checkpoint_3; training from step 3 to 7"
        in capfd.readouterr().out
    )
    lines = (tmp_path / "16" / "train" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 7
    assert copy_stages.main([str(tmp_path), "--stages", "8:4:4:3", "16:8:4:4"]) == 0
    assert "training from" not in capfd.readouterr().out  # all is there


def test_the_middle_of_all_stages_is_that_of_the_longest(tmp_path):
    flags = list(copy_stages.stage_flags(copy_stages.STAGES[131_072], tmp_path))
    assert all("--gin.MIDDLE=65536" in stage for stage in flags)


@pytest.mark.slow
def test_a_stage_that_fails_is_the_last(tmp_path):
    assert copy_stages.main([str(tmp_path), "--stages", "8:9:4:3", "16:8:4:4"]) != 0
    assert not (tmp_path / "16").exists()
