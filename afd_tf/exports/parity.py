"""Parity: an exported file gives the logits of its network."""

from typing import Any

import keras
import numpy as np

from afd_tf.errors import Mistake, instance, invalid


def check_network(network):
    """Check that a network can be exported.

    Raises:
        ValueError: if it is not built, no graph, or has several inputs or outputs.
        TypeError: if it is not a Keras model.
    """
    instance("network", network, keras.Model, "a `keras.Model`")
    if not network.built:
        raise invalid(
            "network",
            "a built model",
            received=f"{network.name!r}, which is not built",
            hint="Give it a `keras.Input` first.",
        )
    if not hasattr(network, "inputs"):
        raise invalid(
            "network",
            "a Functional or Sequential model",
            received=f"{network.name!r} of type {type(network).__name__}",
            hint="Of an `OnlineDistiller`, export one of its `networks`.",
        )
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise invalid(
            "network",
            "one input and one output",
            received=f"{network.name!r} with {len(network.inputs)} inputs and "
            f"{len(network.outputs)} outputs",
            hint="Export a model of the one you ship.",
        )


def float32_copy(network):
    """Return a network that computes in float32 on one device.

    Args:
        network: keras.Model, Functional or Sequential.

    Returns:
        keras.Model, the network itself where it does so already.
    """
    float32 = all(
        layer.compute_dtype == "float32" for layer in network._flatten_layers()
    )
    # Mirrored variables would be written once per replica.
    mirrored = any(hasattr(weight.value, "values") for weight in network.weights)
    if float32 and not mirrored:
        return network

    def in_float32(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy: Any = keras.models.clone_model(
        network, clone_function=in_float32, recursive=True
    )
    copy.set_weights(network.get_weights())
    return copy


def check_parity(network, run, tolerance):
    """Compare an exported file with its network, at two batch sizes.

    Args:
        network: keras.Model, what was exported.
        run: function from images, a NumPy array `(batch, height, width, channels)`, to
            the file's logits `(batch, classes)`.
        tolerance: float, the largest accepted difference, as a fraction of the largest
            logit or of 1, whichever is larger.

    Returns:
        float, the largest absolute difference of a logit.

    Raises:
        Mistake: if it is too large, or NaN.
    """
    images = _probes(network.input_shape[1:], network.inputs[0].dtype)
    expected = keras.ops.convert_to_numpy(network(images, training=False))
    differences = [
        np.abs(keras.ops.convert_to_numpy(run(batch)) - logits).max()
        for batch, logits in ((images, expected), (images[:1], expected[:1]))
    ]
    error = float(np.max(differences))
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    if not error <= limit:  # NaN too
        raise Mistake(
            f"The export of {network.name!r} does not reproduce the network: a logit "
            f"differs by {error:.3g}, more than {limit:.3g}. Nothing was written. "
            "Check the network's weights for NaN, or raise `tolerance`."
        )
    return error


def _probes(shape, dtype):
    """Make random, constant and far-off images `(10, height, width, channels)`."""
    size = tuple(side or 32 for side in shape)
    random = np.random.default_rng(0).normal(size=(6, *size))
    constant = [np.full((1, *size), value) for value in (0.0, 1.0, -10.0, 10.0)]
    return np.concatenate([random, *constant]).astype(dtype)
