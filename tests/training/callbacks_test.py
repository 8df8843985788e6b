import csv
import io
import json
import re
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from afd_tf import methods
from afd_tf.distillation.metrics import declare
from afd_tf.training.callbacks import metrics_file, progress, saving, tensorboard
from afd_tf.training.callbacks.metrics_file import MetricsFile
from afd_tf.training.callbacks.nonfinite import (
    NonFiniteLossError,
    SkipNonFinite,
    StopOnNonFinite,
)
from afd_tf.training.checkpoints import Position

NETWORKS = ["wrn16_2", "wrn16"]


SPECS = {spec.name: spec for spec in declare(NETWORKS, methods.get("afd"))}


def phase(role, rate):
    return SimpleNamespace(role=role, optimizer=SimpleNamespace(learning_rate=rate))


def model(**changes):
    return SimpleNamespace(
        network_names=NETWORKS,
        metric_specs=SPECS,
        phases=[phase("logit", 0.1), phase("feature", 2e-5)],
        steps_per_execution=1,
        **changes,
    )


def attach(callback, epochs=3, steps=10):
    callback.set_model(model())
    callback.set_params({"epochs": epochs, "steps": steps})
    callback.on_train_begin()
    return callback


LOGS = {
    "loss": 1.5,
    "wrn16_loss": 1.0,
    "wrn16_accuracy": 0.25,
    "wrn16_2_loss": 2.0,
    "wrn16_2_accuracy": 0.5,
    "ensemble_accuracy": 0.75,
    "mean_accuracy": 0.375,
    "wrn16_2_discriminator_real": 0.6,
    "wrn16_2_gradient_ratio": 0.01,
    "val_wrn16_2_accuracy": 0.4,
    "val_wrn16_accuracy": 0.3,
    "val_ensemble_accuracy": 0.45,
}


# Stop on NaN, or skip


def test_steps_done_before_do_not_end_a_row_of_skipped_ones():
    state = SimpleNamespace(read=dict, finite=lambda: True)
    workers = SimpleNamespace(total=lambda *numbers: list(numbers))
    record = {"skipped": 9, "skipped_in_a_row": 7}
    skip = attach(SkipNonFinite(state, workers, record))
    skip.on_epoch_begin(0)
    for batch, logs, in_a_row in ((0, {}, 7), (1, LOGS, 0)):
        skip.on_train_batch_begin(batch)
        skip.on_train_batch_end(batch, logs)
        assert skip.record() == {"skipped": 9, "skipped_in_a_row": in_a_row}


def watching(last=None):
    saver = SimpleNamespace(last=last, wait=lambda: None)
    return attach(StopOnNonFinite(saver))


def test_the_first_bad_step_is_reported_with_its_network():
    stop = watching(Position(4, 2))
    stop.on_epoch_begin(4)
    stop.on_train_batch_end(0, LOGS)
    stop.on_train_batch_end(1, LOGS)
    with pytest.raises(NonFiniteLossError) as caught:
        stop.on_train_batch_end(2, LOGS | {"wrn16_2_kl": float("inf")})
    assert str(caught.value).startswith(
        "Loss of wrn16_2 is inf (wrn16_2_kl) at epoch 5, step 3. The checkpoint of "
        "epoch 4 and 2 steps is kept."
    )


def test_a_bad_validation_stops_before_the_epoch_is_saved():
    for key in ("loss", "val_wrn16_loss"):
        stop = watching()
        stop.on_epoch_begin(0)
        stop.on_train_batch_end(9, LOGS)
        with pytest.raises(NonFiniteLossError, match="epoch 1, step 10"):
            stop.on_epoch_end(0, LOGS | {key: float("nan")})


def test_finite_losses_and_other_values_do_not_stop():
    stop = watching()
    stop.on_epoch_begin(0)
    stop.on_train_batch_end(0, LOGS | {"wrn16_gradient_ratio": float("inf")})
    stop.on_epoch_end(0, LOGS)


# metrics.csv


def write_epochs(path, epochs, record=()):
    callback = attach(MetricsFile(path, 10, dict(record)))
    for epoch in epochs:
        callback.on_epoch_end(epoch, LOGS | {"loss": epoch + 0.1})
    return json.loads(json.dumps(callback.record()))


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_per_epoch_holds_step_rates_and_metrics(tmp_path):
    write_epochs(tmp_path / "metrics.csv", [0, 1])
    rows = read(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["10", "20"]
    assert [float(row["loss"]) for row in rows] == [0.1, 1.1]
    assert rows[0]["logit_learning_rate"] == "0.1"
    assert rows[0]["feature_learning_rate"] == "2e-05"
    assert "discriminator_learning_rate" not in rows[0]


def test_rows_are_those_of_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    record = write_epochs(path, [0])
    write_epochs(path, [1, 2], record)
    before = path.read_text().splitlines()
    # Lost, or of an epoch that is trained again.
    for damage in (path.unlink, lambda: path.write_text("\n".join([*before, "9,9"]))):
        damage()
        write_epochs(path, [], record)
        assert path.read_text().splitlines() == before[:2]
    write_epochs(path, [1], record)
    rows = read(path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["seconds"]) >= float(rows[0]["seconds"])


def test_seconds_go_on_and_leave_out_the_time_between_processes(tmp_path, monkeypatch):
    clock = iter([100.0, 107.0, 109.0])
    monkeypatch.setattr(metrics_file.time, "monotonic", lambda: next(clock))
    path = tmp_path / "metrics.csv"
    record = write_epochs(path, [0], {"seconds": 50.0})
    assert float(read(path)[0]["seconds"]) == 57.0
    assert record["seconds"] == 59.0


# TensorBoard


def write_summaries(folder, epochs, step=0):
    callback = tensorboard.TensorBoard(folder, 10, 64, "train.epochs = 3\n", step)
    attach(callback)
    for epoch in epochs:
        callback.on_epoch_begin(epoch)
        callback.on_train_batch_end(9, LOGS)
        callback.on_test_begin()
        callback.on_epoch_end(epoch, LOGS)
    callback.on_train_end()


def read_events(folder):
    return EventAccumulator(str(folder), {"tensors": 0}).Reload()


def test_tensorboard_groups_by_what_is_measured_against_the_global_step(tmp_path):
    write_summaries(tmp_path, [0, 1])
    write_summaries(tmp_path, [2], step=20)
    events = read_events(tmp_path)
    assert set(events.Tags()["tensors"]) == {
        "configuration",
        "loss/all",
        "loss/wrn16",
        "loss/wrn16_2",
        "accuracy/wrn16",
        "accuracy/wrn16_2",
        "accuracy/wrn16_validation",
        "accuracy/wrn16_2_validation",
        "accuracy/ensemble",
        "accuracy/ensemble_validation",
        "accuracy/mean",
        "discriminator_real/wrn16_2",
        "gradient_ratio/wrn16_2",
        "learning_rate/logit",
        "learning_rate/feature",
        "speed/images_per_second",
    }
    assert [event.step for event in events.Tensors("loss/all")] == [10, 20, 30]
    [text] = events.Tensors("configuration")
    assert b"train.epochs = 3" in text.tensor_proto.string_val[0]


def test_what_was_written_beyond_the_restored_step_is_removed(tmp_path):
    write_summaries(tmp_path, [0, 1])
    # The process was killed in the middle of a record, and the clock set back since.
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    file.rename(tmp_path / "events.out.tfevents.9999999999.later.v2")
    write_summaries(tmp_path, [1, 2], step=13)
    for _ in range(2):  # gathered twice
        assert [e.step for e in read_events(tmp_path).Tensors("loss/all")] == [
            10,
            20,
            30,
        ]
        write_summaries(tmp_path, [], step=30)


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(stream, epochs=3, first=0):
    callback = attach(progress.Progress(stream), epochs=epochs)
    for epoch in range(first, epochs):
        callback.on_epoch_begin(epoch)
        for batch in range(10):
            callback._drawn -= 1.0
            callback.on_train_batch_end(batch, LOGS)
        callback.on_epoch_end(epoch, LOGS)
    return stream.getvalue()


def test_a_log_file_gets_one_line_per_epoch_with_every_network():
    first, *lines = show(io.StringIO()).splitlines()
    assert re.fullmatch(r"First step after \d+s of compiling\.", first)
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        assert line.startswith(f"epoch {number}/3  loss 1.500  accuracy")
        # Of the validation, not of training.
        assert "wrn16_2 40.0%  wrn16 30.0%  ensemble 45.0%" in line
    assert re.search(r"\d+s left$", lines[0])
    assert re.search(r"\d+s in all$", lines[-1])


def test_a_terminal_gets_a_bar_that_is_drawn_over():
    text = show(Terminal(), epochs=1)
    assert text.count("\n") == 2
    bars = re.findall(r"\r\S+ 1/1  \[(=*) *\]", text)
    assert [len(bar) for bar in bars] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


def test_a_log_file_gets_a_sign_of_life_every_minute():
    stream = io.StringIO()
    callback = attach(progress.Progress(stream))
    callback.on_epoch_begin(0)
    for batch in range(3):
        callback.on_train_batch_end(batch, LOGS)
    assert len(stream.getvalue().splitlines()) == 1
    callback._drawn -= 60.0
    callback.on_train_batch_end(3, LOGS)
    callback.on_train_batch_end(4, LOGS)
    _, line = stream.getvalue().splitlines()
    assert line.startswith("epoch 1/3  [========            ]")


def test_time_left_counts_from_the_first_step_of_this_process(monkeypatch):
    # Begin; end of the first step, which took 50 s to compile; end of the epoch.
    clock = iter([0.0, 50.0, 68.0, 68.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    callback = attach(progress.Progress(stream), epochs=10)
    callback.on_epoch_begin(5)
    callback.on_train_batch_end(0, LOGS)
    callback.on_epoch_end(5, LOGS)
    # Nine steps in 18 seconds, four epochs of ten steps to go.
    assert stream.getvalue().endswith("1m 20s left\n")


def test_steps_done_before_an_interruption_do_not_count_for_the_time_left(monkeypatch):
    clock = iter([0.0, 40.0, 60.0, 60.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    callback = attach(progress.Progress(stream), epochs=2)
    callback.on_epoch_begin(0)
    for batch in range(5):
        callback.on_train_batch_end(batch, {})
    callback.on_train_batch_end(5, LOGS)
    # An epoch of which only the evaluation was left would have nothing to count from.
    callback.on_epoch_end(0, LOGS)
    assert stream.getvalue().endswith("50s left\n")


# Records


def test_callbacks_keep_their_records_together_unless_a_key_is_another_s():
    def keeping(**record):
        return SimpleNamespace(record=lambda: record)

    nothing = SimpleNamespace()
    joined = saving.joined_records([keeping(rows=[1]), nothing, keeping(skipped=2)])
    assert joined == {"rows": [1], "skipped": 2}
    for key in ("rows", "stopped"):
        with pytest.raises(ValueError, match=rf"record\(\) has \['{key}'\]"):
            saving.joined_records([keeping(rows=[1]), keeping(**{key: 0})])
