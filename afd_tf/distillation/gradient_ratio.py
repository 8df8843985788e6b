"""How strong the feature-map-based gradient is beside the logit-based one."""

import tensorflow as tf


def gradient_ratios(taps, logit, feature, scale, due):
    """Divide E3's by E1's gradient norm, on each network's extractor, before decay.

    Args:
        taps: list of `Tapped`, one per network.
        logit: pair of the logit update's variables and their gradients (tensors, or
            None where a variable has none).
        feature: likewise of the feature update.
        scale: float32 scalar, the factor on the logit over that on the feature
            gradients: loss scaling, where there is any, is no part of the ratio.
        due: bool scalar tensor, whether to compute them.

    Returns:
        Two float32 tensors `(networks,)`: the ratios, 0 where there is none, and 1
        where there is one. There is none if it is not due, or if gradients have
        overflown, as loss scaling lets them.
    """
    logit, feature = _by_variable(*logit), _by_variable(*feature)

    def ratio(tap):
        ids = [id(v) for v in tap.extractor_variables]
        if not ids:  # a frozen network
            return tf.constant(0.0)
        return tf.math.divide_no_nan(
            tf.linalg.global_norm([feature[i] for i in ids]) * scale,
            tf.linalg.global_norm([logit[i] for i in ids]),
        )

    ratios = tf.cond(
        due,
        lambda: tf.stack([ratio(tap) for tap in taps]),
        lambda: tf.zeros(len(taps)),
    )
    finite = tf.math.is_finite(ratios)
    return tf.where(finite, ratios, 0.0), tf.cast(finite & due, tf.float32)


def _by_variable(variables, gradients):
    return {
        id(v): None if g is None else tf.cast(g, tf.float32)
        for v, g in zip(variables, gradients, strict=True)
    }
