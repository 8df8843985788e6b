"""What goes wrong around a run: other processes, data, memory, clocks."""

import csv
import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import small_runs
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from afd_tf import OnlineDistiller, data
from afd_tf.devices.failures import OutOfMemoryError
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training.callbacks import nonfinite
from afd_tf.training.checkpoints import Checkpoints, Position

# Two processes

HOLD = """
import sys, time
import afd_launcher  # so that TensorFlow is not loaded
from afd_tf.runs.run_directory import RunDirectory
with RunDirectory(sys.argv[1]).started("train.epochs = 2"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_process(tmp_path):
    root = str(Path(data.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_a_killed_one_does_not_block(
    tmp_path, other_process
):
    run = RunDirectory(tmp_path / "run")
    config = "train.epochs = 2"
    with pytest.raises(
        ValueError, match=f"process {other_process.pid} on .* trains in"
    ):
        run.check(config)
    with pytest.raises(ValueError, match="no other process"), run.started(config):
        pytest.fail("two processes train in one directory")
    assert run.config.exists()
    other_process.kill()
    other_process.wait()
    assert run.lock.exists()
    run.check(config)
    with run.started(config):
        pass


# NaN


def load_with_bad_batches(*steps):
    """Load digits of which the images of these batches of a pass are NaN."""

    def load(*args, **kwargs):
        train, test, info = data.load(*args, **kwargs)

        def spoil(step, batch):
            bad = tf.reduce_any(tf.equal(step, tf.constant(steps, tf.int64)))
            return tf.where(bad, float("nan"), batch[0]), batch[1]

        spoilt = train.enumerate().map(spoil)
        return spoilt.apply(tf.data.experimental.assert_cardinality(5)), test, info

    return load


def load_without(step):
    """Load digits without a batch of every pass."""

    def load(*args, **kwargs):
        train, test, info = data.load(*args, **kwargs)
        kept = train.enumerate().filter(lambda i, _: i != step).map(lambda _, b: b)
        kept = kept.apply(tf.data.experimental.assert_cardinality(4))
        return kept, test, dataclasses.replace(info, steps_per_epoch=4)

    return load


def constant_rates(model, **kwargs):
    keywords = {"optimizer": keras.optimizers.SGD(0.05, momentum=0.9)}
    OnlineDistiller.compile(model, **keywords, **kwargs)


@pytest.fixture
def determinism():
    yield
    tf_config.disable_op_determinism()


@pytest.mark.usefixtures("determinism")
def test_a_skipped_step_is_as_if_its_batch_had_not_been(tmp_path):
    same = {"compile": constant_rates, "epochs": 1, "deterministic": True}
    with pytest.warns(
        UserWarning, match="Skipped epoch 1, step 3: it made .*1 skipped"
    ):
        small_runs.train(
            tmp_path / "skipped",
            load_data=load_with_bad_batches(2),
            non_finite="skip",
            **same,
        )
    small_runs.train(tmp_path / "without", load_data=load_without(2), **same)
    values, expected = (
        small_runs.checkpoint_values(tmp_path / n) for n in ("skipped", "without")
    )
    assert values.keys() == expected.keys()
    for key, value in expected.items():
        if not key.endswith("total_steps"):
            np.testing.assert_array_equal(values[key], value, err_msg=key)
    [row] = small_runs.rows(tmp_path / "skipped")
    assert row["skipped_steps"] == "1"


def test_steps_skipped_one_after_the_other_stop_the_run(tmp_path):
    load = load_with_bad_batches(0, 1, 2, 3, 4)
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(nonfinite.NonFiniteLossError, match="10 steps in a row"),
    ):
        small_runs.train(tmp_path / "run", epochs=3, load_data=load, non_finite="skip")


def test_a_state_with_nan_is_never_saved(tmp_path):
    def poison(model):
        variable = model.networks[0].variables[0]
        variable.assign(variable * float("nan"))

    poisons = small_runs.AfterStep(0, 3, poison)
    with (
        pytest.warns(UserWarning, match=r"'network/small/.*' holds NaN"),
        pytest.raises(
            nonfinite.NonFiniteLossError, match="of epoch 0 and 2 steps is k"
        ),
    ):
        small_runs.train(tmp_path / "run", checkpoint_steps=1, callbacks=[poisons])
    assert Checkpoints(tmp_path / "run" / "checkpoints").positions()[-1] == (
        Position(0, 2)
    )


# Memory and clocks


def load_more_than_there_is(*args, **kwargs):
    train, test, info = data.load(*args, **kwargs)

    def add_much(images, labels):
        much = tf.fill(tf.repeat(tf.size(labels) * 128, 3), 1.0)
        return images + tf.reduce_max(much), labels

    return train.map(add_much), test, info


@pytest.mark.slow  # TensorFlow waits for memory before it gives up
def test_lack_of_memory_says_what_to_lower(tmp_path):
    with pytest.raises(OutOfMemoryError) as caught:
        small_runs.train(tmp_path / "run", load_data=load_more_than_there_is)
    message = str(caught.value)
    assert message.startswith("Out of memory for a tensor of shape")
    assert "Lower `train.batch_size`" in message
    assert "\n" not in message


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 4e9))
    small_runs.train(tmp_path / "run", checkpoint_steps=2, tensorboard=True)
    assert Checkpoints(tmp_path / "run" / "checkpoints").positions()[-1] == Position(2)
    with open(tmp_path / "run" / "metrics.csv", encoding="utf-8", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert 0 < seconds[0] < seconds[1] < 10**5
