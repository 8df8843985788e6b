"""The model that trains several networks together."""

import keras
import tensorflow as tf

from afd_tf import building, compiling, evaluation, fitting, methods
from afd_tf.naming import lookup
from afd_tf.networks.tap import tap as tap_network
from afd_tf.summary import summarize


@keras.saving.register_keras_serializable(package="afd_tf")
class OnlineDistiller(fitting.Fitting):
    """Train K >= 2 image classifiers together so that each learns from the others.

    One step makes the logit-based update of all networks (E1), then updates all
    discriminators (E2), then all feature extractors and transfer layers through the
    updated discriminators (E3).

    Args:
        networks: list of at least two Functional or Sequential classifiers that end in
            logits `(batch, classes)`, of one input shape and one class count, without
            shared layers.
        method: str (see `afd_tf.methods.names()`) or `afd_tf.methods.Method`. Default
            "afd".
        topology: "cycle" (default: the source of network k is network k-1) or
            "all_pairs".
        tap: name of the layer whose output is the feature map; one name for all
            networks or a list with a name or None for each. Default None: the last map
            before the head.
        names: list of str, what to call the networks. Default: their own names, with
            `_2`, `_3`, ... where one occurs again.
        temperature: float > 0, T of E1. Default 3.
        kl_weight: float >= 0, factor on the KL term of E1. Default 1.
        feature_weight: float >= 0, factor on the feature-map-based loss. Default 1.
        kl_topology: topology of the KL term alone. Default None: `topology`.
        forward: "shared" (default): E1 and E3 share one forward pass, both gradients
            are taken at the weights before the logit update. "fresh": maps are computed
            again after the logit update, the literal order of the paper.
        ensemble: "probabilities" (default: mean of softmax outputs) or "logits"
            (softmax of the mean of logits).
        checkpointing: False (default), True, or an int >= 2, how many segments a
            network is cut into. Training keeps the maps between segments and computes
            the rest anew in both backward passes, with equal results: two ResNet-56 at
            batch 128 took 1/4 of the memory and 1.35 times as long on two CPU cores.
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

    def __init__(
        self,
        networks,
        method="afd",
        topology="cycle",
        *,
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
        networks = building.check_networks(networks)
        network_names = building.unique_names(networks, names)
        method = methods.get(method)
        lookup("forward", forward, {"shared": None, "fresh": None})
        lookup("ensemble", ensemble, evaluation.ENSEMBLES)
        temperature = building.check_number("temperature", temperature, positive=True)
        kl_weight = building.check_number("kl_weight", kl_weight)
        feature_weight = building.check_number("feature_weight", feature_weight)
        taps = building.tap_all(
            networks, tap, lambda n, layer: tap_network(n, layer, checkpointing)
        )
        wiring, all_discriminators = building.wire(
            method, taps, topology, kl_topology, transfers, discriminators
        )
        super().__init__(name=name, **kwargs)
        self.method = method
        self.topology = topology
        self.kl_topology = kl_topology
        self.temperature = temperature
        self.kl_weight = kl_weight
        self.feature_weight = feature_weight
        self.forward = forward
        self.ensemble = ensemble
        self.checkpointing = checkpointing
        self.network_names = network_names
        self.num_classes = taps[0].num_classes
        self.networks = networks
        self.transfers = [layer for layer in wiring.transfers if layer is not None]
        self.discriminators = all_discriminators
        # Plain objects: Keras saves what it tracks; taps share layers with networks.
        self._wiring = wiring
        self._own_layers = building.OwnLayers(
            list(wiring.transfers) if transfers is not None else None,
            all_discriminators if discriminators is not None else None,
        )
        self._compiled_parts = None
        self.total_steps = self.add_weight(
            name="total_steps", dtype="int64", initializer="zeros", trainable=False
        )
        self.first_step = self.add_weight(
            name="first_step", dtype="int64", initializer="zeros", trainable=False
        )
        self.built = True

    @property
    def taps(self):
        """The networks' taps, a tuple of `afd_tf.networks.Tapped`."""
        return self._wiring.taps

    @property
    def phases(self):
        """The compiled updates, or None before `compile`."""
        return self._compiled_parts and self._compiled_parts.step.phases

    def call(self, inputs, training=False):
        """Return class probabilities.

        Args:
            inputs: float tensor `(batch, height, width, channels)`.
            training: bool.

        Returns:
            Dict from each network's name and "ensemble" to a float32 tensor
            `(batch, classes)`.
        """
        logits = [network(inputs, training=training) for network in self.networks]
        return evaluation.probabilities(self.network_names, logits, self.ensemble)

    def compile(
        self,
        logit_optimizer=None,
        feature_optimizer=None,
        discriminator_optimizer=None,
        loss=None,
        *,
        optimizer=None,
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
        metrics=None,
        feature_every=1,
        gradient_ratio_every=50,
        total_steps=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
    ):
        """Set how to train; without arguments, as the paper does.

        Args:
            logit_optimizer: keras optimizer for E1. Default: SGD 0.1, momentum 0.9.
            optimizer: what Keras calls it; the same as `logit_optimizer`.
            feature_optimizer: keras optimizer for E3 (extractors and transfer layers).
                Default: Adam 2e-5.
            discriminator_optimizer: keras optimizer for E2. Default: Adam 2e-5.
            loss: keras.losses.Loss from logits, its name, or a function
                `(labels, logits) -> (batch,)`. Default: cross-entropy with integer
                labels `(batch,)` or class probabilities `(batch, classes)`.
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
            metrics: list of keras metrics, computed for each network's probabilities as
                `{network}_{metric}`.
            feature_every: int n, make the feature-map-based update in every n-th step
                only, from the first on, and on one device. The metrics of an epoch
                without such a step are 0. Default 1, as the paper does.
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
        arguments = {k: v for k, v in locals().items() if k in compiling.ARGUMENTS}
        if optimizer is not None:
            compiling.check_alias(logit_optimizer)
            arguments["logit_optimizer"] = optimizer
        with self.distribute_strategy.scope():
            parts = compiling.compile_parts(self, arguments)
            super().compile(
                optimizer=parts.step.phases.logit.optimizer,
                run_eagerly=run_eagerly,
                steps_per_execution=steps_per_execution,
                jit_compile=bool(jit_compile) and jit_compile != "auto",
                auto_scale_loss=False,
            )
            # Attributes of their own, so that Keras saves all three with the model.
            feature, judge = parts.step.phases.feature, parts.step.phases.discriminator
            self.feature_optimizer = feature and feature.optimizer
            self.discriminator_optimizer = judge and judge.optimizer
            self._compiled_parts = parts
            self.first_step.assign(0)
            self.total_steps.assign(total_steps or 0)

    def get_compile_config(self):
        if not self.compiled:
            return {}
        config = compiling.serialize(self._compiled_parts)
        for name in ("run_eagerly", "steps_per_execution", "jit_compile"):
            config[name] = getattr(self, name)
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data):
        images, labels, weight = keras.utils.unpack_x_y_sample_weight(data)
        images = evaluation.check_images(images, self.taps[0].input_shape)
        labels = evaluation.check_labels(labels, self.num_classes)
        weight = evaluation.check_weight(weight)
        evaluation.warn_of_raw_pixels(images, self.networks)
        parts = self._compiled_parts
        step = tf.cast(self.optimizer.iterations, tf.int64) - self.first_step
        for phase in parts.step.phases:
            phase.set_learning_rate(step, self.total_steps)
        due = parts.ratio_due(self.optimizer.iterations)
        exchange_due = parts.exchange_due()
        logits, values = parts.step(images, labels, weight, due, exchange_due)
        parts.update_train(labels, logits, values, self.ensemble)
        return self.get_metrics_result()

    def test_step(self, data):
        images, labels, weight = keras.utils.unpack_x_y_sample_weight(data)
        images = evaluation.check_images(images, self.taps[0].input_shape)
        labels = evaluation.check_labels(labels, self.num_classes)
        weight = evaluation.check_weight(weight)
        logits = evaluation.all_logits(self.networks, images)
        self._compiled_parts.update_test(labels, logits, weight, self.ensemble)
        return self.get_metrics_result()

    @property
    def metrics(self):
        parts = self._compiled_parts
        if parts is None:
            return []
        own = parts.test_metrics if self.evaluating else parts.train_metrics
        return [own, *(metric for each in parts.user_metrics for metric in each)]

    @property
    def length_is_fixed(self):
        """Whether `compile` was told the total number of steps."""
        return self._compiled_parts.arguments["total_steps"] is not None

    def summary(self, line_length=None, positions=None, print_fn=None, **kwargs):
        """Print networks, taps, the layers between them and the optimizers."""
        del line_length, positions, kwargs
        (print_fn or print)(summarize(self))

    def get_config(self):
        own = self._own_layers
        options = (
            *("method", "topology", "temperature", "kl_weight", "feature_weight"),
            *("kl_topology", "forward", "ensemble", "checkpointing"),
        )
        config = {name: getattr(self, name) for name in options}
        config["networks"] = list(self.networks)
        config["names"] = list(self.network_names)
        config["tap"] = [tap.layer_name for tap in self.taps]
        config["discriminators"] = own.discriminators
        config["transfers"] = own.transfers
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
