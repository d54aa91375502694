import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import gin
import pytest

from t5x import eval as eval_script
from t5x import export_lib, gin_utils, infer, partitioning, train
from tests.running import own_gin

BASE = """
from __gin__ import dynamic_registration
import __main__ as train_script
from t5x import partitioning
MODEL_DIR = %gin.REQUIRED
BATCH_SIZE = 8
PARTS = 1
train_script.train:
  model_dir = %MODEL_DIR
  total_steps = %BATCH_SIZE
  partitioner = @partitioning.PjitPartitioner()
partitioning.PjitPartitioner.num_partitions = %PARTS
"""

SET = "--gin.MODEL_DIR=/tmp/x"


@pytest.fixture
def parse(tmp_path):
    def parse(text, *flags):
        (tmp_path / "base.gin").write_text(BASE)
        (tmp_path / "run.gin").write_text(text)
        args = gin_utils.rewrite_gin_args(flags)
        bindings = [a.removeprefix("--gin_bindings=") for a in args]
        return gin_utils.parse(["run.gin"], bindings, [tmp_path], train.train)

    yield parse
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]


def test_rewrites_flags():
    assert gin_utils.rewrite_gin_args(
        ["--gin_file=a.gin", "--gin.A.b=3", "--gin.DIR=/tmp/a b", "--gin.D=/tmp/x", "--gin.C=@f()"]
    ) == [
        "--gin_file=a.gin",
        "--gin_bindings=A.b = 3",
        "--gin_bindings=DIR = '/tmp/a b'",
        "--gin_bindings=D = '/tmp/x'",
        "--gin_bindings=C = @f()",
    ]
    assert gin_utils.rewrite_gin_args(["--gin.X='a'", "--gin.Y=None", "--gin.Z=1e-3"]) == [
        "--gin_bindings=X = 'a'",
        "--gin_bindings=Y = None",
        "--gin_bindings=Z = 1e-3",
    ]
    with pytest.raises(gin_utils.GinError, match=r"--gin.X: expected --gin.NAME=VALUE"):
        gin_utils.rewrite_gin_args(["--gin.X"])


@pytest.mark.parametrize(
    "value",
    [
        "runs/my run",
        "a,b",
        "1,2",
        "lr=0.1",
        "2024-01-01",
        "8k",
        "12#3",
        "it's",
        "é",
        "1-2j",
        "...",
        "x\ny",
    ],
)
def test_text_needs_no_quotes_on_the_command_line(value, parse):
    parse(BASE + "TEXT = 'x'\ntrain_script.train.model = %TEXT", SET, f"--gin.TEXT={value}")
    assert gin.query_parameter("TEXT/macro.value") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-1e-3", -1e-3),
        ("None", None),
        ("'8'", "8"),
        ("(1, 'a')", (1, "a")),
        ("true", "true"),
    ],
)
def test_literals_stay_what_they_are(text, value, parse):
    parse(BASE + "VALUE = 1\ntrain_script.train.model = %VALUE", SET, f"--gin.VALUE={text}")
    assert gin.query_parameter("VALUE/macro.value") == value


def test_a_value_that_is_empty_is_refused():
    with pytest.raises(gin_utils.GinError, match=r"has no value; .* give --gin.X=\"''\""):
        gin_utils.rewrite_gin_args(["--gin.X="])


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", ["--gin.trian/train.eval_steps=3"], r"enters the scope trian/.*Did you mean train"),
        ("trian/train_script.train.eval_steps = 3", [], r"scope trian/.*Did you mean train\?"),
        ("MODEL_DIR = runs/x", [], r"(?s)run.gin.*text needs quotes"),
        ("train_script.train.model = @utils.f()", [], r"`from t5x import utils`"),
    ],
)
def test_scopes_and_names_that_nothing_has(text, flags, message, parse):
    used = "\ntrain_script.train.checkpoint_cfg = @train/partitioning.PjitPartitioner()\n"
    with pytest.raises(gin_utils.GinError, match=message):
        parse(BASE + used + text, SET, *flags)


def test_a_scope_whose_reference_is_replaced_is_no_mistake(parse):
    parse(
        BASE
        + "train_script.train.infer_eval_dataset_cfg = @infer_eval/partitioning.PjitPartitioner()\n"
        "infer_eval/partitioning.PjitPartitioner.num_partitions = 2",
        SET,
        "--gin.train.infer_eval_dataset_cfg=None",
    )


def test_an_ambiguous_name_is_told(parse):
    networks = (
        "from t5x.examples.t5 import network\n"
        "from t5x.examples.scalable_t5 import network as scalable\n"
        "network.T5Config.num_heads = 4\nscalable.T5Config.num_heads = 4"
    )
    message = r"(?s)Ambiguous.*Write more of the name, such as .*T5Config or"
    with pytest.raises(gin_utils.GinError, match=message):
        parse(BASE + networks, SET, "--gin.T5Config.num_head=3")
    message = "Configurable 'T5Config' doesn't have a parameter named 'num_head'."
    assert gin_utils._suggestion(message) == ""


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings_of_editors(encoding, parse, tmp_path):
    (tmp_path / "named.gin").write_bytes(
        "# Übung\nBATCH_SIZE = 3\nMODEL_DIR = 'é'".encode(encoding)
    )
    text = BASE + "include 'named.gin'"
    if encoding == "latin-1":
        with pytest.warns(
            UserWarning, match=r"named.gin:1: is not UTF-8; read as Latin-1: '# Übung'"
        ):
            parse(text)
    else:
        parse(text)
    assert gin.query_parameter("MODEL_DIR/macro.value") == "é"


def test_binary_files_are_refused(parse, tmp_path):
    (tmp_path / "named.gin").write_bytes(b"X = 1\n\0\0")
    with pytest.raises(gin_utils.GinError, match=r"named.gin: has zero bytes"):
        parse(BASE + "include 'named.gin'")


def test_a_file_without_dynamic_registration_is_told(parse, tmp_path):
    (tmp_path / "plain.gin").write_text(
        "from t5x import partitioning as parts\nparts.PjitPartitioner.num_partitions = 4"
    )
    with pytest.raises(gin_utils.GinError, match=r"plain.gin.*(?s:.)*__gin__ import dynamic_reg"):
        parse(BASE + "include 'plain.gin'", SET)


def test_an_include_lies_beside_the_file_that_includes_it(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    for folder in (elsewhere, tmp_path / "mine/deeper"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    (tmp_path / "mine/run.gin").write_text(BASE + "include 'deeper/part.gin'\n")
    (tmp_path / "mine/deeper/part.gin").write_text("include 'size.gin'\nMODEL_DIR = 'x'")
    (tmp_path / "mine/deeper/size.gin").write_text("BATCH_SIZE = 5")
    (elsewhere / "size.gin").write_text("BATCH_SIZE = 7")
    with own_gin():
        gin_utils.parse([tmp_path / "mine/run.gin"], [], [], train.train)
        assert gin.query_parameter("BATCH_SIZE/macro.value") == 5
        assert gin.config._LOCATION_PREFIXES[0] == ""


@pytest.mark.parametrize(
    ("address", "how"),
    [
        ("gs://bucket/run.gin", "gcloud storage cp -r gs://bucket/run.gin FOLDER"),
        ("s3://bucket/run.gin", "aws s3 cp --recursive"),
        ("https://host/run.gin", "curl -O https://host/run.gin"),
    ],
)
def test_addresses_are_no_paths(address, how):
    with own_gin(), pytest.raises(gin_utils.GinError, match=how):
        gin_utils.parse([address], [], [], train.train)


def test_own_files_are_found_from_anywhere_after_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "runs/pretrain.gin"

    def found(*search_paths):
        monkeypatch.setattr(gin.config, "_LOCATION_PREFIXES", [""])
        with contextlib.suppress(gin_utils.GinError):  # macros that pretrain.gin requires
            gin_utils.parse([name], [], search_paths, train.train)
        return gin_utils._locate(Path(name)).resolve()

    assert found() == Path(gin_utils.__file__).parent / "configs" / name
    for folder in (tmp_path, tmp_path / "given"):
        (folder / "runs").mkdir(parents=True)
        (folder / name).write_text("")
        assert found(tmp_path / "given") == folder / name
    gin.clear_config()


def test_main_is_the_training_module(parse):
    configured = parse('include "base.gin"', "--gin.MODEL_DIR=/tmp/x", "--gin.BATCH_SIZE=5")
    assert gin.query_parameter("train.total_steps").scopes == ["BATCH_SIZE"]
    with pytest.raises(TypeError, match="'model', 'train_dataset_cfg'"):
        configured()


def test_later_files_override(parse):
    parse('include "base.gin"\nBATCH_SIZE = 3', "--gin.MODEL_DIR=/tmp/x")
    assert gin.query_parameter("BATCH_SIZE/macro.value") == 3


def test_required_macro_names_file_line_and_flag(parse):
    with pytest.raises(gin_utils.GinError) as error:
        parse('include "base.gin"')
    assert "MODEL_DIR is required (base.gin:5)" in str(error.value)
    assert "--gin.MODEL_DIR=VALUE" in str(error.value)


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", ["--gin.BATCH_SIZ=3"], r"(?s)BATCH_SIZ: no gin file.*Did you mean BATCH_SIZE\?"),
        ("", ["--gin.train.totl_steps=3"], r"(?s)'totl_steps'.*Did you mean total_steps"),
        ("", ["--gin.trainn.total_steps=3"], r"(?s)'trainn'.*Did you mean train"),
        ("", ["--gin.train.total_steps=%PARTZ"], r"PARTZ is used but never set. Did you mean PA"),
        ("partitioning.Pjit.x = 2", [], r'(?s)no attribute Pjit.*run.gin", line \d'),
        ("partitioning.PjitPartitionr.x = 2", [], r"(?s)Did you mean PjitPartitioner"),
        ("train_script.train.eval_steps = %gin.REQUIRED", [], r"train.eval_steps is required"),
        ('include "absent.gin"', [], r"absent.gin"),
        ("PARTS = ", [], r"run.gin, line 1\d"),
    ],
)
def test_errors_say_what_to_do(parse, text, flags, message):
    with pytest.raises(gin_utils.GinError, match=message):
        parse(BASE + text, SET, *flags)


NETWORK = """
from t5x.examples.t5 import network
network.T5Config.num_heads = 4
train_script.train.model = @network.T5Config
"""


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", ["--gin.t5.network.T5Config.num_head=2"], r"(?s)'num_head'.*Did you mean num_heads"),
        ("", ["--gin.train.model=@network.T5Confi()"], r"(?s)T5Confi.*Did you mean T5Config"),
        (
            "BATCH_SIZE = 'x'",
            [],
            r"total_steps is 'x', from macro BATCH_SIZE \(run.gin:\d+\), expected",
        ),
        ("", ["--gin.PARTS=x"], r"'x', from macro PARTS \(on the command line\), .* int or None"),
        ("", ["--gin.train.eval_period=1.5"], r"train.eval_period is 1.5, expected int\."),
        ("", ["--gin.t5.network.T5Config.logits_via_embedding=yes"], r"is 'yes', expected bool"),
        (
            "",
            ["--gin.t5.network.T5Config.mlp_activations=gelu"],
            r"'gelu', expected Sequence\[str\]",
        ),
        (
            "",
            ["--gin.t5.network.T5Config.mlp_activations=['gelu', 2]"],
            r"expected Sequence\[str\]",
        ),
        ("", ["--gin.train.profile_steps=(1, 'b')"], r"expected Sequence\[int\] or None"),
        ("", ["--gin.train.eval_period=1e3", "--gin.t5.network.T5Config.dropout_rate=0"], None),
        ("", ["--gin.train.run_eval_before_training=1", "--gin.train.random_seed=None"], None),
    ],
)
def test_wrong_types_are_named(parse, text, flags, message):
    if message is None:
        parse(BASE + NETWORK + text, SET, *flags)
        return
    with pytest.raises(gin_utils.GinError, match=message):
        parse(
            'include "base.gin"' + BASE.replace("BATCH_SIZE = 8", "") + NETWORK + text, SET, *flags
        )


def test_mistyped_macro_in_a_file(parse):
    text = 'include "base.gin"\nfrom t5x import partitioning\n'
    text = "from __gin__ import dynamic_registration\n" + text
    with pytest.raises(
        gin_utils.GinError, match=r"EVAL_PERIODS .* is never used; did you mean EVAL_PERIOD"
    ):
        parse(text + "EVAL_PERIODS = 3\npartitioning.PjitPartitioner.backend = %EVAL_PERIOD", SET)


def test_config_is_recorded_and_can_be_read_again(parse, tmp_path):
    parse('include "base.gin"', SET)
    gin.get_configurable(partitioning.PjitPartitioner)()
    gin_utils.summarize_gin_config(str(tmp_path))
    text = (tmp_path / "config.gin").read_text()
    assert "partitioning.PjitPartitioner.num_partitions = %PARTS" in text
    parse(text)
    assert gin.query_parameter("partitioning.PjitPartitioner.backend") is None


def test_helpers():
    assert gin_utils.sum_fn(2, 3) == 5
    assert gin_utils.bool_fn([]) is False
    assert gin_utils.string_split_fn("a:b:c", ":", 1) == ["a", "b:c"]
    assert gin_utils.string_split_fn("a:b:c", ":", index=-1) == "c"


def test_files_of_the_packages_are_found_from_any_folder(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parse(
        "include 't5x/configs/runs/pretrain.gin'\nMODEL = None\nTASK_FEATURE_LENGTHS = {}\n"
        "MIXTURE_OR_TASK_NAME = 'words'\nTRAIN_STEPS = 7\nMODEL_DIR = 'here'\n"
    )
    assert gin.query_parameter("t5x.train.train.eval_period").config_key[0] == "EVAL_PERIOD"
    with pytest.raises(gin_utils.GinError, match=r"nowhere\.gin"):
        parse("include 't5x/examples/nowhere.gin'")


ENTRIES = {
    "train_script.train.model_dir": train.train,
    "eval_script.evaluate.output_dir": eval_script.evaluate,
    "infer_script.infer.output_dir": infer.infer,
    "export_script.save.output_dir": export_lib.save,
}


@pytest.mark.parametrize("how", ["import __main__", "from t5x import {}", "import t5x.{}"])
@pytest.mark.parametrize("name", ENTRIES)
def test_flags_know_the_names_that_files_give_to_modules(tmp_path, name, how):
    entry = ENTRIES[name]
    alias, function, parameter = name.split(".")
    module = entry.__module__.removeprefix("t5x.")
    (tmp_path / "run.gin").write_text(
        "from __gin__ import dynamic_registration\n"
        f"{how.format(module)} as {alias}\n"
        "from t5x import partitioning as parts\n"
        f"{alias}.{function}.{parameter} = 'file'\n"
        f"{alias}.{function}.partitioner = @parts.PjitPartitioner()\n"
        "NUMBER = 1\nparts.PjitPartitioner.num_partitions = %NUMBER\n"
    )
    bindings = [f"{name} = 'flag'", "a/parts.PjitPartitioner.num_partitions = 2"]
    bindings += [f"{alias}.{function}.partitioner = @a/parts.PjitPartitioner()", "NUMBER = 3"]
    try:
        gin_utils.parse(["run.gin"], bindings, [tmp_path], entry)
        assert gin.query_parameter(f"{function}.{parameter}") == "flag"
        assert gin.query_parameter("a/PjitPartitioner.num_partitions") == 2
        assert gin.query_parameter(f"{function}.partitioner").scopes == ["a"]
    finally:
        gin.clear_config()
        gin.config._LOCATION_PREFIXES[:] = [""]


# A script of upstream's shape: a configurable function, flags, and gin read in `main`.
SCRIPT = """
import gin
from absl import flags
from t5x import gin_utils

flags.DEFINE_multi_string("gin_file", None, "")
flags.DEFINE_multi_string("gin_bindings", [], "")
flags.DEFINE_list("gin_search_paths", ["."], "")

@gin.configurable
def work(size, name="none"):
    print("size", size, "name", name, "locked", gin.config.config_is_locked())

def main(argv):
    values = flags.FLAGS
    gin_utils.parse_gin_flags(values.gin_search_paths, values.gin_file, values.gin_bindings)
    work()

if __name__ == "__main__":
    gin_utils.run(main)
"""


def test_a_script_of_upstreams_shape_runs(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "work.gin").write_text("SIZE = 3\nwork.size = %SIZE\n")
    command = [sys.executable, "script.py", "--gin_file=work.gin"]

    def run(*flags):
        return subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True)

    done = run("--gin.SIZE=5", "--gin.work.name=/a/path")
    assert (done.returncode, done.stdout) == (0, "size 5 name /a/path locked True\n"), done.stderr
    failed = run("--gin.SIZ=5")
    assert failed.returncode != 0
    assert "--gin.SIZ: no gin file has this macro. Did you mean SIZE?" in failed.stderr


def test_parse_gin_flags_adds_to_the_configuration(tmp_path):
    def size_and_other(size, other=0):
        return size, other

    sized: Any = gin.external_configurable(size_and_other, "sized", "test_gin_utils")
    (tmp_path / "a.gin").write_text("sized.size = 3\nunknown.thing = 4\n")
    gin.clear_config()
    try:
        gin.bind_parameter("sized.other", 7)
        with pytest.raises(gin_utils.GinError, match="unknown"):
            gin_utils.parse_gin_flags([tmp_path], ["a.gin"], [])
        gin_utils.parse_gin_flags([tmp_path], ["a.gin"], [], skip_unknown=True)
        assert sized() == (3, 7)
        assert gin.config.config_is_locked()
        gin_utils.parse_gin_flags([], [], ["sized.size = 4"], finalize_config=False)
        assert sized() == (4, 7)
    finally:
        gin.clear_config()
        gin.config._LOCATION_PREFIXES[:] = [""]


def test_characters_that_are_no_text_are_told_with_the_file(parse, tmp_path):
    (tmp_path / "named.gin").write_text("\x80 = 1", encoding="utf-8")
    with pytest.raises(gin_utils.GinError, match=r"named.gin"):
        parse(BASE + "include 'named.gin'", SET)
