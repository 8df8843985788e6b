"""The exchange: which networks learn from which others, and through which layers."""

import dataclasses

import keras
import tensorflow as tf

from afd_tf import losses
from afd_tf.distillation import frozen_source
from afd_tf.distillation import topology as topologies
from afd_tf.distillation.frozen_source import FrozenSource
from afd_tf.errors import choice, inapplicable, instance, invalid
from afd_tf.methods import Method, PretrainedObjective
from afd_tf.networks.branches import Branched, branched
from afd_tf.networks.classifier import check_classifier
from afd_tf.networks.rematerialization import check_checkpointing
from afd_tf.networks.tap import tap

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "afd_tf trains with Keras' TensorFlow backend. Received: backend "
        f"'{keras.backend.backend()}'. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Networks, who learns from whom, and the layers between them.

    Attributes:
        method: Method.
        names: tuple of str, what the networks are called.
        networks: tuple of keras models, those that learn.
        input_shape: (height, width, channels) of the images.
        num_classes: int.
        tap_layers: tuple of str or None, the layers to tap, the source's last.
        taps: tuple of `Tapped`, one per network; () where nothing needs maps.
        topology: str.
        peers: tuple of tuples of int, whom each network learns from by feature maps.
        kl_peers: the same for the KL term.
        transfers: tuple of layers or None, as the objective's `make_transfers` returns.
        discriminators: tuple of keras models, one per network or none.
        source: FrozenSource, the peer of index `len(networks)`, or None.
        branched: Branched, whose gated ensemble has that index, or None.
    """

    method: Method
    names: tuple
    networks: tuple
    input_shape: tuple
    num_classes: int
    tap_layers: tuple
    taps: tuple
    topology: str
    peers: tuple
    kl_peers: tuple
    transfers: tuple = ()
    discriminators: tuple = ()
    source: FrozenSource | None = None
    branched: Branched | None = None

    def forward(self, images, training=False):
        """Compute logits, and the maps where there are taps, in one pass.

        Args:
            images: float tensor `(batch, height, width, channels)`.
            training: bool.

        Returns:
            List of feature maps, one per tap, and list of logits `(batch, classes)` of
            every network, then those of their gate if there is one.
        """
        if self.branched is not None:
            return [], self.branched.forward(images, training)
        if not self.taps:
            return [], [network(images, training=training) for network in self.networks]
        passes = [tapped.forward(images, training=training) for tapped in self.taps]
        maps, logits = zip(*passes, strict=True)
        return list(maps), list(logits)

    def logits(self, images, training=False):
        """Return what `forward` does, without maps; segments are not looked at."""
        if self.branched is not None:
            return self.branched.forward(images, training)
        return [network(images, training=training) for network in self.networks]

    @property
    def pretrained(self):
        """The transfer layers that are trained beforehand; most methods have none."""
        feature = self.method.feature
        if not isinstance(feature, PretrainedObjective):
            return []
        return feature.pretrained(self.transfers, self.peers)

    def network_variables(self):
        """List the trainable variables of the networks, a shared trunk's once."""
        if self.branched is not None:
            return list(self.branched.joint.trainable_variables)
        if not self.taps:
            return [v for n in self.networks for v in n.trainable_variables]
        return [v for t in self.taps for v in t.extractor_variables + t.head_variables]

    def extractor_variables(self):
        """List the trainable variables between the images and the taps."""
        return [v for tapped in self.taps for v in tapped.extractor_variables]

    def transfer_variables(self):
        """List the trainable variables of the transfer layers."""
        layers = [layer for layer in self.transfers if layer is not None]
        return [v for layer in layers for v in layer.trainable_variables]

    def discriminator_variables(self):
        """List the trainable variables of the discriminators."""
        return [v for d in self.discriminators for v in d.trainable_variables]

    def regularisation(self):
        """Sum the regularisation losses of each network; a shared trunk's counts once.

        Returns:
            List of float32 scalars, the gate's last if there is one.
        """
        if self.branched is not None:
            none = [tf.constant(0.0)] * len(self.names)
            return [*none, model_regularisation(self.branched.joint)]
        return [model_regularisation(network) for network in self.networks]

    def computes_in_half_precision(self):
        """Whether any layer computes in float16, in which small gradients vanish."""
        # Of every layer: a model that was loaded has forgotten its own policy.
        layers = [layer for layer in self.transfers if layer is not None]
        return any(
            layer.compute_dtype == "float16"
            for part in (*self.networks, *layers, *self.discriminators)
            for layer in part._flatten_layers()
        )


def model_regularisation(model):
    """Sum a model's own regularisation losses (`model.losses`): a float32 scalar."""
    terms = [tf.cast(loss, tf.float32) for loss in model.losses]
    return losses.add_in_order(terms) if terms else tf.constant(0.0)


def build_exchange(
    networks,
    method,
    *,
    topology=None,
    kl_topology=None,
    source=None,
    tap_layers=None,
    names=None,
    checkpointing=False,
    transfers=None,
    discriminators=None,
):
    """Check networks and options, and create the layers that the method needs.

    Args:
        networks: list of keras models, as `OnlineDistiller` takes it.
        method: Method.
        topology: str or None.
        kl_topology: str or None.
        source: keras.Model or None.
        tap_layers: str, list of str or None, or None.
        names: list of str or None.
        checkpointing: bool or int.
        transfers: the user's transfer layers, or None.
        discriminators: the user's discriminators, or None.

    Returns:
        Exchange.

    Raises:
        ValueError: if the networks cannot learn from each other, or layers of the user
            do not fit.
        TypeError: if a network is not a Keras model.
    """
    frozen_source.check_given(method, source)
    _check_networks(networks, method, source)
    alone = source is not None or bool(method.branches)
    topology = _topology(topology, kl_topology, alone)
    checkpointing = check_checkpointing(checkpointing)
    together = None
    if method.branches:
        if checkpointing:
            raise inapplicable(
                "checkpointing",
                checkpointing,
                f"method '{method.name}' computes branches together",
            )
        together = branched(networks[0], method.branches)
        networks = together.networks
    names = _unique_names(networks, names)
    layers = _tap_layers(tap_layers, len(networks), source is not None)
    input_shape, num_classes = _shapes(networks)
    taps = ()
    if method.feature or checkpointing:
        pairs = zip(networks, layers, strict=False)
        taps = tuple(tap(network, layer, checkpointing) for network, layer in pairs)
    frozen = None
    if source is not None:
        frozen = frozen_source.freeze(
            source, layers[-1], method, input_shape, num_classes
        )
    exchange = Exchange(
        method=method,
        names=names,
        networks=tuple(networks),
        input_shape=input_shape,
        num_classes=num_classes,
        tap_layers=tuple(layers),
        taps=taps,
        topology=topology,
        peers=topologies.peers(topology, len(networks)),
        kl_peers=topologies.peers(kl_topology or topology, len(networks)),
        source=frozen,
        branched=together,
    )
    return _with_layers(exchange, transfers, discriminators)


def _with_layers(exchange, transfers, discriminators):
    """Add the method's transfer layers and discriminators, or the user's."""
    method, feature = exchange.method, exchange.method.feature
    for argument, value, used in (
        ("transfers", transfers, feature is not None),
        ("discriminators", discriminators, method.adversarial),
    ):
        if value is not None and not used:
            raise inapplicable(
                argument, value, f"method '{method.name}' has no use for it"
            )
        if value is not None:
            instance(argument, value, list | tuple, "a list of Keras layers")
            for layer in value:
                kinds = keras.layers.Layer | None
                instance(argument, layer, kinds, "Keras layers in the list")
    if feature is None:
        return exchange
    taps, peers = exchange.taps, exchange.peers
    source_taps = [exchange.source.tap] if exchange.source else []
    shapes = [tapped.map_shape for tapped in (*taps, *source_taps)]
    made = feature.make_transfers(shapes, peers)
    transfers = made if transfers is None else list(transfers)
    if len(transfers) != len(made):
        raise invalid(
            "transfers",
            f"{len(made)} layers (None where a map needs none)",
            received=str(len(transfers)),
        )
    exchange = dataclasses.replace(exchange, transfers=tuple(transfers))
    for layer in exchange.pretrained:
        layer.trainable = False
    # StatelessScope: a dry run must not move the statistics of anybody's layer.
    with keras.StatelessScope():
        maps = [tf.zeros((1, *shape)) for shape in shapes]
        transferred = feature.transfer(maps, transfers, peers)
    if not method.adversarial:
        return exchange
    shapes = [tuple(m.shape[1:]) for m in transferred]
    if len(set(shapes)) > 1:
        raise invalid(
            "transfers",
            "maps of one shape behind the transfer layers",
            received=str(shapes),
        )
    shapes = shapes[: len(taps)]
    if discriminators is None:
        discriminators = feature.make_discriminators(shapes)
    _check_discriminators(discriminators, shapes)
    return dataclasses.replace(exchange, discriminators=tuple(discriminators))


def _check_networks(networks, method, source):
    count = len(networks) if isinstance(networks, (list, tuple)) else networks
    if method.branches and count != 1:
        raise invalid(
            "networks",
            f"a list of one model: method '{method.name}' makes {method.branches} "
            "branches of it",
            received=repr(count),
        )
    fewest = 1 if source is not None or method.branches else 2
    if not isinstance(count, int) or count < fewest:
        why = "it learns from `source`"
        if fewest == 2:
            why = (
                "they learn from each other; one learns from a `source`, a trained "
                "network, or by method 'one'"
            )
        raise invalid(
            "networks",
            f"a list of at least {fewest} models: {why}",
            received=repr(count),
        )
    for network in networks:
        instance("networks", network, keras.Model, "keras.Model objects")
    everyone = [*networks, source] if isinstance(source, keras.Model) else networks
    owners = {}
    for position, network in enumerate(everyone):
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.InputLayer):
                continue
            other = owners.setdefault(id(layer), position)
            if other != position:
                same = everyone[other] is network
                what = (
                    "is the same instance as"
                    if same
                    else f"shares layer '{layer.name}' with"
                )
                raise invalid(
                    "networks",
                    "networks without common layers",
                    received=f"network {position} ('{network.name}') {what} network "
                    f"{other} ('{everyone[other].name}')",
                    hint="Build each network by a call of its own.",
                )


def _topology(topology, kl_topology, alone):
    """Return the topology, the default one if None was given.

    Args:
        topology: str or None.
        kl_topology: str or None.
        alone: bool, whether there is one source for all, that is no network itself.
    """
    for name, value in (("topology", topology), ("kl_topology", kl_topology)):
        if value is None:
            continue
        choice(name, value, topologies.TOPOLOGIES)
        if alone != (value == "from_source"):
            reason = (
                "with a frozen source, or a gate, every network learns from it alone"
                if alone
                else "there is no frozen source; pass `source=`, a trained model"
            )
            raise inapplicable(name, value, reason)
    return topology or ("from_source" if alone else "cycle")


def _unique_names(networks, names):
    """Return one name per network: the given ones or the models' own, made unique."""
    if names is None:
        result = []
        for network in networks:
            name, count = network.name, 1
            while name in result:
                count += 1
                name = f"{network.name}_{count}"
            result.append(name)
    else:
        instance("names", names, list | tuple, "a list of str")
        result = [str(name) for name in names]
    reserved = {"ensemble", "mean", ""} & set(result)
    if len(set(result)) != len(networks) or reserved:
        raise invalid(
            "names",
            f"{len(networks)} different names, none of them 'ensemble', 'mean' or "
            "empty",
            received=str(result),
            hint="Pass `names=[...]`.",
        )
    return tuple(result)


def _tap_layers(layers, count, with_source):
    """Return one layer name or None per network, the frozen source's last."""
    expected = count + with_source
    if layers is None or isinstance(layers, str):
        return [layers] * expected
    instance("tap", layers, list | tuple, "a layer name, or a list of such")
    if len(layers) != expected:
        source = ", and the source last" if with_source else ""
        raise invalid(
            "tap",
            f"one layer name, or a list with one for each of the {count} networks"
            f"{source}",
            layers,
        )
    return list(layers)


def _shapes(networks):
    """Return the image shape and the number of classes that all networks have."""
    shapes = [check_classifier(network) for network in networks]
    for what, i in (("numbers of classes", 1), ("input shapes", 0)):
        values = [(n.name, s[i]) for n, s in zip(networks, shapes, strict=True)]
        if len({value for _, value in values}) > 1:
            raise invalid(
                "networks",
                "networks that see the same images and classes",
                received=f"different {what}: {values}",
            )
    return shapes[0]


def _check_discriminators(discriminators, shapes):
    if len(discriminators) != len(shapes):
        raise invalid(
            "discriminators",
            f"{len(shapes)} models, one per network",
            received=str(len(discriminators)),
        )
    for discriminator, shape in zip(discriminators, shapes, strict=True):
        with keras.StatelessScope():
            output = discriminator(tf.zeros((2, *shape)), training=True)
        if tuple(output.shape) != (2, 1):
            raise invalid(
                "discriminators",
                f"models from (batch, {', '.join(map(str, shape))}) to (batch, 1)",
                received=f"'{discriminator.name}' with output shape "
                f"{tuple(output.shape)}",
            )
