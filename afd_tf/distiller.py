"""The model that trains several networks together."""

import contextlib
import functools

import keras
from keras import ops

from afd_tf import methods
from afd_tf.devices.model import DistributedModel
from afd_tf.distillation import evaluation, inputs, optimizers
from afd_tf.distillation.callbacks import TrainingLength, check_rates, with_own
from afd_tf.distillation.compile_options import (
    CompileOptions,
    build_step,
    check_variables,
    classification_loss,
)
from afd_tf.distillation.exchange import build_exchange
from afd_tf.distillation.metrics import Meters
from afd_tf.distillation.objectives import LossWeight, LossWeights, Objectives
from afd_tf.distillation.phases import check_unchanged
from afd_tf.distillation.pretraining import (
    nothing_to_pretrain,
    pretrain,
    pretraining_missing,
)
from afd_tf.distillation.summary import summarize
from afd_tf.errors import choice
from afd_tf.networks.tap import tap as tap_network


@keras.saving.register_keras_serializable(package="afd_tf")
class OnlineDistiller(DistributedModel):
    """Train image classifiers together so that each learns from the others.

    One step makes the logit-based update of all networks (E1), then updates all
    discriminators (E2), then all feature extractors and transfer layers through the
    updated discriminators (E3).

    Args:
        networks: list of at least two Functional or Sequential classifiers that end in
            logits `(batch, classes)`, of one input shape and one class count, without
            shared layers. One is enough with a `source`; method "one" takes one and
            makes branches of it.
        method: str (see `afd_tf.methods.names()`) or `afd_tf.methods.Method`. Default
            "afd".
        topology: "cycle" (network k learns from network k-1) or "all_pairs";
            "from_source" with a `source`. Default None: "cycle", or "from_source".
        source: keras.Model, a classifier that is trained already: every network learns
            from it alone. It computes in inference mode, never changes and is no part
            of metrics and ensemble; its `trainable` becomes False. Default None.
        tap: name of the layer whose output is the feature map; one name for all
            networks or a list with a name or None for each, the source last. Default
            None: the last map before the head.
        names: list of str, what to call the networks. Default: their own names, with
            `_2`, `_3`, ... where one occurs again.
        temperature: float > 0, T of E1. Default 3.
        kl_weight: float >= 0, factor on the KL term of E1. Default 1.
        feature_weight: float >= 0, factor on the feature-map-based loss. Default 1.
        kl_topology: topology of the KL term alone. Default None: `topology`.
        forward: "shared" (default): both losses come from one forward pass, as in the
            paper; E1 and E3 are differentiated at the weights before the logit update.
            "fresh": maps are computed again after the logit update.
        ensemble: "probabilities" (default: mean of softmax outputs) or "logits"
            (softmax of the mean of logits). Method "one": always that of its gate.
        checkpointing: False (default), True, or an int >= 2, how many segments a
            network is cut into. Training keeps the maps between segments and computes
            the rest anew in both backward passes: less memory, more time.
        discriminators: list with a model per network that maps a transferred map to
            `(batch, 1)` in (0, 1). Default None: made by the method.
        transfers: list of layers, or None entries, in the form the method makes them.
            Default None: made by the method.
        name: str.

    Raises:
        ValueError: if the networks cannot learn from each other; the message says why.

    Example:
    ```python
    small = afd_tf.networks.resnet(20, num_classes=100)
    large = afd_tf.networks.wide_resnet(16, 2, num_classes=100)
    model = afd_tf.OnlineDistiller([small, large])
    model.compile()
    model.fit(train, validation_data=test, epochs=300)
    ```
    """

    # Variables that the step reads at every step; assign a number to change one.
    temperature = LossWeight("temperature", positive=True)
    kl_weight = LossWeight("kl")
    feature_weight = LossWeight("feature")

    _step = _meters = _options = None
    _evaluating = False

    def __init__(
        self,
        networks,
        method: str | methods.Method = "afd",
        topology=None,
        *,
        source=None,
        tap=None,
        names=None,
        temperature=3.0,
        kl_weight=1.0,
        feature_weight=1.0,
        kl_topology=None,
        forward="shared",
        ensemble="probabilities",
        checkpointing=False,
        discriminators=None,
        transfers=None,
        name="online_distiller",
        **kwargs,
    ):
        exchange = build_exchange(
            networks,
            methods.get(method),
            topology=topology,
            kl_topology=kl_topology,
            source=source,
            tap_layers=tap,
            names=names,
            checkpointing=checkpointing,
            transfers=transfers,
            discriminators=discriminators,
        )
        super().__init__(name=name, **kwargs)
        self._exchange = exchange
        self._layers_given = (transfers is not None, discriminators is not None)
        self.method = exchange.method
        self.topology = exchange.topology
        self.kl_topology = kl_topology
        self.forward = choice("forward", forward, ("shared", "fresh"))
        self.ensemble = choice("ensemble", ensemble, evaluation.ENSEMBLES)
        self.checkpointing = checkpointing
        self.network_names = list(exchange.names)
        self.num_classes = exchange.num_classes
        self.networks = list(exchange.networks)
        # Beside `networks`, whose trunk it shares: the gate is in it alone.
        self.branched = exchange.branched and exchange.branched.joint
        self.source = source
        self.transfers = [layer for layer in exchange.transfers if layer is not None]
        self.discriminators = list(exchange.discriminators)
        self._loss_weights = LossWeights(
            temperature=self._scalar("temperature", "float32"),
            kl=self._scalar("kl_weight", "float32"),
            feature=self._scalar("feature_weight", "float32"),
        )
        self.temperature = temperature
        self.kl_weight = kl_weight
        self.feature_weight = feature_weight
        # The schedules' length, the step at which it begins, and the steps so far.
        self.total_steps = self._scalar("total_steps", "int64")
        self.first_step = self._scalar("first_step", "int64")
        self.trained_steps = self._scalar("trained_steps", "int64")
        self.pretrained_steps = None
        if exchange.pretrained:
            self.pretrained_steps = self._scalar("pretrained_steps", "int64")
        self.built = True

    def _scalar(self, name, dtype):
        options = {"trainable": False, "aggregation": "only_first_replica"}
        return self.add_weight((), "zeros", dtype, name=name, **options)

    @functools.cached_property
    def taps(self):
        """The networks' taps, a tuple of `afd_tf.networks.Tapped`."""
        if self._exchange.taps:
            return self._exchange.taps
        # A method that needs no maps has none: made for whoever asks.
        pairs = zip(self.networks, self._exchange.tap_layers, strict=False)
        return tuple(tap_network(network, layer) for network, layer in pairs)

    @property
    def phases(self):
        """The compiled updates, or None before `compile`."""
        return self._step and self._step.phases

    @property
    def metric_specs(self):
        """What each metric is: dict of name to `MetricSpec`; {} before `compile`."""
        return {s.name: s for s in self._meters.specs} if self._meters else {}

    @property
    def metrics(self):
        return self._meters.metrics(self._evaluating) if self._meters else []

    def call(self, inputs, training=False):
        """Return class probabilities.

        Args:
            inputs: float tensor `(batch, height, width, channels)`.
            training: bool.

        Returns:
            Dict from each network's name and "ensemble" to a float32 tensor
            `(batch, classes)`.
        """
        logits = self.logits(inputs, training)
        return evaluation.probabilities(self.network_names, logits, self.ensemble)

    def logits(self, images, training=False):
        """Return the logits of every network, then those of their gate if there is one.

        Args:
            images: float tensor `(batch, height, width, channels)`.
            training: bool.

        Returns:
            List of float tensors `(batch, classes)`.
        """
        return self._exchange.logits(images, training)

    def compile(
        self,
        optimizer=None,
        loss=None,
        metrics=None,
        *,
        feature_optimizer=None,
        discriminator_optimizer=None,
        logit_schedule="auto",
        feature_schedule="auto",
        discriminator_schedule="auto",
        weight_decay="coupled",
        logit_weight_decay=1e-4,
        feature_weight_decay=1e-1,
        discriminator_weight_decay=1e-1,
        decay_normalization=True,
        decay_bias=True,
        label_smoothing=0.0,
        placebo=False,
        gradient_ratio_every=50,
        total_steps=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
    ):
        """Set how to train; without arguments, as the paper does.

        Args:
            optimizer: keras optimizer for E1. Default: SGD 0.1, momentum 0.9.
            loss: keras.losses.Loss from logits, its name, or a function
                `(labels, logits) -> (batch,)`. Default: cross-entropy with integer
                labels `(batch,)` or class probabilities `(batch, classes)`.
            metrics: list of keras metrics, computed for each network's probabilities as
                `{network}_{metric}`.
            feature_optimizer: keras optimizer for E3 (extractors and transfer layers).
                Default: Adam 2e-5.
            discriminator_optimizer: keras optimizer for E2. Default: Adam 2e-5.
            logit_schedule: name or object of `afd_tf.schedules`, or None for a constant
                learning rate. "auto": x0.1 at 1/2 and 3/4 of training with the default
                optimizer, None with one of yours.
            feature_schedule: likewise; "auto" is x0.1 at 1/4 and 1/2.
            discriminator_schedule: as `feature_schedule`.
            weight_decay: "coupled" (L2 in the gradients), "decoupled" (Keras' own) or
                "none".
            logit_weight_decay: float >= 0. Default 1e-4.
            feature_weight_decay: float >= 0. Default 0.1.
            discriminator_weight_decay: float >= 0. Default 0.1.
            decay_normalization: bool, whether gammas and betas decay. Default True.
            decay_bias: bool, whether biases decay. Default True.
            label_smoothing: float in [0, 1), for the default loss.
            placebo: bool, replace each variable's gradient of the feature-map-based
                loss by Gaussian noise of the same norm; weight decay stays. A control.
                An int >= 1 is the seed of the noise. Default False.
            gradient_ratio_every: int, steps between two computations of
                `{network}_gradient_ratio`. Default 50.
            total_steps: int, length of training for the schedules. Default None: each
                call of `fit` is a training of its `epochs`.
            run_eagerly: bool, as in Keras.
            steps_per_execution: int, as in Keras.
            jit_compile: bool, use XLA. Default False: on a CPU it is slower.

        Raises:
            ValueError: if arguments contradict each other; the message says which.
        """
        options = CompileOptions(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            feature_optimizer=feature_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            logit_schedule=logit_schedule,
            feature_schedule=feature_schedule,
            discriminator_schedule=discriminator_schedule,
            weight_decay=weight_decay,
            logit_weight_decay=logit_weight_decay,
            feature_weight_decay=feature_weight_decay,
            discriminator_weight_decay=discriminator_weight_decay,
            decay_normalization=decay_normalization,
            decay_bias=decay_bias,
            label_smoothing=label_smoothing,
            placebo=placebo,
            gradient_ratio_every=gradient_ratio_every,
            total_steps=total_steps,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )
        with self.distribute_strategy.scope():
            loss_function = classification_loss(loss, label_smoothing)
            objectives = Objectives(self._exchange, loss_function, self._loss_weights)
            # Before an optimizer is touched, which a refusal must leave as it was.
            meters = Meters(objectives, self.ensemble, metrics)
            step = build_step(objectives, options, self.forward == "fresh", self._step)
            check_variables(self.trainable_variables, step.phases)
            super().compile(
                optimizer=step.phases.logit.optimizer,
                run_eagerly=run_eagerly,
                steps_per_execution=steps_per_execution,
                jit_compile=jit_compile is True,
                auto_scale_loss=False,
            )
            # Attributes of their own, so that Keras saves them with the model, and a
            # resumed run goes on with its noise.
            feature, discriminator = step.phases.feature, step.phases.discriminator
            self.feature_optimizer = feature and feature.optimizer
            self.discriminator_optimizer = discriminator and discriminator.optimizer
            self.placebo_seed = step.placebo
            self._step, self._meters, self._options = step, meters, options
            # An optimizer that goes on from an earlier compile knows how far it is.
            done = step.phases.logit.inner_optimizer._iterations
            self.trained_steps.assign(ops.cast(done, "int64"))
            self.first_step.assign(0)
            self.total_steps.assign(total_steps or 0)

    def get_compile_config(self):
        return self._options.serialize(self._step) if self.compiled else {}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data):
        batch = inputs.batch_of(data, self._exchange)
        inputs.warn_of_raw_pixels(batch.images, self.networks)
        # Of our own: optimizers do not count a step that overflows, nor, where they
        # accumulate gradients, each one.
        step = self.trained_steps.value
        for phase in self._step.phases:
            phase.set_learning_rate(step - self.first_step, self.total_steps)
        ratio_due = self._meters.ratio_due(step, self._options.gradient_ratio_every)
        logits, values = self._step.update(batch, step, ratio_due)
        self.trained_steps.assign_add(1)
        self._meters.update_train(batch, logits, values)
        return self.get_metrics_result()

    def test_step(self, data):
        batch = inputs.batch_of(data, self._exchange)
        logits = evaluation.all_logits(self.logits, batch.images)
        self._meters.update_test(batch, logits)
        return self.get_metrics_result()

    def make_train_function(self, force=False):
        check_unchanged(self.phases, self.trainable_variables)
        if self.needs_pretraining:
            raise pretraining_missing(self.method)
        return super().make_train_function(force)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        *,
        initial_epoch=0,
        initial_step=0,
        **arguments,
    ):
        """Train as `keras.Model.fit` does, with its arguments.

        The number of steps ahead sets the schedules; a data set of `afd_tf.data` is
        told the epoch. Beside Keras' arguments: `initial_step`, int, the step of the
        first epoch to begin with.

        Raises:
            ValueError: if data, schedules or callbacks do not fit; it says which.
        """
        self._assert_compile_called("fit")
        check_rates(callbacks, self.phases.logit)
        fixed = self._options.total_steps is not None
        length = TrainingLength(initial_epoch, initial_step, x, fixed)
        with inputs.readable_errors():
            return super().fit(
                x,
                y=y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=with_own(callbacks, length, self._meters.specs, verbose),
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle if inputs.can_shuffle(x) else False,
                initial_epoch=initial_epoch,
                initial_step=initial_step,
                **arguments,
            )

    def evaluate(self, x=None, *args, **kwargs):
        """Evaluate as `keras.Model.evaluate` does; nothing but metrics changes."""
        with self._evaluation():
            return super().evaluate(x, *args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        with inputs.readable_errors():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        with self._evaluation():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _evaluation(self):
        # Training metrics outlive an evaluation within `fit`, and each step returns
        # exactly the metrics of its kind.
        before, self._evaluating = self._evaluating, True
        try:
            with inputs.readable_errors():
                yield
        finally:
            self._evaluating = before

    @property
    def needs_pretraining(self):
        """Whether `pretrain` has to be called before `fit`."""
        steps = self.pretrained_steps
        return steps is not None and not int(ops.convert_to_numpy(steps))

    def pretrain(self, x, epochs=None, optimizer=None, callbacks=(), verbose="auto"):
        """Train what the method needs beforehand: FT's paraphraser on a frozen source.

        Networks, the source and optimizers are not touched.

        Args:
            x: data set of `(images, ...)` batches; the rest of a batch is not used.
            epochs: int >= 1. Default None: the method's, see `afd_tf.methods.Factor`.
            optimizer: keras optimizer. Default None: Adam 1e-3.
            callbacks: keras callbacks.
            verbose: as in `fit`.

        Returns:
            keras.callbacks.History with "loss", the reconstruction error per element.

        Raises:
            ValueError: if the method has nothing to train beforehand.
        """
        if self.pretrained_steps is None:
            raise nothing_to_pretrain(self.method, self.source)
        given = (x, epochs, optimizer, callbacks, verbose)
        history, steps = pretrain(self._exchange, self.distribute_strategy, *given)
        self.pretrained_steps.assign_add(steps)
        return history

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Load weights as `keras.Model.load_weights` does, with its arguments.

        Raises:
            ValueError: if an optimizer's state does not fit; Keras would begin it anew.
        """
        with optimizers.state_fits(filepath, skip_mismatch):
            super().load_weights(filepath, skip_mismatch, **kwargs)

    def summary(self, line_length=None, positions=None, print_fn=None, **kwargs):
        """Print networks, taps, the layers between them and the optimizers."""
        del line_length, positions, kwargs
        settings = f"forward {self.forward}, temperature {_float(self.temperature):g}"
        text = summarize(self.name, self._exchange, settings, self.phases or ())
        (print_fn or print)(text)

    def get_config(self):
        exchange, given = self._exchange, self._layers_given
        networks = self.networks[:1] if exchange.branched else self.networks
        taps = [t.layer_name for t in exchange.taps] or list(exchange.tap_layers)
        if exchange.taps and exchange.source is not None:
            tap = exchange.source.tap
            taps.append(tap and tap.layer_name)
        config = {
            "networks": list(networks),
            "method": self.method,
            "topology": self.topology,
            "source": self.source,
            "tap": taps,
            "names": list(self.network_names),
            "temperature": _float(self.temperature),
            "kl_weight": _float(self.kl_weight),
            "feature_weight": _float(self.feature_weight),
            "kl_topology": self.kl_topology,
            "forward": self.forward,
            "ensemble": self.ensemble,
            "checkpointing": self.checkpointing,
            "transfers": list(exchange.transfers) if given[0] else None,
            "discriminators": list(self.discriminators) if given[1] else None,
        }
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **{k: keras.saving.serialize_keras_object(v) for k, v in config.items()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(
            **{
                k: keras.saving.deserialize_keras_object(v, custom_objects)
                for k, v in config.items()
            }
        )


def _float(variable):
    return float(ops.convert_to_numpy(variable))
