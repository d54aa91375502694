import json

import pytest
from tensorboardX.proto import event_pb2

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


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer = MetricWriter(tmp_path)
    message = rf"No space left on device: '{tmp_path}/metrics\.jsonl'"
    with pytest.raises(OSError, match=message):
        writer.write(3, {"loss": 1.5})
    with pytest.raises(OSError, match=message):
        writer.close()
    writer.close()


def test_events_after_a_resumed_step_are_forgotten(tmp_path):
    for start in (0, 20):
        writer = MetricWriter(tmp_path, start)
        writer.write_text(start, "config", "a = 1")
        writer.close()
    first, second = sorted(tmp_path.glob("events*"))
    events = [[], []]
    for file, found in zip((first, second), events):
        data = file.read_bytes()
        while data:  # length, CRC of it, event, CRC of it
            size = int.from_bytes(data[:8], "little")
            found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    assert [event.file_version for event in events[0]] == ["brain.Event:2", ""]
    restart = events[1][1]
    assert restart.step == 21
    assert restart.session_log.status == event_pb2.SessionLog.START
    assert b"a = 1" in events[1][2].SerializeToString()


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
