"""Copies of networks that need nothing of this package to load."""

import keras

from afd_tf.networks.normalization import FusedBatchNormalization


def with_stock_normalization(model):
    """Copy a network with stock layers in place of the fused ones.

    The copy has the same outputs in inference and loads with Keras alone, without
    this package.

    Args:
        model: keras Functional or Sequential model.

    Returns:
        keras.Model with its own variables of the same values.

    Raises:
        ValueError: if the model is subclassed, so that its layers cannot be replaced.
    """

    def clone(layer):
        if not isinstance(layer, FusedBatchNormalization):
            return layer.__class__.from_config(layer.get_config())
        return keras.layers.BatchNormalization(
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            name=layer.name,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
        )

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
