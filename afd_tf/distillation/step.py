"""The training step: E1, then E2, then E3 (docs/equations.md)."""

import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from afd_tf.devices.multi_worker import examples_everywhere
from afd_tf.distillation.gradient_ratio import gradient_ratios
from afd_tf.distillation.memory import bound_backlog
from afd_tf.distillation.objectives import Batch, Objectives
from afd_tf.distillation.phases import Phase
from afd_tf.distillation.placebo import noise_like


@dataclasses.dataclass(frozen=True)
class Phases:
    """The three updates of a step; None where the method has no such update."""

    logit: Phase
    feature: Phase | None
    discriminator: Phase | None

    def __iter__(self):
        return (p for p in (self.logit, self.feature, self.discriminator) if p)


class Now(NamedTuple):
    """What of a step depends on how many there were before.

    Attributes:
        step: int scalar tensor, steps before this one.
        ratio_due: bool scalar tensor, whether to compute the gradient ratio.
        exchange_due: likewise, whether to make the E2 and E3 updates; not looked at
            where `feature_every` is 1.
    """

    step: tf.Tensor
    ratio_due: tf.Tensor
    exchange_due: tf.Tensor


class _Pass(NamedTuple):
    """A forward pass of all networks that can be differentiated.

    Attributes:
        tape: GradientTape that recorded it.
        logits: list of float32 tensors `(batch, classes)`, the gate's last.
        maps: list of feature maps, those of a frozen source last.
        messages: what the feature-map-based loss is a function of; [] if unused.
    """

    tape: tf.GradientTape
    logits: list
    maps: list
    messages: list


class _Gradients(NamedTuple):
    """E1's gradients, and the factor by which loss scaling has multiplied them."""

    values: list
    scale: tf.Tensor


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One update of all networks on one (replica's) batch.

    Attributes:
        objectives: what is minimised.
        phases: the updates.
        fresh: whether maps are computed again after the logit update.
        feature_every: steps from one E2 and E3 update to the next.
        placebo_seed: keras SeedGenerator of the noise that replaces the gradients of
            the feature-map-based loss, or None.
    """

    objectives: Objectives
    phases: Phases
    fresh: bool
    feature_every: int
    placebo_seed: keras.random.SeedGenerator | None

    def __call__(self, images, labels, weight, now):
        """Update everything once.

        Args:
            images: float tensor `(batch, height, width, channels)`.
            labels: int tensor `(batch,)` or float tensor `(batch, classes)`.
            weight: float tensor `(batch,)` or None.
            now: Now.

        Returns:
            List of float32 logits `(batch, classes)` per network, then those of their
            gate if there is one, and a dict from metric to `(total, count)`.
        """
        count = tf.cast(tf.shape(images)[0], tf.float32)
        batch = Batch(images, labels, weight, count, examples_everywhere(images))
        logit, source = self.phases.logit, self.objectives.wiring.source
        frozen_maps, frozen_logits = source.forward(images) if source else ([], [])
        exchanges = self.phases.feature is not None
        with tf.GradientTape(persistent=True) as tape:
            stale = exchanges and self.fresh
            passed = self._pass(tape, images, frozen_maps, with_messages=not stale)
            loss, values = self.objectives.logit(
                batch, passed.logits + frozen_logits, passed.messages, passed.maps
            )
            loss = logit.scale_loss(loss)
        # Before an update, which may change it.
        scale = logit.scale_loss(tf.constant(1.0))
        gradients = _Gradients(tape.gradient(loss, logit.variables), scale)
        if self.fresh or not exchanges:
            logit.apply(gradients.values)
        if not exchanges:
            return passed.logits, values

        def exchange():
            shown = self._fresh_pass(images, frozen_maps) if self.fresh else passed
            return self._exchange(shown, batch, gradients, now)

        def rest():
            if not self.fresh:
                logit.apply(gradients.values)
            zero = tf.constant(0.0)
            return dict.fromkeys(self._exchange_names(), (zero, zero))

        if self.feature_every == 1:
            values.update(exchange())
        else:
            values.update(tf.cond(now.exchange_due, exchange, rest))
        return passed.logits, values

    def _pass(self, tape, images, frozen_maps, with_messages=True):
        """Compute logits, maps and messages; within the tape's context."""
        wiring, feature = self.objectives.wiring, self.objectives.method.feature
        maps, messages = list(frozen_maps), []
        if wiring.branched:
            logits = wiring.branched.forward(images, training=True)
        else:
            passes = [tap.forward(images, training=True) for tap in wiring.taps]
            own, logits = zip(*passes, strict=True)
            maps = [*own, *maps]
            logits = [ops.cast(z, "float32") for z in logits]
        if feature and with_messages:
            messages = feature.messages(maps, wiring.transfers, wiring.sources)
        return _Pass(tape, logits, maps, messages)

    def _fresh_pass(self, images, frozen_maps):
        # StatelessScope: BN statistics move in the first pass only.
        with tf.GradientTape() as tape, keras.StatelessScope():
            return self._pass(tape, images, frozen_maps)

    def _exchange(self, passed, batch, logit_gradients, now):
        """Make the E2 and E3 updates, and E1's if that has waited; return metrics."""
        phases, values = self.phases, {}
        if phases.discriminator:
            values.update(self._judge(batch, passed.messages))
        gradients, found = self._feature_gradients(batch, passed)
        values.update(found)
        values.update(self._gradient_ratios(logit_gradients, gradients, now.ratio_due))
        if self.placebo_seed is not None:
            seed = self.placebo_seed.state.value
            gradients = noise_like(gradients, seed, tf.cast(now.step, tf.int32))
        if not self.fresh:
            bound_backlog()
            phases.logit.apply(logit_gradients.values)
        phases.feature.apply(gradients)
        return values

    def _judge(self, batch, messages):
        """Make the E2 update; return metrics."""
        phase = self.phases.discriminator
        with tf.GradientTape() as tape:
            loss, values = self.objectives.discriminator(batch, messages)
            loss = phase.scale_loss(loss)
        phase.apply(tape.gradient(loss, phase.variables))
        return values

    def _feature_gradients(self, batch, passed):
        """Differentiate E3: by the messages, then these by the variables.

        Returns:
            List of gradients, and a dict of metrics.
        """
        phase = self.phases.feature
        shown = [tf.stop_gradient(m) for m in passed.messages]
        constants = [tf.stop_gradient(m) for m in passed.maps]
        with (
            tf.GradientTape(watch_accessed_variables=False) as tape,
            keras.StatelessScope(),
        ):
            tape.watch(shown)
            loss, values = self.objectives.feature(batch, shown, constants)
            loss = phase.scale_loss(loss)
        gradients = passed.tape.gradient(
            passed.messages,
            phase.variables,
            # What is but a target has no gradient; None would stand for ones.
            output_gradients=tape.gradient(
                loss, shown, unconnected_gradients=tf.UnconnectedGradients.ZERO
            ),
        )
        return gradients, values

    def _gradient_ratios(self, logit_gradients, feature_gradients, due):
        feature = self.phases.feature
        ratios, counted = gradient_ratios(
            self.objectives.wiring.taps,
            (self.phases.logit.variables, logit_gradients.values),
            (feature.variables, feature_gradients),
            logit_gradients.scale / feature.scale_loss(tf.constant(1.0)),
            due,
        )
        names = self._ratio_names()
        return {n: (ratios[k], counted[k]) for k, n in enumerate(names)}

    def _ratio_names(self):
        return [f"{name}_gradient_ratio" for name in self.objectives.names]

    def _exchange_names(self):
        return [*self.objectives.exchange_names(), *self._ratio_names()]
