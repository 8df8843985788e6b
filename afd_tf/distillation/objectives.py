"""What the updates of a step minimise: E1, E2 and E3 (docs/equations.md)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from afd_tf import losses
from afd_tf.distillation.exchange import Wiring
from afd_tf.methods import Method


class Batch(NamedTuple):
    """A replica's part of a batch.

    Attributes:
        images: float tensor `(batch, height, width, channels)`.
        labels: int tensor `(batch,)` or float tensor `(batch, classes)`.
        weight: float tensor `(batch,)` or None.
        count: float scalar tensor, its examples.
        everywhere: float scalar tensor, those of all replicas.
    """

    images: tf.Tensor
    labels: tf.Tensor
    weight: tf.Tensor | None
    count: tf.Tensor
    everywhere: tf.Tensor

    def objective(self, totals, regularisation=()):
        """Return a replica's share of the mean loss over the global batch.

        Args:
            totals: list of float scalars, sums over the replica's examples.
            regularisation: list of float scalars, the same on every replica.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        extra = [tf.cast(r, tf.float32) / replicas for r in regularisation]
        mean = losses.add_in_order(totals) / self.everywhere
        return losses.add_in_order([mean, *extra])


@dataclasses.dataclass(frozen=True)
class Objectives:
    """The losses of all networks on one (replica's) batch.

    Each method returns a list of scalars, or a scalar, and a dict from metric to
    `(total, count)`. Losses are sums over the examples of the batch times their
    weights, divided by the number of examples of the global batch: optimizers sum
    gradients over replicas.

    Attributes:
        names: names of the networks.
        method: which losses there are.
        wiring: taps, sources and transfer layers.
        discriminators: list of keras models, one per network or none.
        classification_loss: function `(labels, logits) -> (batch,)`, nats per example.
        temperature: T of E1.
        kl_weight: factor on E1's KL term.
        feature_weight: factor on the feature-map-based loss.
    """

    names: tuple[str, ...]
    method: Method
    wiring: Wiring
    discriminators: list
    classification_loss: Callable
    temperature: float
    kl_weight: float
    feature_weight: float

    def logit(self, batch, logits, messages, maps):
        """E1 of all networks and their gate, with what joins it."""
        totals, values = self._logit_totals(batch, logits)
        feature = self.method.feature
        if feature and feature.joins_logit_loss:
            extra, found = self._feature_totals(batch, messages, maps)
            totals = [e1 + e for e1, e in zip(totals, extra, strict=True)]
            values.update(found)
        own = self._network_regularisation()
        heads = [*self.names, "ensemble"] if self.wiring.branched else self.names
        for name, total, extra in zip(heads, totals, own, strict=True):
            values[f"{name}_loss"] = (total + extra * batch.count, batch.count)
        return batch.objective(totals, own), values

    def feature(self, batch, messages, maps):
        """E3, or the alignment loss, of all networks."""
        totals, values = self._feature_totals(batch, messages, maps)
        return batch.objective(totals), values

    def discriminator(self, batch, messages):
        """E2 of all networks; a mean over a network's sources."""
        verdicts = self.method.feature.judge(
            messages, self.wiring.sources, self.discriminators
        )
        totals, values = [], {}
        for name, (real, own) in zip(self.names, verdicts, strict=True):
            pairs = list(zip(real, own, strict=True))
            share = 1.0 / len(pairs)
            per_pair = [losses.discriminator_loss(r, o) for r, o in pairs]
            total = losses.weighted_sum(
                losses.add_in_order(per_pair) * share, batch.weight
            )
            totals.append(total)
            right = [_count(r > 0.5) + _count(o < 0.5) for r, o in pairs]
            found = {
                "loss": total,
                "real": share
                * losses.add_in_order([tf.reduce_sum(r) for r, _ in pairs]),
                "own": share
                * losses.add_in_order([tf.reduce_sum(o) for _, o in pairs]),
                # Of two verdicts per example, hence the half.
                "accuracy": 0.5 * share * losses.add_in_order(right),
            }
            for what, value in found.items():
                values[f"{name}_discriminator_{what}"] = (value, batch.count)
        own = [regularisation(d) for d in self.discriminators]
        return batch.objective(totals, own), values

    def exchange_names(self):
        """Names of the metrics that `feature` and `discriminator` return."""
        names = ["feature_loss"]
        if self.method.adversarial:
            names += [f"discriminator_{w}" for w in ("loss", "real", "own", "accuracy")]
        return [f"{network}_{name}" for network in self.names for name in names]

    def _logit_totals(self, batch, logits):
        totals, values = [], {}
        for k, name in enumerate(self.names):
            own = self.classification_loss(batch.labels, logits[k])
            total = losses.weighted_sum(own, batch.weight)
            if self.method.kl or self.method.feature:
                values[f"{name}_cross_entropy"] = (total, batch.count)
            if self.method.kl:
                per_source = [
                    losses.kl_divergence(logits[j], logits[k], self.temperature)
                    for j in self.wiring.kl_sources[k]
                ]
                mean = losses.add_in_order(per_source) / len(per_source)
                kl = losses.weighted_sum(mean, batch.weight)
                values[f"{name}_kl"] = (kl, batch.count)
                total = total + self.kl_weight * kl
            totals.append(total)
        if self.wiring.branched:
            gated = self.classification_loss(batch.labels, logits[-1])
            totals.append(losses.weighted_sum(gated, batch.weight))
        return totals, values

    def _feature_totals(self, batch, messages, maps):
        per_network = self.method.feature.losses(
            messages, maps, self.wiring.sources, self.discriminators
        )
        totals = [losses.weighted_sum(loss, batch.weight) for loss in per_network]
        values = {
            f"{name}_feature_loss": (total, batch.count)
            for name, total in zip(self.names, totals, strict=True)
        }
        return [self.feature_weight * total for total in totals], values

    def _network_regularisation(self):
        """Of each network, and of the gate; a shared trunk's counts once."""
        if self.wiring.branched:
            none = [tf.constant(0.0)] * len(self.names)
            return [*none, regularisation(self.wiring.branched.joint)]
        return [regularisation(tap.network) for tap in self.wiring.taps]


def regularisation(model):
    """Sum a model's own regularisation losses (`model.losses`): a float32 scalar."""
    terms = [tf.cast(loss, tf.float32) for loss in model.losses]
    return losses.add_in_order(terms) if terms else tf.constant(0.0)


def _count(condition):
    return tf.reduce_sum(tf.cast(condition, tf.float32))
