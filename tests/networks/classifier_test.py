"""The check of a classifier, which needs no graph and no feature map."""

import keras
import numpy as np
import pytest
import tiny
from keras import layers

from afd_tf.networks import check_classifier


class Subclassed(keras.Model):
    def __init__(self, activation=None, branches=1):
        super().__init__()
        self.dense = layers.Dense(3, activation)
        self.flatten = layers.Flatten()
        self.branches = branches

    def call(self, x):
        y = self.dense(self.flatten(x))
        return y if self.branches == 1 else [y] * self.branches


class Doubling(keras.Model):
    def call(self, x, training=None):
        return super().call(x, training=training) * 2


def called(model, shape=(4, 8, 6, 2)):
    model(np.ones(shape, "float32"))
    return model


def without_map(cls=keras.Model, activation=None):
    images = keras.Input((8, 6, 2))
    return cls(images, layers.Dense(3, activation)(layers.Flatten()(images)))


@pytest.mark.parametrize(
    "make",
    [
        without_map,
        lambda: without_map(Doubling),
        lambda: called(Subclassed()),
        lambda: called(keras.Sequential([layers.Flatten(), layers.Dense(3)])),
        lambda: keras.Sequential([keras.Input((8, 6, 2)), without_map()]),
    ],
)
def test_any_built_model_of_images_and_logits_will_do(make):
    model = make()
    before = model.get_weights()
    assert check_classifier(model) == ((8, 6, 2), 3)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Subclassed, "is not built"),
        (lambda: called(Subclassed("softmax")), "ends in probabilities"),
        (lambda: without_map(activation="softmax"), "ends in probabilities"),
        (lambda: called(Subclassed(branches=2)), "2 outputs"),
        (lambda: called(Subclassed(), (4, 6)), r"input shape \(4, 6\)"),
    ],
)
def test_other_models_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        check_classifier(make())


def test_networks_without_a_graph_train_by_a_method_without_maps():
    pair = [called(Subclassed(), (4, 6, 6, 2)) for _ in range(2)]
    model = tiny.distiller(pair, "dml", names=["a", "b"])
    changed = tiny.changed(model, lambda: model.train_on_batch(*tiny.batch()))
    assert {v.path for v in model.trainable_variables} <= changed
    with pytest.raises(ValueError, match="cannot be tapped"):
        tiny.distiller(pair)
