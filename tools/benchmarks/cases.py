"""Timed cases: steps of networks through the train function that `fit` runs."""

import keras
import numpy as np
import tensorflow as tf

import afd_tf
from afd_tf import losses
from afd_tf.distillation.phases import logit_optimizer
from afd_tf.networks.layers.normalization import with_stock_normalization

CLASSES = 100
SHAPE = (32, 32, 3)
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def pair():
    """Build resnet20 and wrn16_2."""
    return [
        afd_tf.networks.resnet(20, CLASSES, SHAPE),
        afd_tf.networks.wide_resnet(16, 2, CLASSES, SHAPE),
    ]


def parts():
    """Return the pair, its transfer layers and its discriminators, of AFD."""
    model = afd_tf.OnlineDistiller(pair())
    return [*model.networks, *model.transfers, *model.discriminators]


def equal(count):
    """Build `count` networks resnet20."""
    return [afd_tf.networks.resnet(20, CLASSES, SHAPE) for _ in range(count)]


def stock(networks):
    """Copy networks with `keras.layers.BatchNormalization`."""
    return [with_stock_normalization(network) for network in networks]


def keras_resnet20():
    """Build resnet20 as a user of Keras writes it, of layers that Keras has."""
    layers = keras.layers

    def normalized(x, filters, stride=1):
        x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    images = keras.Input(SHAPE)
    x = layers.ReLU()(normalized(images, 16))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        for number in range(3):
            y = normalized(x, filters, stride if number == 0 else 1)
            y = normalized(layers.ReLU()(y), filters)
            if number == 0 and stride == 2:
                more = filters - x.shape[-1]
                x = keras.ops.pad(x[:, ::2, ::2], [(0, 0), (0, 0), (0, 0), (0, more)])
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return keras.Model(images, layers.Dense(CLASSES, dtype="float32")(x))


def batch(batch_size):
    """Return random images and labels."""
    random = np.random.default_rng(0)
    images = random.normal(size=(batch_size, *SHAPE)).astype("float32")
    return tf.constant(images), tf.constant(random.integers(0, CLASSES, batch_size))


def train_function(model, batch_size):
    """Return a function that makes one step by the model's own train function."""
    data = tf.data.Dataset.from_tensors(batch(batch_size)).repeat()
    iterator = iter(data)
    model.make_train_function()

    def step():
        # Waits for the last of a step's results, as a progress bar does.
        model.train_function(iterator)["loss"].numpy()

    return step


def together(networks, method, batch_size, **options):
    """Return the step of networks that train together."""
    model = afd_tf.OnlineDistiller(networks, method, **options)
    model.compile(total_steps=1_000_000)
    return train_function(model, batch_size)


def alone(network, batch_size, fused):
    """Return the step of one network trained by Keras, by the same equations.

    Args:
        network: keras.Model.
        batch_size: int.
        fused: bool, whether by our optimizer of one kernel per variable, or Keras'.
    """
    optimizer = logit_optimizer()
    if not fused:
        optimizer = keras.optimizers.SGD.from_config(optimizer.get_config())
    network.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return train_function(network, batch_size)


def passes(networks, batch_size):
    """Return functions that run the passes of which a step is made, and nothing else.

    Args:
        networks: list of keras.Model.
        batch_size: int.

    Returns:
        dict: "F", one forward pass; "F + B", with the backward pass of cross-entropy;
        "F + 2B, one graph", with the backward pass of the feature maps as well.
    """
    images, labels = batch(batch_size)
    taps = [afd_tf.networks.tap(network) for network in networks]
    everything = [v.value for n in networks for v in n.trainable_variables]
    extractors = [v.value for tap in taps for v in tap.extractor_variables]

    def run():
        passed = [tap.forward(images, training=True) for tap in taps]
        maps, logits = zip(*passed, strict=True)
        each = [tf.reduce_mean(losses.cross_entropy(labels, z)) for z in logits]
        return tf.add_n(each), list(maps)

    def one_number_each(gradients):
        # Of every gradient, so that none is optimised away and none is copied.
        return tf.stack([tf.reshape(g, [-1])[0] for g in gradients])

    @tf.function
    def forward():
        return run()[0]

    @tf.function
    def both():
        with tf.GradientTape() as tape:
            loss, _ = run()
        return one_number_each(tape.gradient(loss, everything))

    @tf.function
    def twice():
        with tf.GradientTape(persistent=True) as tape:
            loss, maps = run()
        gradients = tape.gradient(loss, everything)
        gradients += tape.gradient(maps, extractors, output_gradients=maps)
        return one_number_each(gradients)

    functions = {"F": forward, "F + B": both, "F + 2B, one graph": twice}
    # Waits for the result; what is returned must not be taken for seconds.
    return {n: lambda f=f: f().numpy() is None for n, f in functions.items()}


def step_cases(precision, batch_size):
    """Return the cases of one precision that are compared with F + 2B."""
    with policy(precision):
        return {
            **passes(pair(), batch_size),
            "vanilla": together(pair(), "vanilla", batch_size),
            "dml": together(pair(), "dml", batch_size),
            "afd, shared": together(pair(), "afd", batch_size),
            "afd, fresh": together(pair(), "afd", batch_size, forward="fresh"),
            "afd, fresh, stock layers": together(
                stock(pair()), "afd", batch_size, forward="fresh"
            ),
        }


def alone_cases(batch_size):
    """Return resnet20 alone: ours, with stock normalisation, and all of it Keras'."""
    cases = {}
    for precision in POLICIES:
        with policy(precision):
            networks = {
                "fused": (equal(1)[0], True),
                "fused, but for Keras' normalisation": (stock(equal(1))[0], True),
                "stock": (keras_resnet20(), False),
            }
            for name, (network, fused) in networks.items():
                cases[f"{name}, {precision}"] = alone(network, batch_size, fused)
    return cases


def count_cases(precision, batch_size):
    """Return AFD of two, three and four equal networks."""
    with policy(precision):
        return {
            f"{count} networks": together(equal(count), "afd", batch_size)
            for count in (2, 3, 4)
        }


class policy:  # noqa: N801  (used as a context manager)
    """Build what is inside with a precision."""

    def __init__(self, precision):
        self._name = POLICIES[precision]

    def __enter__(self):
        self._before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self._name)

    def __exit__(self, *_):
        keras.config.set_dtype_policy(self._before)
