"""A network that is trained already, from which others learn."""

import dataclasses

import keras
import tensorflow as tf
from keras import ops

from afd_tf.networks.classifier import check_classifier
from afd_tf.networks.tap import Tapped, tap


@dataclasses.dataclass(frozen=True)
class FrozenSource:
    """A source that computes and never changes.

    Attributes:
        network: keras.Model from images to logits, not trainable.
        tap: Tapped, or None where the method looks at logits only.
    """

    network: keras.Model
    tap: Tapped | None

    def forward(self, images):
        """Compute maps and logits in inference mode, as constants.

        Returns:
            List with the feature map, or nothing without a tap, and list with the
            float32 logits `(batch, classes)`.
        """
        if self.tap is None:
            maps, logits = [], self.network(images, training=False)
        else:
            feature_map, logits = self.tap.forward(images, training=False)
            maps = [tf.stop_gradient(feature_map)]
        return maps, [tf.stop_gradient(ops.cast(logits, "float32"))]


def freeze(network, layer, method, input_shape, num_classes):
    """Make a trained network a source; its `trainable` becomes False.

    Args:
        network: keras.Model.
        layer: str, the layer to tap, or None.
        method: Method.
        input_shape: (height, width, channels) of the networks that learn from it.
        num_classes: int, likewise.

    Raises:
        ValueError: if it sees other images or classes, or has no map the method needs.
        TypeError: if it is no Keras model.
    """
    if not isinstance(network, keras.Model):
        raise TypeError(
            "Invalid value for argument `source`. Expected a keras.Model that is "
            f"trained already. Received: {network!r} of type {type(network).__name__}."
        )
    images, logits = check_classifier(network)
    own = (tuple(images.shape[1:]), int(logits.shape[-1]))
    if own != (tuple(input_shape), num_classes):
        raise ValueError(
            "Invalid value for argument `source`. Expected a network that sees the "
            f"same images and classes as those that learn from it, {input_shape} and "
            f"{num_classes}. Received: '{network.name}' with {own[0]} and {own[1]}."
        )
    tapped = None
    if method.feature:
        try:
            tapped = tap(network, layer)
        except ValueError as error:
            raise ValueError(
                f"Invalid value for argument `source`. Expected a network with a "
                f"feature map, which method '{method.name}' needs. Received: "
                f"'{network.name}'. {error}"
            ) from error
    network.trainable = False
    return FrozenSource(network, tapped)
