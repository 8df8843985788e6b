"""The model that trains several networks together."""

import keras

from afd_tf import methods
from afd_tf.distillation import building, evaluation, exchange, frozen
from afd_tf.distillation.pretraining import Pretraining
from afd_tf.distillation.summary import summarize
from afd_tf.errors import lookup
from afd_tf.networks.tap import tap as tap_network


@keras.saving.register_keras_serializable(package="afd_tf")
class OnlineDistiller(Pretraining):
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
        topology: "cycle" (the source of network k is network k-1) or "all_pairs";
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
        forward: "shared" (default): E1 and E3 share one forward pass, both gradients
            are taken at the weights before the logit update. "fresh": maps are computed
            again after the logit update, the literal order of the paper.
        ensemble: "probabilities" (default: mean of softmax outputs) or "logits"
            (softmax of the mean of logits). Method "one": always that of its gate.
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
        method = methods.get(method)
        building.check_source(method, source)
        networks = building.check_networks(networks, method, source)
        lookup("forward", forward, {"shared": None, "fresh": None})
        lookup("ensemble", ensemble, evaluation.ENSEMBLES)
        temperature = building.check_number("temperature", temperature, positive=True)
        kl_weight = building.check_number("kl_weight", kl_weight)
        feature_weight = building.check_number("feature_weight", feature_weight)
        alone = source is not None or bool(method.branches)
        topology = exchange.choose_topology(topology, kl_topology, alone)
        networks, branched = building.spread(networks, method, checkpointing)
        network_names = building.unique_names(networks, names)
        layers = building.tap_names(tap, len(networks), source is not None)
        taps = building.tap_all(
            networks, layers, lambda n, layer: tap_network(n, layer, checkpointing)
        )
        shape, classes = taps[0].input_shape, taps[0].num_classes
        frozen_source = source and frozen.freeze(
            source, layers[-1], method, shape, classes
        )
        wired, all_discriminators = exchange.wire(
            method,
            taps,
            topology,
            kl_topology,
            transfers,
            discriminators,
            source=frozen_source,
            branched=branched,
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
        self.num_classes = classes
        self.networks = networks
        # Beside `networks`, whose trunk it shares: the gate is in it alone.
        self.branched = branched and branched.joint
        self.source = source
        self.transfers = [layer for layer in wired.transfers if layer is not None]
        self.discriminators = all_discriminators
        # Plain objects: Keras saves what it tracks; taps share layers with networks.
        self._wiring = wired
        self._own_layers = exchange.OwnLayers(
            list(wired.transfers) if transfers is not None else None,
            all_discriminators if discriminators is not None else None,
        )
        self.total_steps = self._counter("total_steps")
        self.first_step = self._counter("first_step")
        self.trained_steps = self._counter("trained_steps")
        self._count_pretraining(self._counter)
        self.built = True

    def _counter(self, name):
        return self.add_weight(
            name=name,
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    @property
    def taps(self):
        """The networks' taps, a tuple of `afd_tf.networks.Tapped`."""
        return self._wiring.taps

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
        branched = self._wiring.branched
        if branched is not None:
            return branched.forward(images, training)
        return [network(images, training=training) for network in self.networks]

    def summary(self, line_length=None, positions=None, print_fn=None, **kwargs):
        """Print networks, taps, the layers between them and the optimizers."""
        del line_length, positions, kwargs
        (print_fn or print)(summarize(self))

    def get_config(self):
        own = self._own_layers
        options = (
            *("method", "topology", "temperature", "kl_weight", "feature_weight"),
            *("kl_topology", "forward", "ensemble", "checkpointing", "source"),
        )
        config = {name: getattr(self, name) for name in options}
        branched = self._wiring.branched is not None
        config["networks"] = list(self.networks[:1] if branched else self.networks)
        config["names"] = list(self.network_names)
        config["tap"] = [tap.layer_name for tap in self.taps]
        if self.source is not None:
            tap = self._wiring.source.tap
            config["tap"].append(tap and tap.layer_name)
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
