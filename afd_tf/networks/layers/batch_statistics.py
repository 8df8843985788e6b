"""Normalisation by the batch's own statistics, for discriminators and transfers."""

from typing import Any

import keras
import tensorflow as tf

from afd_tf.networks.layers.normalization import FUSED_DTYPES, Normalization, check_kind


@keras.saving.register_keras_serializable(package="afd_tf")
class BatchStatisticsNormalization(Normalization):
    """Normalisation by the batch's own statistics, in training and outside it.

    For discriminators and transfer layers: they never run in inference, and a pass
    through them must leave nothing behind. It has gamma and beta and no moving
    statistics; `training` makes no difference.

    Args:
        synchronized: bool, whether the statistics are those of the global batch under
            `tf.distribute` (not fused, slower) or of the replica's part.
        epsilon: float, added to the variance.
        **kwargs: name, dtype, trainable.
    """

    def __init__(self, synchronized=False, epsilon=1e-5, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)
        self.synchronized = bool(synchronized)

    def call(self, inputs):
        """Normalise a map of shape `(batch, height, width, channels)`."""
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if dtype in FUSED_DTYPES and not self.synchronized:
            empty = tf.constant([], self.gamma.dtype)
            return self.fused(inputs, empty, empty, training=True)[0]
        moments: Any = keras.ops.moments(
            keras.ops.cast(inputs, self.gamma.dtype),
            axes=[0, 1, 2],
            synchronized=self.synchronized,
        )
        return self.unfused(inputs, *moments)

    def get_config(self):
        """Return the arguments that rebuild the layer."""
        return {**super().get_config(), "synchronized": self.synchronized}


def make_batch_statistics_normalization(kind, name=None, epsilon=1e-5):
    """Make the normalisation layer of a discriminator or transfer layer.

    Args:
        kind: "batch", "sync" or "none", as in `make_normalization`.
        name: str, the layer's name.
        epsilon: float, added to the variance.

    Returns:
        A `BatchStatisticsNormalization`, or None for "none".

    Raises:
        ValueError: if `kind` is unknown.
    """
    if check_kind(kind) == "none":
        return None
    return BatchStatisticsNormalization(
        synchronized=kind == "sync", epsilon=epsilon, name=name
    )
