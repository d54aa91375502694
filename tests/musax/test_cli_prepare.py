"""`musax prepare`; the datasets it writes are tested with their modules."""

import pytest

from musax import cli
from musax.midi import save_midi
from musax.notes import make_notes
from t5x.data.prepared import read_info
from t5x.data.records import read_array_record


@pytest.fixture
def pop909(tmp_path):
    """Two songs, one for training and one for validation."""
    for song in ("001", "801"):
        (tmp_path / "pop909" / song).mkdir(parents=True)
        notes = make_notes([i / 4 for i in range(20)], [i / 4 + 0.2 for i in range(20)], 60, 80)
        save_midi(tmp_path / "pop909" / song / f"{song}.mid", notes)
    return tmp_path / "pop909"


def test_pieces_are_played_on_the_bundled_soundfont_by_default(pop909, tmp_path, capsys):
    command = ["prepare", "rendered-midi", "--pop909", str(pop909), "--virtual", "0", "--no-vary"]
    command += ["--instruments", "1", "--takes", "2", "--seconds", "2", "--workers", "1"]
    assert cli.main([*command, "-o", str(tmp_path / "out")]) == 0
    assert "2 examples in 1 shards of train" in capsys.readouterr().out
    take = next(read_array_record(tmp_path / "out" / "train-00000-of-00001.array_record"))
    assert take["audio"].shape == (32000,)
    assert abs(take["audio"]).max() == round(0.9 * 32767)
    assert set(take["pitch"]) == {60}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rendered-midi"], "give at least one of --pop909, --jsb, --lakh64"),
        (["rendered-ensembles"], "give --lakh64"),
        (["rendered-midi", "--jsb", "nowhere"], "nowhere"),
        (["rendered-drums", "--groove", "nowhere"], "nowhere"),
        (["task", "nothing", "--shards", "1"], "nothing"),
        (["text"], "give --shakespeare, --python-docs or both"),
        (["text", "--shakespeare", "--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, message, tmp_path, capsys):
    assert cli.main(["prepare", *arguments, "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_task_is_preprocessed_once(tmp_path, capsys):
    command = ["prepare", "task", "shakespeare_punctuation", "--split", "validation"]
    command += ["--shards", "2", "--workers", "1", "--module", "t5x.examples.shakespeare.tasks"]
    assert cli.main([*command, "-o", str(tmp_path)]) == 0
    assert "3300 examples in 2 shards of validation" in capsys.readouterr().out
    info = read_info(tmp_path / "shakespeare_punctuation", "validation")
    assert info is not None
    assert info["preprocessors"] == ["with_sentinels"]
