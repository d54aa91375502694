import json

from t5x.loggers import Console, MetricWriter, format_duration, read_metrics


def test_lines_beyond_the_restored_step_are_dropped(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (10, 20, 30):
        writer.write(step, {"loss": float(step)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # a kill in the middle of a line
    writer = MetricWriter(tmp_path, start_step=20)
    writer.write(25, {"loss": float("nan")})
    writer.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [10, 20, 25]
    assert lines[-1]["loss"] is None
    assert all(json.dumps(line) for line in lines)


def test_tensorboard_files_hold_the_scalars(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(3, {"loss": 1.5})
    writer.close()
    data = next(tmp_path.glob("events*")).read_bytes()
    assert b"loss" in data


def test_no_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = MetricWriter(None)
    writer.write(1, {"loss": 1.0})
    writer.write_text(1, "config", "x")
    writer.close()
    assert not list(tmp_path.iterdir())


def test_console_reports_loss_and_time_left(capsys):
    console = Console(0, 100)
    console.step(1)
    console.report(10, {"loss": 2.5, "learning_rate": 0.1})
    console.close()
    line = capsys.readouterr().out
    assert "step 10/100" in line
    assert "loss 2.5" in line
    assert "ETA 0:00:0" in line
    quiet = Console(0, 1, quiet=True)
    quiet.say("nothing")
    assert not capsys.readouterr().out


def test_durations():
    assert [format_duration(s) for s in (-1, 59.9, 3725)] == ["0:00:00", "0:00:59", "1:02:05"]
