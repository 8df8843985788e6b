"""The training step: E1, then E2, then E3 (docs/equations.md)."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf
from keras import ops

from afd_tf import losses
from afd_tf.backlog import bound_backlog
from afd_tf.gradient_ratio import gradient_ratios
from afd_tf.methods import Method
from afd_tf.multi_worker import examples_everywhere
from afd_tf.optimization import Phase
from afd_tf.placebo import noise_like
from afd_tf.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class Phases:
    """The three updates of a step; None where the method has no such update."""

    logit: Phase
    feature: Phase | None
    discriminator: Phase | None

    def __iter__(self):
        return (p for p in (self.logit, self.feature, self.discriminator) if p)


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One update of all networks on one (replica's) batch.

    Losses are sums over the examples of the batch times their weights, divided by the
    number of examples of the global batch: optimizers sum gradients over replicas.

    Attributes:
        names: names of the networks.
        method: which losses there are.
        wiring: taps, sources and transfer layers.
        discriminators: list of keras models, one per network or none.
        phases: the updates.
        classification_loss: function `(labels, logits) -> (batch,)`, nats per example.
        temperature: T of E1.
        kl_weight: factor on E1's KL term.
        feature_weight: factor on the feature-map-based loss.
        fresh: whether maps are computed again after the logit update.
        feature_every: steps from one E2 and E3 update to the next.
        placebo_seed: keras SeedGenerator of the noise that replaces the gradients of
            the feature-map-based loss, or None.
    """

    names: tuple[str, ...]
    method: Method
    wiring: Wiring
    discriminators: list
    phases: Phases
    classification_loss: Callable
    temperature: float
    kl_weight: float
    feature_weight: float
    fresh: bool
    feature_every: int
    placebo_seed: keras.random.SeedGenerator | None

    def __call__(self, images, labels, weight, ratio_due, exchange_due):
        """Update everything once.

        Args:
            images: float tensor `(batch, height, width, channels)`.
            labels: int tensor `(batch,)` or float tensor `(batch, classes)`.
            weight: float tensor `(batch,)` or None.
            ratio_due: bool scalar tensor, whether to compute the gradient ratio.
            exchange_due: likewise, whether to make the E2 and E3 updates; not looked
                at where `feature_every` is 1.

        Returns:
            List of float32 logits `(batch, classes)` per network, then those of their
            gate if there is one, and a dict from metric to `(total, count)`.
        """
        count = tf.cast(tf.shape(images)[0], tf.float32)
        everywhere = examples_everywhere(images)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        values = {}

        def objective(phase, totals, regularisation=()):
            mean = tf.add_n(totals) / everywhere
            extra = [tf.cast(r, tf.float32) / replicas for r in regularisation]
            return phase.scale_loss(tf.add_n([mean, *extra]))

        phases, feature = self.phases, self.method.feature
        source = self.wiring.source
        frozen_maps, frozen_logits = source.forward(images) if source else ([], [])
        with tf.GradientTape(persistent=True) as tape:
            maps, logits = self._forward(images)
            maps = maps + frozen_maps
            known = logits + frozen_logits
            totals = self._logit_losses(labels, known, weight, values, count)
            messages = self._messages(maps)
            if feature and feature.joins_logit_loss:
                extra = self._feature_losses(messages, maps, weight, values, count)
                totals = [e1 + e for e1, e in zip(totals, extra, strict=True)]
            own = self._network_regularisation()
            for name, total, extra in zip(self._heads(), totals, own, strict=True):
                values[f"{name}_loss"] = (total + extra * count, count)
            logit_loss = objective(phases.logit, totals, own)
        # Before an update, which may change it.
        logit_scale = phases.logit.scale_loss(tf.constant(1.0))
        gradients = tape.gradient(logit_loss, phases.logit.variables)
        if phases.feature is None:
            phases.logit.apply(gradients)
            return logits, values

        if self.fresh:
            phases.logit.apply(gradients)

        def exchange():
            found, passed = {}, (tape, maps, messages)
            if self.fresh:
                passed = self._fresh_pass(images, frozen_maps)
            if self.method.adversarial:
                with tf.GradientTape() as judge_tape:
                    shown = passed[-1]
                    totals = self._discriminator_losses(shown, weight, found, count)
                    own = [self._regularisation(d) for d in self.discriminators]
                    loss = objective(phases.discriminator, totals, own)
                variables = phases.discriminator.variables
                phases.discriminator.apply(judge_tape.gradient(loss, variables))

            def feature_loss(shown, constants):
                totals = self._feature_losses(shown, constants, weight, found, count)
                return objective(phases.feature, totals)

            feature_gradients = self._feature_gradients(*passed, feature_loss)
            found.update(
                self._gradient_ratios(
                    gradients, feature_gradients, logit_scale, ratio_due
                )
            )
            if self.placebo_seed is not None:
                step = phases.logit.inner_optimizer._iterations.value
                feature_gradients = noise_like(
                    feature_gradients, self.placebo_seed.state.value, step
                )
            if not self.fresh:
                bound_backlog()
                phases.logit.apply(gradients)
            phases.feature.apply(feature_gradients)
            return found

        def rest():
            if not self.fresh:
                phases.logit.apply(gradients)
            zero = tf.constant(0.0)
            return dict.fromkeys(self._exchange_names(), (zero, zero))

        if self.feature_every == 1:
            values.update(exchange())
        else:
            values.update(tf.cond(exchange_due, exchange, rest))
        return logits, values

    def _heads(self):
        """Names of what has a loss on labels: networks, and their gate if any."""
        return [*self.names, "ensemble"] if self.wiring.branched else self.names

    def _fresh_pass(self, images, frozen_maps):
        # StatelessScope: BN statistics move in the first pass only.
        with tf.GradientTape() as tape, keras.StatelessScope():
            maps, _ = self._forward(images)
            maps = maps + frozen_maps
            messages = self._messages(maps)
        return tape, maps, messages

    def _feature_gradients(self, tape, maps, messages, feature_loss):
        """Differentiate a loss of constants, then the messages that they stand for."""
        shown = [tf.stop_gradient(m) for m in messages]
        with (
            tf.GradientTape(watch_accessed_variables=False) as map_tape,
            keras.StatelessScope(),
        ):
            map_tape.watch(shown)
            loss = feature_loss(shown, [tf.stop_gradient(m) for m in maps])
        return tape.gradient(
            messages,
            self.phases.feature.variables,
            # What is but a target has no gradient; None would stand for ones.
            output_gradients=map_tape.gradient(
                loss, shown, unconnected_gradients=tf.UnconnectedGradients.ZERO
            ),
        )

    def _exchange_names(self):
        """Names of the values that an exchange of knowledge between maps leaves."""
        names = ["feature_loss", "gradient_ratio"]
        if self.method.adversarial:
            names += [f"discriminator_{w}" for w in ("loss", "real", "own", "accuracy")]
        return [f"{network}_{name}" for network in self.names for name in names]

    def _forward(self, images):
        if self.wiring.branched:
            return [], self.wiring.branched.forward(images, training=True)
        passes = [tap.forward(images, training=True) for tap in self.wiring.taps]
        maps, logits = zip(*passes, strict=True)
        return list(maps), [ops.cast(z, "float32") for z in logits]

    def _messages(self, maps):
        if self.method.feature is None:
            return []
        wiring = self.wiring
        return self.method.feature.messages(maps, wiring.transfers, wiring.sources)

    def _logit_losses(self, labels, logits, weight, values, count):
        """E1 per network, summed over the batch; then the gate's cross-entropy."""
        totals = []
        for k, name in enumerate(self.names):
            own = self.classification_loss(labels, logits[k])
            total = losses.weighted_sum(own, weight)
            if self.method.kl or self.method.feature:
                values[f"{name}_cross_entropy"] = (total, count)
            if self.method.kl:
                per_source = [
                    losses.kl_divergence(logits[j], logits[k], self.temperature)
                    for j in self.wiring.kl_sources[k]
                ]
                mean = tf.add_n(per_source) / len(per_source)
                kl = losses.weighted_sum(mean, weight)
                values[f"{name}_kl"] = (kl, count)
                total = total + self.kl_weight * kl
            totals.append(total)
        if self.wiring.branched:
            gated = self.classification_loss(labels, logits[-1])
            totals.append(losses.weighted_sum(gated, weight))
        return totals

    def _feature_losses(self, messages, maps, weight, values, count):
        """E3 or the alignment loss per network, weighted and summed over the batch."""
        per_network = self.method.feature.losses(
            messages, maps, self.wiring.sources, self.discriminators
        )
        totals = [losses.weighted_sum(loss, weight) for loss in per_network]
        for name, total in zip(self.names, totals, strict=True):
            values[f"{name}_feature_loss"] = (total, count)
        return [self.feature_weight * total for total in totals]

    def _discriminator_losses(self, messages, weight, values, count):
        """E2 per network, summed over the batch; means over a network's sources."""
        verdicts = self.method.feature.judge(
            messages, self.wiring.sources, self.discriminators
        )
        totals = []
        for name, (real, own) in zip(self.names, verdicts, strict=True):
            pairs = list(zip(real, own, strict=True))
            share = 1.0 / len(pairs)
            per_pair = [losses.discriminator_loss(r, o) for r, o in pairs]
            total = losses.weighted_sum(tf.add_n(per_pair) * share, weight)
            totals.append(total)
            real_sum = share * tf.add_n([tf.reduce_sum(r) for r, _ in pairs])
            own_sum = share * tf.add_n([tf.reduce_sum(o) for _, o in pairs])
            right = [_count(r > 0.5) + _count(o < 0.5) for r, o in pairs]
            values[f"{name}_discriminator_loss"] = (total, count)
            values[f"{name}_discriminator_real"] = (real_sum, count)
            values[f"{name}_discriminator_own"] = (own_sum, count)
            values[f"{name}_discriminator_accuracy"] = (
                share * tf.add_n(right),
                2.0 * count,
            )
        return totals

    def _network_regularisation(self):
        """Regularisation of each of `_heads`; a shared trunk's counts once."""
        if self.wiring.branched:
            none = [tf.constant(0.0)] * len(self.names)
            return [*none, self._regularisation(self.wiring.branched.joint)]
        return [self._regularisation(tap.network) for tap in self.wiring.taps]

    def _regularisation(self, model):
        """Sum of a model's own regularisation losses (`model.losses`)."""
        terms = [tf.cast(loss, tf.float32) for loss in model.losses]
        return tf.add_n(terms) if terms else tf.constant(0.0)

    def _gradient_ratios(self, gradients, feature_gradients, logit_scale, due):
        feature = self.phases.feature
        ratios, counted = gradient_ratios(
            self.wiring.taps,
            (self.phases.logit.variables, gradients),
            (feature.variables, feature_gradients),
            logit_scale / feature.scale_loss(tf.constant(1.0)),
            due,
        )
        return {
            f"{name}_gradient_ratio": (ratios[k], counted[k])
            for k, name in enumerate(self.names)
        }


def _count(condition):
    return tf.reduce_sum(tf.cast(condition, tf.float32))
