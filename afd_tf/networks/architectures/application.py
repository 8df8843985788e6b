"""Networks of `keras.applications`, untrained, for standardised images."""

import inspect
import warnings

import keras

from afd_tf.errors import choice, invalid
from afd_tf.networks.architectures.blocks import check_arguments
from afd_tf.networks.architectures.registry import register
from afd_tf.networks.layers.normalization import FusedBatchNormalization

# The functions that build a network, among modules and their helpers.
ARCHITECTURES = tuple(
    name
    for name, member in sorted(vars(keras.applications).items())
    if name[0].isupper() and callable(member)
)


@register("applications/<Architecture>", [f"applications/{n}" for n in ARCHITECTURES])
def application(architecture, num_classes, input_shape=(224, 224, 3), *, name=None):
    """Build a network of `keras.applications` that ends in logits.

    Layers, initial values and batch normalisation's momentum and epsilon are those of
    Keras, with random weights. Two things differ: batch normalisation is the fused
    operation, and steps of preprocessing inside the network (which expect pixels from
    0 to 255) are left out, since images are standardised already.

    Args:
        architecture: str, such as "EfficientNetB0"; see `ARCHITECTURES`.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        name: str, default the architecture in lower case.

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        logits `(batch, num_classes)`.

    Raises:
        ValueError: if there is no such architecture, or it takes no such images.

    Example:
        >>> application("EfficientNetB0", num_classes=1000).name
        'efficientnetb0'
    """
    choice("architecture", architecture, ARCHITECTURES)
    check_arguments(num_classes, input_shape, "batch")
    make = getattr(keras.applications, architecture)
    options = {}
    if "include_preprocessing" in inspect.signature(make).parameters:
        options["include_preprocessing"] = False
    try:
        with warnings.catch_warnings():
            # "usually expects 1 or 3 input channels", of trained weights.
            warnings.filterwarnings("ignore", message="This model usually expects")
            model = make(
                weights=None,
                input_shape=tuple(input_shape),
                classes=num_classes,
                classifier_activation=None,
                **options,
            )
    except ValueError as error:
        raise invalid(
            "input_shape",
            f"images that {architecture} takes",
            input_shape,
            hint=str(error),
        ) from error
    model = keras.models.clone_model(model, clone_function=_clone, call_function=_call)
    return keras.Model(
        model.inputs[0], model.outputs[0], name=name or architecture.lower()
    )


def _clone(layer):
    """Copy a layer, with fused normalisation and without preprocessing."""
    if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
        return keras.layers.Identity(name=layer.name)
    fusible = isinstance(layer, keras.layers.BatchNormalization) and (
        layer.center and layer.scale and layer.axis in (3, -1, [3], [-1])
    )
    if not fusible:
        return layer.__class__.from_config(layer.get_config())
    return FusedBatchNormalization(
        momentum=layer.momentum,
        epsilon=layer.epsilon,
        unbiased=False,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def _call(layer, *args, **kwargs):
    if isinstance(layer, FusedBatchNormalization):
        kwargs.pop("mask", None)  # of the stock layer; there is none on maps
    return layer(*args, **kwargs)
