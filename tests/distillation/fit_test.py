"""Keras' `fit` around the step: ways to run it, callbacks, labels, devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import OnlineDistiller, methods


def snapshot(model):
    optimizers = [v for o in tiny.optimizers(model) for v in o.variables]
    return tiny.values([*model.variables, *optimizers])


def test_evaluate_and_predict_change_nothing_and_leave_training_on():
    networks = [tiny.network(normalization=True) for _ in range(2)]
    model = tiny.distiller(networks)
    model.train_on_batch(*tiny.batch())
    before = snapshot(model)
    model.evaluate(tiny.dataset(20), verbose=0)
    model.predict(tiny.dataset(20), verbose=0)
    for b, a in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(a, b)

    means = []

    class Mean(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            means.append(np.array(networks[0].get_layer("bn").moving_mean))

    model.fit(
        tiny.dataset(20),
        validation_data=tiny.dataset(20),
        epochs=2,
        verbose=0,
        callbacks=[Mean()],
    )
    assert not np.allclose(means[0], means[1], atol=1e-6)


def test_every_way_to_run_the_step_gives_the_same_weights():
    results = []
    for compiled in (
        {},
        {"run_eagerly": True},
        {"jit_compile": True},
        {"steps_per_execution": 2},
    ):
        keras.utils.set_random_seed(1)
        model = tiny.named(**compiled)
        model.fit(tiny.dataset(16), epochs=2, shuffle=False, verbose=0)
        results.append(snapshot(model))
    for expected, *others in zip(*results, strict=True):
        for actual in others:
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_same_seed_same_run_and_peers_of_one_architecture_differ():
    runs = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        model = tiny.named()
        start = [np.array(n.get_layer("conv").kernel) for n in model.networks]
        assert not np.allclose(*start)
        model.fit(tiny.dataset(16), epochs=1, verbose=0)
        runs.append(snapshot(model))
    for first, second in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(first, second)
    assert any(not np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_class_weight_and_one_hot_labels_and_label_smoothing():
    images, labels = tiny.batch()
    one_hot = tf.one_hot(labels, 3)

    def kernel(y, fit=None, **compiled):
        keras.utils.set_random_seed(1)
        model = tiny.named(run_eagerly=True, **compiled)
        model.fit(images, y, batch_size=8, verbose=0, shuffle=False, **(fit or {}))
        return np.array(model.networks[0].get_layer("conv").kernel)

    plain = kernel(labels)
    np.testing.assert_allclose(kernel(one_hot), plain, atol=1e-6)
    np.testing.assert_allclose(kernel(labels[:, None]), plain, atol=1e-6)
    weighted = kernel(labels, {"class_weight": {0: 1.0, 1: 5.0, 2: 0.0}})
    weights = np.array([1.0, 5.0, 0.0], "float32")[labels]
    np.testing.assert_allclose(
        kernel(labels, {"sample_weight": weights}), weighted, atol=1e-6
    )
    assert not np.allclose(weighted, plain, atol=1e-4)
    smooth = kernel(labels, label_smoothing=0.2)
    own = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    np.testing.assert_allclose(kernel(one_hot, loss=own), smooth, atol=1e-6)
    named_loss = kernel(labels, loss="sparse_categorical_crossentropy")
    np.testing.assert_allclose(named_loss, plain, atol=1e-6)


def test_arguments_by_place_and_a_part_of_the_arrays_for_validation():
    images, labels = tiny.batch(16)
    history = tiny.distiller().fit(images, labels, 4, 2, 0, None, 0.25)
    assert len(history.history["val_loss"]) == 2


def test_arrays_are_shuffled_as_asked():
    images, labels = tiny.batch(16)
    kernels = []
    for shuffle in (False, True, "batch"):
        keras.utils.set_random_seed(1)
        model = tiny.distiller(method="vanilla")
        model.fit(images, labels, batch_size=4, shuffle=shuffle, verbose=0)
        kernels.append(np.array(model.networks[0].get_layer("conv").kernel))
    in_order, shuffled, by_batch = kernels
    assert not np.array_equal(in_order, shuffled)
    assert not np.array_equal(shuffled, by_batch)


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_metrics_with_a_number_for_each_class(steps_per_execution):
    images, labels = tiny.batch(16)
    one_hot = keras.ops.one_hot(labels, 3)
    model = tiny.named(
        metrics=[keras.metrics.F1Score()], steps_per_execution=steps_per_execution
    )
    history = model.fit(
        images, one_hot, batch_size=8, verbose=0, validation_data=(images, one_hot)
    ).history
    expected = keras.metrics.F1Score()
    expected.update_state(one_hot, model.predict(images, verbose=0)["a"])
    np.testing.assert_allclose(
        history["val_a_f1_score"][0], expected.result(), rtol=1e-5
    )
    assert np.shape(history["a_f1_score"][0]) == (3,)


def test_a_data_set_of_ones_own_may_have_a_position_of_its_own():
    images, labels = tiny.batch(16)

    class Batches(keras.utils.PyDataset):
        position = 3

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return images[4 * index :][:4], labels[4 * index :][:4]

    model = tiny.distiller()
    model.fit(Batches(), verbose=0)
    assert int(model.trained_steps) == 4


def test_stock_callbacks_work(tmp_path):
    callbacks = [
        keras.callbacks.EarlyStopping(patience=1),
        keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5, min_delta=100),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "tb"),
        keras.callbacks.TerminateOnNaN(),
    ]
    model = OnlineDistiller([tiny.network(), tiny.network()], names=["a", "b"])
    model.compile(logit_schedule=None)
    model.fit(
        tiny.dataset(20),
        validation_data=tiny.dataset(20),
        epochs=3,
        verbose=2,
        callbacks=callbacks,
    )
    assert "a_discriminator_accuracy" in (tmp_path / "log.csv").read_text()
    assert float(model.optimizer.learning_rate) < 0.1


@pytest.mark.multi_device
@pytest.mark.parametrize(
    ("method", "forward"),
    [
        ("afd", "shared"),
        ("afd", "fresh"),
        ("l1_kd", "fresh"),
        ("ft", "shared"),
        pytest.param("at", "shared", marks=pytest.mark.slow),
        pytest.param("dml", "shared", marks=pytest.mark.slow),
    ],
)
def test_two_devices_give_the_weights_of_one(method, forward):
    results = []
    devices = [f"/cpu:{i}" for i in range(2)]
    options = {"discriminator_normalization": "none"} if method == "afd" else {}
    for strategy in (
        tf.distribute.OneDeviceStrategy("/cpu:0"),
        tf.distribute.MirroredStrategy(devices),
    ):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            networks = [
                tiny.network(4, kernel_regularizer=keras.regularizers.L2(0.01)),
                tiny.network(6),
            ]
            model = OnlineDistiller(
                networks,
                methods.get(method, **options),
                names=["a", "b"],
                forward=forward,
            )
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            feature_optimizer=tiny.sgd(0.1),
            discriminator_optimizer=tiny.sgd(0.1),
            weight_decay="coupled",
        )
        history = model.fit(
            tiny.dataset(24),
            validation_data=tiny.dataset(21),
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        results.append(([np.array(v) for v in model.variables], history.history))
    for one, two in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)
    for key, values in results[0][1].items():
        if "ratio" not in key:  # a mean of the replicas' own norms
            np.testing.assert_allclose(results[1][1][key], values, 1e-3, err_msg=key)


class Interruption(keras.callbacks.Callback):
    """Stop after a number of batches."""

    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch + 1 == self._batches


@pytest.mark.parametrize(
    ("steps_per_execution", "compiled"), [(1, {}), (2, {"total_steps": 12})]
)
def test_an_epoch_that_begins_with_a_later_step_is_the_rest_of_one(
    steps_per_execution, compiled
):
    data, results = tiny.dataset(24, 4), []
    for interrupted in (False, True):
        keras.utils.set_random_seed(1)
        model = tiny.pair()
        model.compile(
            run_eagerly=steps_per_execution == 1,
            steps_per_execution=steps_per_execution,
            **compiled,
        )
        rates, seen = tiny.Rates(), []
        see = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, seen=seen: seen.append(batch)
        )
        arguments = {"epochs": 2, "verbose": 0, "callbacks": [rates, see]}
        arguments["steps_per_epoch"] = 6
        if interrupted:
            callbacks = [rates, Interruption(2)]
            model.fit(data, **{**arguments, "callbacks": callbacks})
            del rates.rates[2 // steps_per_execution :]
            # Without its first batches; in the next epoch all are there.
            rest = data.skip(2).concatenate(data).repeat()
            model.fit(rest, initial_step=2, **arguments)
            del rates.rates[2 // steps_per_execution : 4 // steps_per_execution]
        else:
            model.fit(data.repeat(), **arguments)
        assert seen == list(range(steps_per_execution - 1, 6, steps_per_execution)) * 2
        results.append((rates.rates, snapshot(model)))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-6)
    for expected, actual in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def test_steps_that_were_to_be_left_out_concern_one_call_alone():
    images, labels = tiny.batch(8)
    model = tiny.distiller(method="vanilla")
    every = []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: every.append(logs)
    )
    history = model.fit(  # of two steps
        images, labels, 4, verbose=0, initial_step=5, callbacks=[see]
    )
    assert int(model.trained_steps) == 0
    assert every == [{}, {}]  # how callbacks know
    assert set(history.history) == {*model.get_metrics_result()}
    assert tiny.changed(model, lambda: model.train_on_batch(images, labels))
    with pytest.raises(ValueError, match=r"`initial_step`.*an int >= 0"):
        model.fit(images, labels, 4, verbose=0, initial_step=-1)
