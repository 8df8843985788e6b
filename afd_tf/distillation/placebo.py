"""Noise in place of gradients: a control for what a loss is good for."""

import tensorflow as tf


def noise_like(gradients, seed, step):
    """Return Gaussian noise of each gradient's norm.

    A function of seed and step, so that a resumed run draws the same. Over replicas it
    is the norm of their sum, and the same noise on each.

    Args:
        gradients: list of tensors or None, a replica's.
        seed: int tensor `(2,)`.
        step: int scalar tensor.

    Returns:
        List like `gradients`; over replicas it adds up to noise of the sum's norm.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    present = [g for g in gradients if g is not None]
    if replicas > 1:
        context = tf.distribute.get_replica_context()
        present = context.all_reduce(tf.distribute.ReduceOp.SUM, present)
    seed = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int64), step)
    drawn = []
    for i, gradient in enumerate(present):
        own = tf.random.experimental.stateless_fold_in(seed, i)
        noise = tf.random.stateless_normal(tf.shape(gradient), own)
        norm = tf.norm(tf.cast(gradient, tf.float32))
        noise *= tf.math.divide_no_nan(norm, tf.norm(noise)) / replicas
        drawn.append(tf.cast(noise, gradient.dtype))
    remaining = iter(drawn)
    return [None if g is None else next(remaining) for g in gradients]
