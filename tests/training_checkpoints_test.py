import numpy as np
import pytest
import small_runs
import tensorflow as tf
import tiny

from afd_tf.training.checkpoints import Checkpoints, restore_network


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


def state(model):
    optimizers = (
        model.optimizer,
        model.feature_optimizer,
        model.discriminator_optimizer,
    )
    variables = [*model.variables, *(v for o in optimizers for v in o.variables)]
    metrics = {id(v) for v in model.metrics_variables}
    return [np.array(v) for v in variables if id(v) not in metrics]


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_everything_that_a_step_changes_is_restored(tmp_path):
    model = trained(steps=2)
    model.feature_optimizer.learning_rate.assign(0.0125)
    Checkpoints(tmp_path, model).save(2)
    again = trained(steps=0)
    assert Checkpoints(tmp_path, again).restore() == 2
    assert_equal(state(model), state(again))
    assert int(again.optimizer.iterations) == 4
    assert float(again.feature_optimizer.learning_rate) == pytest.approx(0.0125)


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    model = trained(steps=1)
    before = state(model)
    assert Checkpoints(tmp_path, model).restore() == 0
    assert_equal(before, state(model))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: trained((4, 8)), id="other channels"),
        pytest.param(lambda: trained((4, 6, 6)), id="one network more"),
        pytest.param(lambda: trained((4, 4)), id="no transfer layers"),
        pytest.param(
            lambda: trained(logit_optimizer="adam", logit_weight_decay=0.0),
            id="other optimizer",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_an_error(tmp_path, other):
    Checkpoints(tmp_path, trained()).save(1)
    model = other()
    with pytest.raises(ValueError, match="cannot be loaded"):
        Checkpoints(tmp_path, model).restore()


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    Checkpoints(tmp_path, trained()).save(1)
    data = next(tmp_path.glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be loaded"):
        Checkpoints(tmp_path, trained()).restore()


def test_the_last_k_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, trained(), keep=2)
    for epoch in (1, 2, 3):
        checkpoints.save(epoch)
    assert {path.stem for path in tmp_path.glob("*.index")} == {"epoch-2", "epoch-3"}


def test_a_run_that_moved_is_restored(tmp_path):
    Checkpoints(tmp_path / "a", trained()).save(1)
    (tmp_path / "a").rename(tmp_path / "b")
    assert Checkpoints(tmp_path / "b", trained()).restore() == 1


def test_one_network_is_restored_alone(tmp_path):
    model = trained()
    Checkpoints(tmp_path, model).save(1)
    alone = tiny.network(6, name="x", normalization=True)
    assert restore_network(tmp_path, "n6", alone) == 1
    assert_equal(tiny.values(model.networks[1].variables), tiny.values(alone.variables))


def test_a_network_that_is_not_in_the_checkpoint_is_an_error(tmp_path):
    Checkpoints(tmp_path, trained()).save(1)
    with pytest.raises(ValueError, match="cannot be loaded"):
        restore_network(tmp_path, "n7", tiny.network(6, normalization=True))
    with pytest.raises(ValueError, match="cannot be loaded"):
        restore_network(tmp_path, "n6", tiny.network(5, normalization=True))
    with pytest.raises(ValueError, match="no checkpoint"):
        restore_network(tmp_path / "none", "n6", tiny.network(6))


def test_the_state_of_random_layers_is_part_of_a_checkpoint(tmp_path):
    def model():
        networks = [
            small_runs.large(10, (16, 16, 1), name=name, dropout=0.5) for name in "ab"
        ]
        return tiny.distiller(networks, "vanilla")

    first, second = model(), model()
    images = tf.ones((8, 16, 16, 1))
    first.networks[0](images, training=True)
    Checkpoints(tmp_path, first).save(1)
    Checkpoints(tmp_path, second).restore()
    np.testing.assert_array_equal(
        first.networks[0](images, training=True),
        second.networks[0](images, training=True),
    )
