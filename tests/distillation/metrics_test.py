"""Metrics: names, means over an epoch, and the ensemble's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf.distillation import metrics
from afd_tf.errors import Mistake


def test_fit_reports_every_metric_with_exactly_its_name():
    history = tiny.named().fit(
        tiny.dataset(20), validation_data=tiny.dataset(20), epochs=2, verbose=0
    )
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


def test_epoch_metrics_are_means_over_the_whole_ragged_epoch():
    model = tiny.named()
    model.train_on_batch(*tiny.batch())
    images, labels = tiny.batch(21)
    logs = model.evaluate(tiny.dataset(21), return_dict=True, verbose=0)
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


@pytest.mark.parametrize(
    "metrics", ["accuracy", ["no_such_metric"], [3], keras.metrics.F1Score(), {"a": 1}]
)
def test_what_are_no_metrics_is_refused(metrics):
    with pytest.raises(Mistake, match=r"`metrics`.*a list of"):
        tiny.distiller(compiled={"metrics": metrics})


def test_the_user_s_metrics_are_computed_for_each_network():
    model = tiny.named(
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")]
    )
    images, labels = tiny.batch(20)
    logs = model.evaluate(images, labels, verbose=0, return_dict=True)
    predicted = model.predict(images, verbose=0)
    for name in "ab":
        best = np.argsort(-predicted[name], axis=-1)[:, :2]
        expected = np.mean([t in b for t, b in zip(labels.numpy(), best, strict=True)])
        np.testing.assert_allclose(logs[f"{name}_top2"], expected, rtol=1e-6)


def test_the_gradient_ratio_is_computed_at_every_nth_step_and_an_epoch_s_first():
    model = tiny.distiller(names=["a", "b"], compiled={"gradient_ratio_every": 3})
    counted = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counted.append(float(model.metrics[0].count("a_gradient_ratio")))

    images, labels = tiny.batch(10)
    model.fit(images, labels, 2, epochs=2, verbose=0, callbacks=[Count()])
    # Steps 0 and 3 of the first epoch; 5 (its first), 6 and 9 of the second.
    assert counted == [1, 1, 1, 2, 2, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("ensemble", ["probabilities", "logits"])
def test_evaluation_weighs_losses_and_uses_the_ensemble_asked_for(ensemble):
    images, labels = tiny.batch(20)
    weight = np.linspace(0, 3, 20).astype("float32")
    model = tiny.distiller(names=["a", "b"], ensemble=ensemble)
    for scale, network in zip((1.0, 9.0), model.networks, strict=True):
        head = network.get_layer("logits")
        head.kernel.assign(scale * head.kernel.value)
    predicted = model.predict(images, verbose=0)
    logs = model.evaluate(
        images, labels, sample_weight=weight, verbose=0, return_dict=True
    )
    rows = np.arange(20), labels.numpy()
    for name in ("a", "b", "ensemble"):
        per_example = -np.log(predicted[name][rows])
        expected = np.sum(weight * per_example) / 20
        np.testing.assert_allclose(logs[f"{name}_loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("ensemble", ["logits", "probabilities"])
def test_the_ensembles_loss_is_that_of_equal_networks(ensemble):
    def sure_of_the_first_class():
        network = tiny.network()
        network.get_layer("logits").set_weights(
            [np.zeros((4, 3), "float32"), np.array([40, 0, 0], "float32")]
        )
        return network

    networks = [sure_of_the_first_class(), sure_of_the_first_class()]
    model = tiny.distiller(networks, names=["a", "b"], ensemble=ensemble)
    images, _ = tiny.batch(4)
    logs = model.evaluate(images, tf.ones(4, tf.int32), verbose=0, return_dict=True)
    np.testing.assert_allclose(
        [logs["a_loss"], logs["b_loss"], logs["ensemble_loss"]], [40.0] * 3, rtol=1e-5
    )


def test_every_metric_is_declared_with_whose_it_is_and_what():
    model = tiny.distiller(
        names=["a", "b"],
        compiled={"metrics": [keras.metrics.SparseTopKCategoricalAccuracy(2, "top2")]},
    )
    specs = model.metric_specs
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    evaluated = model.test_on_batch(*tiny.batch(), return_dict=True)
    for phase, names in (("train", logs), ("test", evaluated)):
        assert {n for n, spec in specs.items() if phase in spec.phases} == set(names)
    for name, spec in specs.items():
        assert name == (f"{spec.network}_{spec.quantity}" if spec.network else "loss")
    assert {name for name, spec in specs.items() if spec.is_loss} == {
        *("loss", "ensemble_loss"),
        *(
            f"{n}_{what}"
            for n in "ab"
            for what in (
                *("loss", "cross_entropy", "kl", "feature_loss"),
                "discriminator_loss",
            )
        ),
    }
    assert {name for name, spec in specs.items() if spec.shown} == {
        *("loss", "mean_accuracy", "ensemble_accuracy", "a_accuracy", "b_accuracy"),
        *("a_top2", "b_top2"),
    }


@pytest.mark.parametrize("values", [{"a": (1, 1)}, dict.fromkeys("abc", (1, 1))])
def test_metrics_that_are_not_those_declared_are_named(values):
    odd = "b" if len(values) == 1 else "c"
    with pytest.raises(ValueError, match=rf"or not declared: \['{odd}'\]"):
        metrics.StepMetrics(["a", "b"]).update_state(values)
