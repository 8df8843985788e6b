"""Methods without a feature-map-based loss."""

from afd_tf.methods.method import register

register(
    "vanilla",
    "cross-entropy only: each network learns alone",
    frozen_source="refused",
)
register(
    "dml",
    "E1 only: cross-entropy and KL to the other networks (DML)",
    kl=True,
    frozen_source="refused",
)
register(
    "kd",
    "E1 with a frozen source's probabilities (Hinton's distillation)",
    kl=True,
    frozen_source="required",
)
register(
    "one",
    "branches of one network learn from their gated ensemble (ONE)",
    kl=True,
    frozen_source="refused",
    branches=3,
)
