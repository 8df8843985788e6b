import json
import os
import re

import numpy as np
import pytest
import small_runs
import tensorflow as tf
import tiny

from afd_tf.devices.workers import Workers
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training.callbacks.saving import Saver
from afd_tf.training.checkpoints import Checkpoints, Position
from afd_tf.training.restoring import load_network
from afd_tf.training.state import State, compact, not_finite

ALONE = Workers(tf.distribute.get_strategy())


def trained(channels=(4, 6), steps=1, **compiled):
    """Return a distiller whose every variable differs from a new one's."""
    networks = [
        tiny.network(
            c, name=f"n{c}", normalization=True, kernel_initializer="he_normal"
        )
        for c in channels
    ]
    model = tiny.distiller(networks, "afd", compiled=compiled)
    if steps:
        images, labels = tiny.batch()
        model.fit(images, labels, batch_size=4, epochs=steps, verbose=0, shuffle=False)
    return model


def values(model):
    return compact(State(model).read())


FIRST = Position(1)


def save(directory, model, position=FIRST, keep=3, record=()):
    saver = Saver(Checkpoints(directory, keep), State(model), ALONE)
    saver.save(position, dict(record))
    saver.close()
    return saver


def restore(directory, model):
    saver = Saver(Checkpoints(directory), State(model), ALONE)
    found = saver.restore()
    saver.close()
    return found


def names(directory):
    return sorted(path.name for path in directory.glob("epoch-*"))


# What is in a checkpoint


def test_everything_that_a_step_changes_is_restored(tmp_path):
    model = trained(steps=2)
    model.feature_optimizer.learning_rate.assign(0.0125)
    save(tmp_path, model, Position(2, 3), record={"rows": [{"loss": 0.1}]})
    again = trained(steps=0)
    found = restore(tmp_path, again)
    assert found.position == Position(2, 3)
    assert found.record == {"rows": [{"loss": 0.1}]}
    small_runs.assert_same_values(values(model), values(again))
    assert int(again.optimizer.iterations) == 4
    assert float(again.feature_optimizer.learning_rate) == pytest.approx(0.0125)
    assert again.get_metrics_result() == model.get_metrics_result()


def test_every_variable_of_the_model_is_in_it():
    model = trained(optimizer="adam")
    optimizers = [model.optimizer, model.feature_optimizer]
    optimizers.append(model.discriminator_optimizer)
    variables = [*model.variables, *model.metrics_variables]
    variables += [v for optimizer in optimizers for v in optimizer.variables]
    different = {id(v) for v in variables}
    # One entry more: the number of replicas.
    assert len(State(model).read()) == len(different) + 1
    for variable in variables:
        before = values(model)
        variable.assign(np.array(variable) + 1)
        after = values(model)
        changed = [k for k in after if not np.array_equal(before[k], after[k])]
        assert len(changed) == 1, variable.path


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    model = trained(steps=1)
    before = values(model)
    assert restore(tmp_path, model) is None
    small_runs.assert_same_values(before, values(model))


def test_what_is_saved_is_the_state_of_its_moment(tmp_path):
    model = trained(run_eagerly=False)
    state = State(model)
    expected, taken = values(model), state.read()
    images, labels = tiny.batch()
    model.fit(images, labels, batch_size=4, epochs=2, verbose=0, shuffle=False)
    small_runs.assert_same_values(expected, compact(taken))
    assert not np.array_equal(
        expected["network/n4/0/conv/kernel"], values(model)["network/n4/0/conv/kernel"]
    )


def test_the_state_of_random_layers_is_part_of_a_checkpoint(tmp_path):
    def model():
        networks = [
            small_runs.large(10, (16, 16, 1), name=name, dropout=0.5) for name in "ab"
        ]
        return tiny.distiller(networks, "vanilla")

    first, second = model(), model()
    images = tf.ones((8, 16, 16, 1))
    first.networks[0](images, training=True)
    save(tmp_path, first)
    restore(tmp_path, second)
    np.testing.assert_array_equal(
        first.networks[0](images, training=True),
        second.networks[0](images, training=True),
    )


def test_nan_in_the_state_is_found_but_not_in_metrics():
    good = {"a": np.ones(2), "n": np.int64(3), "metrics/x": np.array(np.nan)}
    assert not_finite(good) is None
    assert not_finite({**good, "b": np.array([1, np.inf], "float32")}) == "b"
    half = tf.constant([1, float("nan")], tf.bfloat16).numpy()
    assert not_finite({**good, "b": half}) == "b"


# Replicas


def replicas():
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices)


@pytest.mark.multi_device
def test_each_replica_gets_its_own_values_back(tmp_path):
    def mirrored():
        with replicas().scope():
            return trained(steps=0, run_eagerly=False)

    model = mirrored()
    mean = model.networks[0].get_layer("bn").moving_mean.value
    total = model.metrics_variables[0].value
    for variable in (mean, total):
        for index, copy in enumerate(variable.values):
            copy.assign(tf.fill(copy.shape, index + 1.0))
    save(tmp_path, model)
    again = mirrored()
    restore(tmp_path, again)
    small_runs.assert_same_values(values(model), values(again))
    mean = again.networks[0].get_layer("bn").moving_mean.value
    assert [float(copy[0]) for copy in mean.values] == [1.0, 2.0]
    # On one device there are the first replica's statistics, and all that was counted.
    alone = trained(steps=0)
    restore(tmp_path, alone)
    assert float(alone.networks[0].get_layer("bn").moving_mean[0]) == 1.0
    assert float(alone.metrics_variables[0][0]) == 3.0


# What does not fit


@pytest.mark.parametrize(
    ("other", "message"),
    [
        pytest.param(lambda: trained((4, 8)), "n6/", id="other channels"),
        pytest.param(lambda: trained((4, 6, 6)), "is not in it", id="one network more"),
        pytest.param(
            lambda: trained((4, 4)), "n4_2.* is not in it", id="no transfer layers"
        ),
        pytest.param(
            lambda: trained(optimizer="adam", logit_weight_decay=0.0),
            "optimizer/.* is not in it",
            id="other optimizer",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_an_error_and_sets_nothing(
    tmp_path, other, message
):
    save(tmp_path, trained())
    model = other()
    before = values(model)
    with pytest.raises(ValueError, match=f"cannot be loaded.*{message}"):
        restore(tmp_path, model)
    small_runs.assert_same_values(before, values(model))


def test_another_shape_is_an_error_and_sets_nothing(tmp_path):
    wide = tiny.network(6, name="n4", normalization=True)
    save(tmp_path, tiny.distiller([wide, tiny.network(6, name="n6")], "vanilla"))
    narrow = tiny.network(4, name="n4", normalization=True)
    model = tiny.distiller([narrow, tiny.network(6, name="n6")], "vanilla")
    before = values(model)
    with pytest.raises(ValueError, match=re.escape("shape (3, 3, 2, 6) of float32")):
        restore(tmp_path, model)
    small_runs.assert_same_values(before, values(model))


# Which are there


def test_positions_are_ordered_by_step_whatever_the_clock_said(tmp_path):
    model = trained()
    saved = [Position(0, 7), Position(1), Position(1, 9), Position(1, 10), Position(2)]
    for age, position in enumerate(saved):
        save(tmp_path, model, position, keep=9)
        path = Checkpoints(tmp_path).path(position)
        for file in (*path.iterdir(), path):
            os.utime(file, (10**9 - age, 10**9 - age))
    assert Checkpoints(tmp_path).positions() == saved
    assert restore(tmp_path, model).position == Position(2)


def test_the_last_k_are_kept_and_none_of_a_future_that_did_not_happen(tmp_path):
    model = trained()
    for position in (Position(1), Position(2), Position(2, 4), Position(3)):
        save(tmp_path, model, position, keep=2)
    assert names(tmp_path) == ["epoch-0002-step-000004", "epoch-0003-step-000000"]
    save(tmp_path, model, Position(2, 5), keep=2)
    assert names(tmp_path) == ["epoch-0002-step-000004", "epoch-0002-step-000005"]


def test_a_run_that_moved_is_restored(tmp_path):
    save_in = tmp_path / "a"
    save_in.mkdir()
    save(save_in, trained())
    save_in.rename(tmp_path / "b")
    assert restore(tmp_path / "b", trained()).position == Position(1)


def test_other_files_are_no_checkpoints(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({}))
    (tmp_path / "epoch-1-step-0").mkdir()
    save(tmp_path, trained(), keep=1)
    assert Checkpoints(tmp_path).positions() == [Position(1)]
    assert (tmp_path / "epoch-1-step-0").exists()


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (Position(2), "epoch 2"),
        (Position(0, 1), "epoch 0 and 1 step"),
        (Position(2, 17), "epoch 2 and 17 steps"),
    ],
)
def test_positions_are_for_people(position, text):
    assert str(position) == text


# One network


def run_of(tmp_path, model):
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    save(run.checkpoints, model, Position(1, 2))
    return run


def test_one_network_is_restored_alone(tmp_path):
    model = trained()
    alone = tiny.network(6, name="x", normalization=True)
    assert load_network(run_of(tmp_path, model), "n6", alone) == Position(1, 2)
    for a, b in zip(model.networks[1].variables, alone.variables):
        np.testing.assert_array_equal(a, b)


def test_a_network_that_is_not_in_the_checkpoint_is_an_error(tmp_path):
    run = run_of(tmp_path, trained())
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_network(run, "n7", tiny.network(6, normalization=True))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_network(run, "n6", tiny.network(5, normalization=True))
    with pytest.raises(ValueError, match="at least one checkpoint"):
        load_network(RunDirectory(tmp_path / "none"), "n6", tiny.network(6))
