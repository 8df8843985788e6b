"""The logit-based loss of one network, equation E1 of the paper."""

from keras import ops


def cross_entropy(labels, logits, label_smoothing=0.0):
    """Compute the first term of E1: `CE(y, softmax(z_k))`.

    Args:
        labels: int tensor `(batch,)` of class indices, or float tensor
            `(batch, classes)` of class probabilities (one-hot or soft).
        logits: float tensor `(batch, classes)`, any float dtype.
        label_smoothing: float in [0, 1). The target becomes
            `(1 - label_smoothing) * y + label_smoothing / classes`.

    Returns:
        float32 tensor `(batch,)`, nats per example.
    """
    logits = ops.cast(logits, "float32")
    sparse = len(labels.shape) == 1
    if sparse and not label_smoothing:
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    classes = logits.shape[-1]
    target = ops.one_hot(labels, classes) if sparse else ops.cast(labels, "float32")
    if label_smoothing:
        target = (1.0 - label_smoothing) * target + label_smoothing / classes
    return ops.categorical_crossentropy(target, logits, from_logits=True)


def kl_divergence(source_logits, logits, temperature=3.0):
    """Compute the second term of E1: `T^2 * KL(softmax(z_j/T) || softmax(z_k/T))`.

    The source's probabilities are a constant: no gradient reaches `source_logits`.

    Args:
        source_logits: float tensor `(batch, classes)`, z_j, any float dtype.
        logits: float tensor `(batch, classes)`, z_k, any float dtype.
        temperature: float > 0 or a float32 scalar tensor, T.

    Returns:
        float32 tensor `(batch,)`, nats per example times T^2.
    """
    inverse = 1.0 / temperature
    source = ops.stop_gradient(ops.cast(source_logits, "float32")) * inverse
    own = ops.cast(logits, "float32") * inverse
    log_source = ops.log_softmax(source, axis=-1)
    difference = log_source - ops.log_softmax(own, axis=-1)
    return temperature**2 * ops.sum(ops.exp(log_source) * difference, axis=-1)
