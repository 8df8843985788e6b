"""Grad-CAM, class activation maps by gradients (Selvaraju et al. 2017)."""

import tensorflow as tf


def grad_cam(tapped, images, classes):
    """Compute class activation maps from the gradient at the tap.

        L = ReLU(sum_k a_k A_k),   a_k = mean over positions of dz_c / dA_k

    with channel k of the feature map, A_k, and the logit of the class, z_c (equations
    1 and 2).

    Args:
        tapped: `afd_tf.networks.Tapped`.
        images: float tensor `(batch, height, width, channels)`, as the network takes.
        classes: int tensor `(batch,)`, the class of each image to look for.

    Returns:
        float32 array `(batch, height, width)` of the images' size (bilinear), divided
        by its largest value per image, in [0, 1]; zeros where nothing speaks for the
        class.
    """
    images = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        # Frozen weights would leave nothing to differentiate by.
        tape.watch(images)
        feature_map, logits = tapped.forward(images)
        scores = tf.gather(logits, classes, batch_dims=1)
    gradient = tf.cast(tape.gradient(scores, feature_map), tf.float32)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    feature_map = tf.cast(feature_map, tf.float32)
    cam = tf.nn.relu(tf.reduce_sum(weights * feature_map, axis=-1, keepdims=True))
    cam = tf.image.resize(cam, images.shape[1:3], method="bilinear")[..., 0]
    highest = tf.reduce_max(cam, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(cam, highest).numpy()
