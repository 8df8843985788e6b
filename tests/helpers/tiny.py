"""Tiny classifiers and batches for tests of the step."""

import keras
import numpy as np
import tensorflow as tf

from afd_tf import OnlineDistiller, methods

CLASSES = 3


def network(channels=4, *, name=None, normalization=False, classes=CLASSES, **conv):
    """Return a classifier of 6x6x2 images whose map is `(6, 6, channels)`."""
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(channels, 3, padding="same", name="conv", **conv)(inputs)
    if normalization:
        x = keras.layers.BatchNormalization(momentum=0.9, name="bn")(x)
    x = keras.layers.Activation("tanh", name="map")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def staged(channels=4, *, name=None, normalization=False):
    """Return a classifier of two stages, the second of half the resolution."""
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(channels, 3, padding="same", name="stem")(inputs)
    x = keras.layers.Activation("tanh", name="shared_map")(x)
    x = keras.layers.Conv2D(channels, 3, 2, padding="same", name="stage")(x)
    if normalization:
        x = keras.layers.BatchNormalization(momentum=0.9, name="bn")(x)
    x = keras.layers.Activation("tanh", name="map")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def batch(size=8, seed=0):
    """Return images `(size, 6, 6, 2)` and labels `(size,)`."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(size, 6, 6, 2)).astype("float32")
    labels = rng.integers(0, CLASSES, size).astype("int32")
    return tf.constant(images), tf.constant(labels)


def dataset(size=16, batch_size=8, seed=0):
    """Return a `tf.data.Dataset` of batches of images and labels."""
    return tf.data.Dataset.from_tensor_slices(batch(size, seed)).batch(batch_size)


def discriminator_with(*layers):
    """Return a discriminator of maps `(6, 6, 4)` that begins with some layers."""
    inputs = keras.Input((6, 6, 4))
    x = inputs
    for layer in layers:
        x = layer(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


def afd(**options):
    """Return AFD with a discriminator of one block, unless `options` say otherwise."""
    return methods.get("afd", **{"discriminator_channels": (4,), **options})


def sgd(rate):
    return keras.optimizers.SGD(float(rate))


def pair():
    """Return a distiller of two equal networks, not compiled."""
    return OnlineDistiller([network(), network()], afd())


def distiller(networks=None, method="afd", rates=(0.1, 0.1, 0.1), compiled=None, **kw):
    """Return a compiled distiller with plain SGD and no decay, run eagerly.

    Tracing a step takes longer than a few eager ones, and both give the same
    weights, as `fit_test.py` shows.
    """
    networks = networks or [network(4), network(4)]
    method = afd() if method == "afd" else method
    model = OnlineDistiller(networks, method, **kw)
    roles = ("optimizer", "feature_optimizer", "discriminator_optimizer")
    optimizers = {role: sgd(rate) for role, rate in zip(roles, rates, strict=True)}
    own = {"weight_decay": "none", "run_eagerly": True, **(compiled or {})}
    model.compile(**{**optimizers, **own})
    return model


def named(**compiled):
    """Return a distiller of networks "a" and "b" that trains as `fit` does."""
    compiled = {"run_eagerly": False, **compiled}
    return distiller(names=["a", "b"], compiled=compiled)


def of_method(method, normalization=False, **options):
    """Return a distiller of any method, a string, with what that method needs."""
    if method == "one":
        return distiller([staged(normalization=normalization)], method, **options)
    networks = [network(4), network(6), network(4, normalization=normalization)]
    if method == "kd":
        options["source"] = network(8)
    return distiller(networks, afd() if method == "afd" else method, **options)


def optimizers(model):
    """Return the optimizers of E1, E3 and E2."""
    return [model.optimizer, model.feature_optimizer, model.discriminator_optimizer]


class Rates(keras.callbacks.Callback):
    """Record the learning rates of `optimizers` at each step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append([float(o.learning_rate) for o in optimizers(self.model)])


def values(variables):
    return [np.array(v) for v in variables]


def changed(model, action):
    """Return the paths of the variables that `action()` changes, but for counters."""
    variables = [v for v in model.variables if v.dtype != "int64"]
    before = values(variables)
    action()
    after = values(variables)
    return {
        v.path
        for v, b, a in zip(variables, before, after, strict=True)
        if not np.array_equal(b, a)
    }


def one_and_two_devices():
    """Yield a strategy of one device and one of two, each from the same seed."""
    for strategy in (
        tf.distribute.OneDeviceStrategy("/cpu:0"),
        tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
    ):
        keras.utils.set_random_seed(1)
        yield strategy


def assert_two_devices_equal_one(make, rates=(0.1, 0.1, 0.1), momentum=0.0, **compiled):
    """Check that two replicas give the weights of one device.

    Args:
        make: function without arguments that returns a distiller.
        rates: learning rates of the logit, the feature and the discriminator optimizer.
        momentum: of the logit optimizer.
        **compiled: arguments of `compile`.
    """
    results = []
    for strategy in one_and_two_devices():
        with strategy.scope():
            model = make()
        model.compile(
            keras.optimizers.SGD(rates[0], momentum=momentum),
            feature_optimizer=sgd(rates[1]),
            discriminator_optimizer=sgd(rates[2]),
            **compiled,
        )
        if model.needs_pretraining:
            model.pretrain(dataset(24), epochs=1, optimizer=sgd(0.1), verbose=0)
        model.fit(dataset(24), epochs=2, shuffle=False, verbose=0)
        results.append(values(model.variables))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)
