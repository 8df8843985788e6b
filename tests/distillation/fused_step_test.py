"""Whole steps with fused layers and optimizers against Keras' own.

As `fit` runs them, in a graph, so that what orders weight gradients is at work too.
"""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import afd_tf
from afd_tf.distillation import fused_optimizers, step
from afd_tf.networks.layers.batch_statistics import BatchStatisticsNormalization
from afd_tf.networks.layers.normalization import (
    FusedBatchNormalization,
    with_stock_normalization,
)

SHAPE, CLASSES, BATCH, STEPS = (16, 16, 3), 10, 4, 3
MOMENTUM = 0.9


def compiled(model, library=fused_optimizers):
    model.compile(
        # Rates that move the weights alike; an epsilon with which Adam's update is more
        # than the gradient's sign.
        library.SGD(1e-3, momentum=0.9, nesterov=True),
        feature_optimizer=library.Adam(1e-4, epsilon=1e-3),
        discriminator_optimizer=library.Adam(1e-4, epsilon=1e-3),
        total_steps=100,
    )
    return model


def batches():
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        images = random.normal(0.3, 1.5, (BATCH, *SHAPE)).astype("float32")
        yield images, random.integers(0, CLASSES, BATCH)


def fit(model, batch):
    """Make one step; return its metrics."""
    data = tf.data.Dataset.from_tensors(batch)
    history = model.fit(data, epochs=1, verbose=0).history
    return {name: value for name, (value,) in history.items()}


def normalizations(networks):
    """List the layers with moving statistics."""
    kinds = (FusedBatchNormalization, keras.layers.BatchNormalization)
    layers = [layer for network in networks for layer in network.layers]
    return [layer for layer in layers if isinstance(layer, kinds)]


def statistics(layer):
    return np.array(layer.moving_mean), np.array(layer.moving_variance)


def averaged(network, images):
    """Return what the statistics of each layer are to be after a step on a batch."""
    layers = normalizations([network])
    inputs = keras.Model(network.inputs[0], [layer.input for layer in layers])
    with keras.StatelessScope():
        maps = inputs(images, training=True)
    expected = []
    for layer, x in zip(layers, maps, strict=True):
        x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
        of_batch = x.mean(axis=0), x.var(axis=0, ddof=1)
        expected.append(
            [
                MOMENTUM * old + (1 - MOMENTUM) * new
                for old, new in zip(statistics(layer), of_batch)
            ]
        )
    return expected


@pytest.fixture(
    scope="module", params=["shared", pytest.param("fresh", marks=pytest.mark.slow)]
)
def trained(request):
    """Train resnet8 with wrn10_2; keep how it began, and what every step did."""
    keras.utils.set_random_seed(0)
    networks = [
        afd_tf.networks.resnet(8, CLASSES, SHAPE),
        afd_tf.networks.wide_resnet(10, 2, CLASSES, SHAPE),
    ]
    for layer in normalizations(networks):  # not zeros and ones
        layer.moving_mean.assign(tf.random.normal(layer.moving_mean.shape))
        layer.moving_variance.assign(tf.random.uniform(layer.moving_mean.shape, 1, 3))
    model = afd_tf.OnlineDistiller(networks, forward=request.param)
    found = types.SimpleNamespace(model=model, stock=stock_model(model))
    found.start = [np.array(v) for v in model.trainable_variables]
    found.first_statistics = [statistics(layer) for layer in normalizations(networks)]
    found.logs, found.statistics, found.expected = [], [], []
    compiled(model)
    for batch in batches():
        found.expected += [x for n in networks for x in averaged(n, batch[0])]
        found.logs.append(fit(model, batch))
        found.statistics += map(statistics, normalizations(networks))
    return found


def stock_model(model):
    """Copy a distiller with layers that Keras has."""
    copy = afd_tf.OnlineDistiller(
        [with_stock_normalization(network) for network in model.networks],
        forward=model.forward,
        discriminators=[stock_discriminator(d) for d in model.discriminators],
    )
    for own, other in zip(model.transfers, copy.transfers, strict=True):
        other.set_weights(own.get_weights())
    return copy


def stock_discriminator(discriminator):
    def clone(layer):
        if isinstance(layer, BatchStatisticsNormalization):
            return keras.layers.BatchNormalization(epsilon=1e-5, name=layer.name)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(discriminator, clone_function=clone)
    for own, other in zip(
        discriminator.trainable_variables, copy.trainable_variables, strict=True
    ):
        other.assign(own)
    return copy


def test_every_step_averages_the_batchs_statistics_once(trained):
    layers = normalizations(trained.model.networks)
    assert {type(layer) for layer in layers} == {FusedBatchNormalization}
    for found, expected in zip(trained.statistics, trained.expected, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_evaluation_changes_no_weight_and_no_optimizer(trained):
    model = trained.model
    variables = list(model.weights)
    for phase in model.phases:
        variables += phase.optimizer.variables
    before = [np.array(v) for v in variables]
    model.evaluate(tf.data.Dataset.from_tensors(next(batches())), verbose=0)
    for value, variable in zip(before, variables, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)


@pytest.mark.slow
def test_steps_are_those_of_keras_layers_and_optimizers(trained, monkeypatch):
    monkeypatch.setattr(step, "order_weight_gradients", lambda: None)
    stock = compiled(trained.stock, keras.optimizers)
    logs = [fit(stock, batch) for batch in batches()]

    for own, others in zip(trained.logs, logs, strict=True):
        assert own.keys() == others.keys()
        for name, value in own.items():
            assert value == pytest.approx(others[name], rel=1e-3, abs=1e-4), name

    distances = []
    for start, own, other in zip(
        trained.start,
        trained.model.trainable_variables,
        stock.trainable_variables,
        strict=True,
    ):
        moved = np.linalg.norm(np.array(own) - start)
        distances.append(np.linalg.norm(np.array(own) - np.array(other)) / moved)
    # Rounding, by 1e-5 of what was moved; where it changes the sign of an activation
    # near 0, a few variables differ by more.
    assert np.median(distances) < 1e-3
    assert max(distances) < 0.1

    layers = normalizations(stock.networks)
    for first, found, layer in zip(
        trained.first_statistics,
        trained.statistics[-len(layers) :],
        layers,
        strict=True,
    ):
        mean, variance = statistics(layer)
        np.testing.assert_allclose(found[0], mean, rtol=1e-4, atol=1e-5)
        # Keras averages the biased variance of the batch.
        kept = MOMENTUM**STEPS * first[1]
        count = BATCH * np.prod(layer.input.shape[1:3])
        unbiased = kept + (variance - kept) * count / (count - 1)
        np.testing.assert_allclose(found[1], unbiased, rtol=1e-4)
