"""Losses as pure functions of tensors; each gives one value per example."""

from afd_tf.losses.adversarial import discriminator_loss, generator_loss
from afd_tf.losses.alignment import attention, factor, l1, l2
from afd_tf.losses.logits import cross_entropy, kl_divergence
from afd_tf.losses.reduction import add_in_order, weighted_sum

__all__ = [
    "add_in_order",
    "attention",
    "cross_entropy",
    "discriminator_loss",
    "factor",
    "generator_loss",
    "kl_divergence",
    "l1",
    "l2",
    "weighted_sum",
]
