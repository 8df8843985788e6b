"""Runs that are stopped anywhere end as if they had not been."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import small_runs
import stopped_run
from tensorflow.python.framework import config as tf_config

from afd_tf import OnlineDistiller, data, training
from afd_tf.text import counted
from afd_tf.training.callbacks.saving import Saver
from afd_tf.training.checkpoints import Checkpoints, Position
from afd_tf.training.interruption import Interrupted

ROOT = Path(training.__file__).parents[2]


@pytest.fixture(autouse=True)
def determinism():
    yield
    tf_config.disable_op_determinism()


@pytest.fixture(autouse=True)
def interruptible():
    """Listen to SIGINT, which a process started in the background may ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def assert_same_runs(first, second):
    small_runs.assert_same_values(
        small_runs.checkpoint_values(first), small_runs.checkpoint_values(second)
    )
    assert small_runs.rows(first) == small_runs.rows(second)
    for name in ("networks", "mean", "ensemble", "epoch", "step"):
        assert results(first)[name] == results(second)[name]
    positions = [
        Checkpoints(run / "checkpoints").positions() for run in (first, second)
    ]
    assert positions[0][-1] == positions[1][-1]


def results(run):
    return json.loads((run / "results.json").read_text())


def compile_with_more(model, **kwargs):
    """Compile with what has a state of its own: metrics, moments, averages, seeds."""
    OnlineDistiller.compile(
        model,
        optimizer=keras.optimizers.Adam(0.01),
        logit_schedule="cosine",
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        gradient_ratio_every=3,
        **kwargs,
    )


SETTINGS = {
    "method": "afd",
    "epochs": 3,
    "deterministic": True,
    "seed": 3,
    "tensorboard": True,
    "compile": compile_with_more,
}


def stop(number, epoch, step):
    """Return a callback that lets a signal come after a step."""
    return small_runs.AfterStep(epoch, step, lambda _: signal.raise_signal(number))


QUICK = {"method": "vanilla", "epochs": 2, "evaluate_every": 2}
FEW = [
    (signal.SIGTERM, 0, 3, "epoch 0 and 3 steps"),
    (signal.SIGINT, 1, 5, "epoch 1 and 5 steps"),
]
MANY = [
    (signal.SIGINT, 0, 3, "epoch 0 and 3 steps"),
    (signal.SIGTERM, 0, 5, "epoch 0 and 5 steps"),
    (signal.SIGTERM, 1, 1, "epoch 1 and 1 step"),
    (signal.SIGTERM, 2, 5, "epoch 2 and 5 steps"),
]


@pytest.mark.parametrize(
    ("stops", "changes"),
    [
        pytest.param(FEW, QUICK, id="few stops"),
        pytest.param(MANY, {}, id="many stops", marks=pytest.mark.slow),
        pytest.param(
            MANY[:2],
            {"strategy": "mirrored", "epochs": 1},
            id="two replicas",
            marks=[pytest.mark.slow, pytest.mark.multi_device],
        ),
    ],
)
def test_a_run_stopped_by_signals_ends_as_the_uninterrupted_one(
    tmp_path, capfd, stops, changes
):
    same = {**SETTINGS, **changes}
    small_runs.train(tmp_path / "straight", **same)
    for number, epoch, step, position in stops:
        callbacks = [stop(number, epoch, step)]
        with pytest.raises(Interrupted) as caught:
            small_runs.train(tmp_path / "stopped", **same, callbacks=callbacks)
        assert caught.value.signal == number
        assert str(caught.value.position) == position
        shown = capfd.readouterr()
        assert f"{number.name}: finishing the step, then saving." in shown.err
    small_runs.train(tmp_path / "stopped", **same)
    shown = capfd.readouterr()
    in_all = counted(same["epochs"], "epoch")
    assert f"after {position}; {in_all} in all" in shown.out
    assert_same_runs(tmp_path / "straight", tmp_path / "stopped")
    first, second = (small_runs.events(tmp_path / n) for n in ("straight", "stopped"))
    assert first == second
    assert {step for _, step, _ in first} == {5 * e for e in range(same["epochs"] + 1)}


@pytest.mark.slow
def test_several_steps_per_execution_are_stopped_between_executions(tmp_path):
    same = {**SETTINGS, "steps_per_execution": 2, "epochs": 2}
    small_runs.train(tmp_path / "straight", **same)
    for epoch, step, done in (
        (0, 2, "epoch 0 and 2 steps"),
        (1, 4, "epoch 1 and 4 st"),
    ):
        callbacks = [stop(signal.SIGTERM, epoch, step)]
        with pytest.raises(Interrupted) as caught:
            small_runs.train(tmp_path / "stopped", **same, callbacks=callbacks)
        assert str(caught.value.position).startswith(done)
    small_runs.train(tmp_path / "stopped", **same)
    assert_same_runs(tmp_path / "straight", tmp_path / "stopped")


def test_data_that_cannot_begin_within_an_epoch_is_saved_after_whole_ones(tmp_path):
    def load(*args, **kwargs):
        train, test, info = data.load(*args, **kwargs)
        return train.map(lambda *batch: batch), test, info

    settings = {"load_data": load, "checkpoint_steps": 1}
    callbacks = [stop(signal.SIGTERM, 1, 3)]
    with pytest.raises(Interrupted) as caught:
        small_runs.train(tmp_path / "run", **settings, callbacks=callbacks)
    assert caught.value.position == Position(1)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints.positions() == [Position(1)]


def test_events_between_which_and_their_checkpoint_a_kill_comes_are_there_once(
    tmp_path, monkeypatch
):
    def kill_before(saver, position, *args):
        if position == Position(1):
            raise KeyboardInterrupt
        save(saver, position, *args)

    same = {"checkpoint_steps": 5, "tensorboard": True}
    save = Saver.save
    monkeypatch.setattr(Saver, "save", kill_before)
    with pytest.raises(KeyboardInterrupt):
        small_runs.train(tmp_path, **same)
    monkeypatch.undo()
    positions = Checkpoints(tmp_path / "checkpoints").positions()
    assert positions == [Position(0, 5)]
    small_runs.train(tmp_path, **same)
    shown = [(tag, step) for tag, step, _ in small_runs.events(tmp_path)]
    assert len(shown) == len(set(shown))
    assert {step for _, step in shown} == {0, 5, 10}


@pytest.mark.slow
def test_random_kills_from_start_to_export_change_nothing():
    tool = [sys.executable, ROOT / "tools" / "kill_runs.py", "--kills=8", "--runs=2"]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def start(workdir, when=None, number=signal.SIGKILL, delay=0.0):
    """Run `stopped_run` in a process; return its exit status."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    arguments = json.dumps([str(workdir), when, number, delay])
    return subprocess.run(
        [sys.executable, stopped_run.__file__, arguments],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
    ).returncode


@pytest.mark.slow
def test_a_run_killed_three_times_ends_as_the_uninterrupted_one(tmp_path):
    assert start(tmp_path / "straight") == 0
    choose = random.Random(0)
    # Of twenty steps; within the next two steps, while things are being written.
    for step in sorted(choose.sample(range(1, 20), 3)):
        delay = 0.02 * choose.random()
        assert start(tmp_path / "killed", step, delay=delay) == -signal.SIGKILL
    assert start(tmp_path / "killed") == 0
    assert_same_runs(tmp_path / "straight", tmp_path / "killed")
    first, second = (small_runs.events(tmp_path / n) for n in ("straight", "killed"))
    assert first == second
