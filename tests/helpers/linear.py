"""Linear networks and discriminators, whose gradients fit on a line each."""

import keras
import numpy as np
import tiny

RATES = {"logit": 0.3, "feature": 0.7, "discriminator": 0.5}
DECAYS = {"logit": 0.02, "feature": 0.05, "discriminator": 0.03}
TEMPERATURE = 3.0


def linear_network():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 1, use_bias=False, name="map")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(tiny.CLASSES)(x))


def linear_discriminator():
    inputs = keras.Input((6, 6, 4))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def compile_options():
    """Return SGD with `RATES` and coupled decay of `DECAYS`, as `compile` takes it."""
    return {
        "optimizer": tiny.sgd(RATES["logit"]),
        "feature_optimizer": tiny.sgd(RATES["feature"]),
        "discriminator_optimizer": tiny.sgd(RATES["discriminator"]),
        **{f"{role}_weight_decay": decay for role, decay in DECAYS.items()},
    }
