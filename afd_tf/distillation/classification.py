"""The loss of labels and logits, whichever way the user gives it."""

import inspect

import keras

from afd_tf import losses
from afd_tf.errors import lookup

_NAMED_LOSSES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
}


def classification_loss(loss, label_smoothing):
    """Return a function `(labels, logits) -> (batch,)` in nats per example.

    Args:
        loss: None (cross-entropy), a keras.losses.Loss, its name, or a function of
            labels and logits that returns one value per example.
        label_smoothing: float in [0, 1), for None.

    Raises:
        ValueError: if the loss takes probabilities, or smoothing is asked for twice.
        TypeError: if it is not a loss.
    """
    number = isinstance(label_smoothing, int | float)
    if not number or not 0.0 <= label_smoothing < 1.0:
        raise ValueError(
            "Invalid value for argument `label_smoothing`. Expected a float in [0, 1). "
            f"Received: label_smoothing={label_smoothing!r}."
        )
    if loss is None:
        return lambda labels, logits: losses.cross_entropy(
            labels, logits, label_smoothing
        )
    if label_smoothing:
        raise ValueError(
            "Argument `label_smoothing` belongs to the default loss. Received: loss="
            f"{loss!r} and label_smoothing={label_smoothing}. Give the smoothing to "
            "your loss."
        )
    if isinstance(loss, str):
        loss = lookup("loss", loss, _NAMED_LOSSES)(from_logits=True)
    _refuse_probabilities(loss)
    if isinstance(loss, keras.losses.Loss):
        return _per_example(loss.call)
    if not callable(loss):
        raise TypeError(
            "Invalid value for argument `loss`. Expected a keras.losses.Loss, its name "
            f"or a function (labels, logits) -> (batch,). Received: loss={loss!r}."
        )
    return _per_example(loss)


def _refuse_probabilities(loss):
    name = getattr(loss, "__name__", type(loss).__name__)
    takes = name in ("KLDivergence", "kl_divergence")
    if isinstance(loss, keras.losses.Loss):
        takes |= loss.get_config().get("from_logits") is False
    elif inspect.isfunction(loss):
        argument = inspect.signature(loss).parameters.get("from_logits")
        takes |= argument is not None and argument.default is False
    if takes:
        raise ValueError(
            "Invalid value for argument `loss`. Expected a loss on logits. Received: "
            f"{name}, which takes probabilities. Pass from_logits=True to a "
            "keras.losses class, or leave `loss` out for cross-entropy."
        )


def _per_example(loss):
    def checked(labels, logits):
        values = loss(labels, logits)
        if len(values.shape) != 1:
            raise ValueError(
                "Invalid value for argument `loss`. Expected one value per example, "
                f"shape (batch,). Received: shape {tuple(values.shape)}. Leave out the "
                "mean over the batch."
            )
        return values

    return checked
