"""Plain Keras around the step: fit, evaluate, predict, metrics, precision, devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import OnlineDistiller, methods


def dataset(size=20, batch_size=8):
    return tf.data.Dataset.from_tensor_slices(tiny.batch(size)).batch(batch_size)


def named(method="afd", **compiled):
    compiled = {"run_eagerly": False, **compiled}
    return tiny.distiller(None, method, names=["a", "b"], compiled=compiled)


def snapshot(model):
    state = list(model.variables)
    for optimizer in (
        model.optimizer,
        model.feature_optimizer,
        model.discriminator_optimizer,
    ):
        state += optimizer.variables
    return [np.array(v) for v in state]


def test_fit_reports_every_metric_with_exactly_its_name():
    history = named().fit(dataset(), validation_data=dataset(), epochs=2, verbose=0)
    networks = {
        f"{n}_{m}"
        for n in "ab"
        for m in (
            "loss",
            "cross_entropy",
            "kl",
            "accuracy",
            "feature_loss",
            "gradient_ratio",
            "discriminator_loss",
            "discriminator_real",
            "discriminator_own",
            "discriminator_accuracy",
        )
    }
    both = {"loss", "mean_accuracy", "ensemble_accuracy"}
    validation = both | {
        "ensemble_loss",
        "a_loss",
        "b_loss",
        "a_accuracy",
        "b_accuracy",
    }
    assert set(history.history) == networks | both | {f"val_{v}" for v in validation}
    assert all(len(values) == 2 for values in history.history.values())


def test_the_progress_bar_shows_accuracies_and_not_every_metric(capsys):
    named().fit(dataset(), validation_data=dataset(), epochs=2, verbose=2)
    shown = capsys.readouterr().out
    for name in ("loss", "val_loss", "a_accuracy", "val_ensemble_accuracy"):
        assert f" {name}: " in shown
    for name in ("a_loss", "a_kl", "b_discriminator_real", "a_gradient_ratio"):
        assert name not in shown


def test_epoch_metrics_are_means_over_the_whole_ragged_epoch():
    model = named()
    model.train_on_batch(*tiny.batch())
    images, labels = tiny.batch(21)
    logs = model.evaluate(dataset(21), return_dict=True, verbose=0)
    predicted = model.predict(images, verbose=0)
    together = (predicted["a"].astype("float64") + predicted["b"]) / 2
    labels = labels.numpy()
    right = {n: np.mean(predicted[n].argmax(-1) == labels) for n in "ab"}
    for name, share in right.items():
        np.testing.assert_allclose(logs[f"{name}_accuracy"], share, rtol=1e-6)
        loss = -np.mean(np.log(predicted[name][np.arange(21), labels]))
        np.testing.assert_allclose(logs[f"{name}_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(logs["mean_accuracy"], np.mean(list(right.values())))
    np.testing.assert_allclose(
        logs["ensemble_accuracy"], np.mean(together.argmax(-1) == labels), rtol=1e-6
    )
    np.testing.assert_allclose(
        logs["ensemble_loss"], -np.mean(np.log(together[np.arange(21), labels])), 1e-5
    )


@pytest.mark.parametrize("ensemble", ["probabilities", "logits"])
def test_predict_gives_each_network_and_the_ensemble(ensemble):
    images, _ = tiny.batch(5)
    model = tiny.distiller(names=["a", "b"], ensemble=ensemble)
    logits = [n(images).numpy().astype("float64") for n in model.networks]

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(-1, keepdims=True)

    predicted = model.predict(images, batch_size=2, verbose=0)
    assert list(predicted) == ["a", "b", "ensemble"]
    np.testing.assert_allclose(predicted["a"], softmax(logits[0]), rtol=1e-5)
    expected = {
        "probabilities": (softmax(logits[0]) + softmax(logits[1])) / 2,
        "logits": softmax((logits[0] + logits[1]) / 2),
    }[ensemble]
    np.testing.assert_allclose(predicted["ensemble"], expected, rtol=1e-5)


def test_evaluate_and_predict_change_nothing_and_leave_training_on():
    networks = [tiny.network(normalization=True) for _ in range(2)]
    model = tiny.distiller(networks)
    model.train_on_batch(*tiny.batch())
    before = snapshot(model)
    model.evaluate(dataset(), verbose=0)
    model.predict(dataset(), verbose=0)
    for b, a in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(a, b)

    means = []

    class Mean(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            means.append(np.array(networks[0].get_layer("bn").moving_mean))

    model.fit(
        dataset(), validation_data=dataset(), epochs=2, verbose=0, callbacks=[Mean()]
    )
    assert not np.allclose(means[0], means[1], atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
    ids=str,
)
def test_every_way_to_run_the_step_gives_the_same_weights(arguments):
    results = []
    for compiled in ({}, arguments):
        keras.utils.set_random_seed(1)
        model = named(**compiled)
        model.fit(dataset(16), epochs=2, shuffle=False, verbose=0)
        results.append(snapshot(model))
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_same_seed_same_run_and_peers_of_one_architecture_differ():
    runs = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        model = named()
        start = [np.array(n.get_layer("conv").kernel) for n in model.networks]
        assert not np.allclose(*start)
        model.fit(dataset(16), epochs=1, verbose=0)
        runs.append(snapshot(model))
    for first, second in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(first, second)
    assert any(not np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_class_weight_and_one_hot_labels_and_label_smoothing():
    images, labels = tiny.batch()
    one_hot = tf.one_hot(labels, 3)

    def kernel(y, fit=None, **compiled):
        keras.utils.set_random_seed(1)
        model = named(**compiled)
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


def test_the_user_s_metrics_are_computed_for_each_network():
    model = named(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])
    images, labels = tiny.batch(20)
    logs = model.evaluate(images, labels, verbose=0, return_dict=True)
    predicted = model.predict(images, verbose=0)
    for name in "ab":
        best = np.argsort(-predicted[name], axis=-1)[:, :2]
        expected = np.mean([t in b for t, b in zip(labels.numpy(), best, strict=True)])
        np.testing.assert_allclose(logs[f"{name}_top2"], expected, rtol=1e-6)


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
    model.compile()
    model.fit(
        dataset(), validation_data=dataset(), epochs=3, verbose=2, callbacks=callbacks
    )
    assert "a_discriminator_accuracy" in (tmp_path / "log.csv").read_text()
    assert float(model.optimizer.learning_rate) < 0.1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("forward", ["shared", "fresh"])
def test_mixed_precision_stays_near_float32(policy, forward):
    results = {}
    for name in ("float32", policy):
        keras.config.set_dtype_policy(name)
        keras.utils.set_random_seed(1)
        method = tiny.afd(discriminator_normalization="none")
        model = tiny.distiller(None, method, names=["a", "b"], forward=forward)
        logs = [
            model.train_on_batch(*tiny.batch(), return_dict=True) for _ in range(3)
        ][-1]
        kernel = model.networks[0].get_layer("conv").kernel
        assert kernel.dtype == "float32"
        results[name] = logs, np.array(kernel)
    (expected_logs, expected), (logs, kernel) = results.values()
    np.testing.assert_allclose(kernel, expected, atol=5e-3)
    for key, value in expected_logs.items():
        np.testing.assert_allclose(logs[key], value, atol=0.03, rtol=0.05, err_msg=key)


def test_float16_decay_and_ratio_do_not_know_of_the_loss_scale():
    results = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(1)
        model = named(weight_decay="coupled", logit_weight_decay=0.5)
        logs = model.train_on_batch(*tiny.batch(), return_dict=True)
        kernel = np.array(model.networks[0].get_layer("logits").kernel)
        results.append((kernel, logs["a_gradient_ratio"]))
    np.testing.assert_allclose(results[1][0], results[0][0], atol=2e-3)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=0.05)


def test_a_step_whose_gradients_overflow_is_left_out_of_the_ratio():
    keras.config.set_dtype_policy("mixed_float16")
    model = named(run_eagerly=True, gradient_ratio_every=1)
    images, labels = tiny.batch()
    before = tiny.values(model.networks[0].trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**40)
    model.train_on_batch(images, labels)
    for b, a in zip(before, model.networks[0].trainable_variables, strict=True):
        if "logits" in a.path:
            np.testing.assert_array_equal(a, b)
    model.optimizer.dynamic_scale.assign(2.0**10)
    second = model.train_on_batch(images, labels, return_dict=True)
    assert np.isfinite(second["a_gradient_ratio"])
    assert second["a_gradient_ratio"] > 0


def test_a_loss_scale_that_grows_within_a_step_is_not_in_the_ratio():
    ratios = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(1)
        model = tiny.distiller(names=["a", "b"], rates=(0, 0.1, 0.1), forward="fresh")
        if policy == "mixed_float16":
            growing = model.optimizer
            growing.step_counter.assign(growing.dynamic_growth_steps - 1)
        logs = model.train_on_batch(*tiny.batch(), return_dict=True)
        ratios.append(logs["a_gradient_ratio"])
    assert float(growing.dynamic_scale) == 2 * growing.initial_scale
    np.testing.assert_allclose(ratios[1], ratios[0], rtol=0.05)


@pytest.mark.multi_device
@pytest.mark.parametrize(
    ("method", "forward"),
    [
        *((m, f) for m in ("afd", "l1_kd", "dml") for f in ("shared", "fresh")),
        ("l2", "shared"),
        ("at_kd", "shared"),
        ("ft", "shared"),
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
            keras.optimizers.SGD(0.1),
            keras.optimizers.SGD(0.1),
            weight_decay="coupled",
        )
        history = model.fit(
            dataset(24), validation_data=dataset(21), epochs=2, shuffle=False, verbose=0
        )
        results.append(([np.array(v) for v in model.variables], history.history))
    for one, two in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)
    for key, values in results[0][1].items():
        if "ratio" not in key:  # a mean of the replicas' own norms
            np.testing.assert_allclose(results[1][1][key], values, 1e-3, err_msg=key)
