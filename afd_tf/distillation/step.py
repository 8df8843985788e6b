"""The training step: E1, then E2, then E3 (docs/equations.md)."""

import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from afd_tf.distillation.memory import order_weight_gradients
from afd_tf.distillation.objectives import Objectives
from afd_tf.distillation.phases import Phase


@dataclasses.dataclass(frozen=True)
class Phases:
    """The three updates of a step; None where the method has no such update."""

    logit: Phase
    feature: Phase | None
    discriminator: Phase | None

    def __iter__(self):
        return (p for p in (self.logit, self.feature, self.discriminator) if p)


class _Pass(NamedTuple):
    """A forward pass of all networks that can be differentiated.

    Attributes:
        tape: GradientTape that recorded it.
        logits: list of float32 tensors `(batch, classes)`, the gate's last.
        maps: list of feature maps, those of a frozen source last.
        transferred: what the feature-map-based loss is a function of; [] if unused.
    """

    tape: tf.GradientTape
    logits: list
    maps: list
    transferred: list


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One update of all networks on one (replica's) batch.

    Attributes:
        objectives: what is minimised.
        phases: the updates.
        fresh: whether maps are computed again after the logit update.
        placebo: keras SeedGenerator of the noise that replaces the gradients of the
            feature-map-based loss, or None.
    """

    objectives: Objectives
    phases: Phases
    fresh: bool
    placebo: keras.random.SeedGenerator | None

    def update(self, batch, step, ratio_due):
        """Update everything once.

        Args:
            batch: Batch.
            step: int scalar tensor, steps before this one.
            ratio_due: bool scalar tensor, whether to compute the gradient ratio.

        Returns:
            List of float32 logits `(batch, classes)` per network, then those of their
            gate if there is one, and a dict from metric to `(total, count)`.
        """
        logit, feature = self.phases.logit, self.phases.feature
        source = self.objectives.exchange.source
        source_maps, source_logits = (
            source.forward(batch.images) if source else ([], [])
        )
        with tf.GradientTape(persistent=True) as tape:
            once = not (feature and self.fresh)
            forward = self._forward(tape, batch.images, source_maps, transfer=once)
            e1, values = self.objectives.logit(
                batch, forward.logits + source_logits, forward.transferred, forward.maps
            )
            e1 = logit.scale_loss(e1)
        # Before an update, which may change it.
        scale = logit.scale_loss(tf.constant(1.0))
        logit_gradients = tape.gradient(e1, logit.variables)
        if feature is None:
            logit.apply(logit_gradients)
            return forward.logits, values
        logits = forward.logits
        if self.fresh:
            logit.apply(logit_gradients)
            forward = self._fresh_forward(batch.images, source_maps)
        if self.phases.discriminator:
            values.update(self._update_discriminators(batch, forward))
        gradients, feature_values = self._feature_gradients(batch, forward)
        values.update(feature_values)
        scale /= feature.scale_loss(tf.constant(1.0))
        ratios = (logit_gradients, gradients, scale, ratio_due)
        values.update(self._gradient_ratios(*ratios))
        if self.placebo is not None:
            gradients = noise_like(gradients, self.placebo.state.value, step)
        if not self.fresh:
            order_weight_gradients()
            logit.apply(logit_gradients)
        feature.apply(gradients)
        return logits, values

    def _forward(self, tape, images, source_maps, transfer=True):
        """Compute logits, maps and transferred maps; within the tape's context."""
        exchange, feature = (
            self.objectives.exchange,
            self.objectives.exchange.method.feature,
        )
        maps, logits = exchange.forward(images, training=True)
        maps = [*maps, *source_maps]
        logits = [ops.cast(z, "float32") for z in logits]
        transferred = []
        if feature and transfer:
            transferred = feature.transfer(maps, exchange.transfers, exchange.peers)
        return _Pass(tape, logits, maps, transferred)

    def _fresh_forward(self, images, source_maps):
        # StatelessScope: BN statistics move in the first pass only.
        with tf.GradientTape() as tape, keras.StatelessScope():
            return self._forward(tape, images, source_maps)

    def _update_discriminators(self, batch, forward):
        """Make the E2 update; return metrics."""
        phase = self.phases.discriminator
        with tf.GradientTape() as tape:
            e2, values = self.objectives.discriminator(batch, forward.transferred)
            e2 = phase.scale_loss(e2)
        phase.apply(tape.gradient(e2, phase.variables))
        return values

    def _feature_gradients(self, batch, forward):
        """Differentiate E3: by the transferred maps, then these by the variables.

        Returns:
            List of gradients, and a dict of metrics.
        """
        phase = self.phases.feature
        transferred = [tf.stop_gradient(m) for m in forward.transferred]
        maps = [tf.stop_gradient(m) for m in forward.maps]
        with (
            tf.GradientTape(watch_accessed_variables=False) as tape,
            keras.StatelessScope(),
        ):
            tape.watch(transferred)
            e3, values = self.objectives.feature(batch, transferred, maps)
            e3 = phase.scale_loss(e3)
        gradients = forward.tape.gradient(
            forward.transferred,
            phase.variables,
            # What is but a target has no gradient; None would stand for ones.
            output_gradients=tape.gradient(
                e3, transferred, unconnected_gradients=tf.UnconnectedGradients.ZERO
            ),
        )
        return gradients, values

    def _gradient_ratios(self, logit_gradients, feature_gradients, scale, due):
        exchange = self.objectives.exchange
        ratios, counts = gradient_ratios(
            exchange.taps,
            (self.phases.logit.variables, logit_gradients),
            (self.phases.feature.variables, feature_gradients),
            scale,
            due,
        )
        return {
            f"{name}_gradient_ratio": (ratios[k], counts[k])
            for k, name in enumerate(exchange.names)
        }


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


def noise_like(gradients, seed, step):
    """Return Gaussian noise of each gradient's norm: the placebo.

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
    seed = tf.cast(seed, tf.int64)
    seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(step, tf.int32))
    drawn = []
    for i, gradient in enumerate(present):
        own = tf.random.experimental.stateless_fold_in(seed, i)
        noise = tf.random.stateless_normal(tf.shape(gradient), own)
        norm = tf.norm(tf.cast(gradient, tf.float32))
        noise *= tf.math.divide_no_nan(norm, tf.norm(noise)) / replicas
        drawn.append(tf.cast(noise, gradient.dtype))
    remaining = iter(drawn)
    return [None if g is None else next(remaining) for g in gradients]


def _by_variable(variables, gradients):
    return {
        id(v): None if g is None else tf.cast(g, tf.float32)
        for v, g in zip(variables, gradients, strict=True)
    }
