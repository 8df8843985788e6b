"""The frozen source: a trained network from which others learn."""

import dataclasses

import keras
import tensorflow as tf
from keras import ops

from afd_tf.errors import inapplicable, instance, invalid
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


def check_given(method, source):
    """Check that there is a frozen source where the method needs one, and only there.

    Raises:
        ValueError: if not; the message says how to give one.
    """
    if source is None and method.frozen_source == "required":
        raise invalid(
            "source",
            f"a network that is trained already: method '{method.name}' learns from it",
            source,
            hint=f"Pass a Keras model, OnlineDistiller(networks, '{method.name}', "
            "source=model); in a configuration name a run or a file, "
            'train.source = "runs/teacher" and train.source_network = "resnet20".',
        )
    if source is not None and method.frozen_source == "refused":
        raise inapplicable(
            "source",
            source,
            f"method '{method.name}' learns from no frozen network",
            "Leave it out, or choose a method that has one, such as 'kd'.",
        )


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
    instance("source", network, keras.Model, "a keras.Model that is trained already")
    own = check_classifier(network)
    if own != (tuple(input_shape), num_classes):
        raise invalid(
            "source",
            "a network that sees the same images and classes as those that learn from "
            f"it, {input_shape} and {num_classes}",
            received=f"'{network.name}' with {own[0]} and {own[1]}",
        )
    tapped = None
    if method.feature:
        try:
            tapped = tap(network, layer)
        except ValueError as error:
            raise invalid(
                "source",
                f"a network with a feature map, which method '{method.name}' needs",
                received=f"'{network.name}'",
                hint=str(error),
            ) from error
    network.trainable = False
    return FrozenSource(network, tapped)
