"""Objectives of the updates E1, E2 and E3 on a batch (docs/equations.md)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from afd_tf import losses
from afd_tf.distillation.exchange import Exchange, model_regularisation
from afd_tf.errors import number


class Batch(NamedTuple):
    """A replica's part of a batch.

    Attributes:
        images: float tensor `(batch, height, width, channels)`.
        labels: int tensor `(batch,)` or float tensor `(batch, classes)`.
        weight: float tensor `(batch,)` or None.
        count: float scalar tensor, its examples.
        global_count: float scalar tensor, those of all replicas.
    """

    images: tf.Tensor
    labels: tf.Tensor
    weight: tf.Tensor | None
    count: tf.Tensor
    global_count: tf.Tensor

    def mean(self, totals, regularisation=()):
        """Return a replica's share of the mean loss over the global batch.

        Args:
            totals: list of float scalars, sums over the replica's examples.
            regularisation: list of float scalars, the same on every replica.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        extra = [tf.cast(r, tf.float32) / replicas for r in regularisation]
        mean = losses.add_in_order(totals) / self.global_count
        return losses.add_in_order([mean, *extra])


class LossWeights(NamedTuple):
    """Variables that the losses read at every step, float32 scalars.

    Attributes:
        temperature: T of E1.
        kl: factor on E1's KL term.
        feature: factor on the feature-map-based loss.
    """

    temperature: keras.Variable
    kl: keras.Variable
    feature: keras.Variable


class LossWeight:
    """An attribute of a distiller: one of its `LossWeights`.

    Reading gives the variable, assigning a number checks and sets it.

    Args:
        field: str, of `LossWeights`.
        positive: bool, whether it must not be 0.
    """

    def __init__(self, field, positive=False):
        self._field = field
        self._positive = positive

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, model, owner=None):
        return self if model is None else getattr(model._loss_weights, self._field)

    def __set__(self, model, value):
        value = number(self._name, value, positive=self._positive)
        getattr(model._loss_weights, self._field).assign(value)


@dataclasses.dataclass(frozen=True)
class Objectives:
    """The losses of all networks on one (replica's) batch.

    Each method returns a scalar and a dict from metric to `(total, count)`. Losses are
    sums over the examples of the batch times their weights, divided by the number of
    examples of the global batch: optimizers sum gradients over replicas.

    Attributes:
        exchange: Exchange.
        classification_loss: function `(labels, logits) -> (batch,)`, nats per example.
        weights: LossWeights.
    """

    exchange: Exchange
    classification_loss: Callable
    weights: LossWeights

    def logit(self, batch, logits, transferred, maps):
        """E1 of all networks and their gate, with what joins it."""
        exchange = self.exchange
        totals, values = self._logit_totals(batch, logits)
        if exchange.method.feature and exchange.method.feature.joins_logit_loss:
            # Constants, as in an update of its own; the tape has seen their networks.
            maps = [tf.stop_gradient(m) for m in maps]
            extra, extra_values = self._feature_totals(batch, transferred, maps)
            totals = [e1 + e for e1, e in zip(totals, extra, strict=True)]
            values.update(extra_values)
        regularisation = exchange.regularisation()
        heads = [*exchange.names, "ensemble"] if exchange.branched else exchange.names
        for name, total, extra in zip(heads, totals, regularisation, strict=True):
            values[f"{name}_loss"] = (total + extra * batch.count, batch.count)
        return batch.mean(totals, regularisation), values

    def discriminator(self, batch, transferred):
        """E2 of all networks; a mean over a network's peers."""
        exchange = self.exchange
        outputs = exchange.method.feature.discriminate(
            transferred, exchange.peers, exchange.discriminators
        )
        totals, values = [], {}
        for name, (real, own) in zip(exchange.names, outputs, strict=True):
            pairs = list(zip(real, own, strict=True))
            share = 1.0 / len(pairs)
            per_pair = [losses.discriminator_loss(r, o) for r, o in pairs]
            total = losses.weighted_sum(
                losses.add_in_order(per_pair) * share, batch.weight
            )
            totals.append(total)
            right = [_count(r > 0.5) + _count(o < 0.5) for r, o in pairs]
            measured = {
                "loss": total,
                "real": share
                * losses.add_in_order([tf.reduce_sum(r) for r, _ in pairs]),
                "own": share
                * losses.add_in_order([tf.reduce_sum(o) for _, o in pairs]),
                # Of two outputs per example, hence the half.
                "accuracy": 0.5 * share * losses.add_in_order(right),
            }
            for what, value in measured.items():
                values[f"{name}_discriminator_{what}"] = (value, batch.count)
        own = [model_regularisation(d) for d in exchange.discriminators]
        return batch.mean(totals, own), values

    def feature(self, batch, transferred, maps):
        """E3, or the alignment loss, of all networks."""
        totals, values = self._feature_totals(batch, transferred, maps)
        return batch.mean(totals), values

    def _logit_totals(self, batch, logits):
        exchange, method = self.exchange, self.exchange.method
        totals, values = [], {}
        for k, name in enumerate(exchange.names):
            own = self.classification_loss(batch.labels, logits[k])
            total = losses.weighted_sum(own, batch.weight)
            if method.kl or method.feature:
                values[f"{name}_cross_entropy"] = (total, batch.count)
            if method.kl:
                temperature = self.weights.temperature.value
                per_peer = [
                    losses.kl_divergence(logits[j], logits[k], temperature)
                    for j in exchange.kl_peers[k]
                ]
                mean = losses.add_in_order(per_peer) / len(per_peer)
                kl = losses.weighted_sum(mean, batch.weight)
                values[f"{name}_kl"] = (kl, batch.count)
                total = total + self.weights.kl.value * kl
            totals.append(total)
        if exchange.branched:
            gated = self.classification_loss(batch.labels, logits[-1])
            totals.append(losses.weighted_sum(gated, batch.weight))
        return totals, values

    def _feature_totals(self, batch, transferred, maps):
        exchange = self.exchange
        per_network = exchange.method.feature.losses(
            transferred, maps, exchange.peers, exchange.discriminators
        )
        totals = [losses.weighted_sum(loss, batch.weight) for loss in per_network]
        values = {
            f"{name}_feature_loss": (total, batch.count)
            for name, total in zip(exchange.names, totals, strict=True)
        }
        return [self.weights.feature.value * total for total in totals], values


def _count(condition):
    return tf.reduce_sum(tf.cast(condition, tf.float32))
