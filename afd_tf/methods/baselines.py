"""Methods without a feature-map-based loss."""

from afd_tf.methods.method import register

register("vanilla", "cross-entropy only: each network learns alone")
register("dml", "E1 only: cross-entropy and KL to the sources (DML)", kl=True)
