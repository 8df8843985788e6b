"""What the distiller derives from its networks, and what it refuses."""

import dataclasses

import keras
import tensorflow as tf

from afd_tf import topology as topologies

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "afd_tf trains with Keras' TensorFlow backend. Received: backend "
        f"'{keras.backend.backend()}'. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Who is tapped where, and who learns from whom through what.

    Attributes:
        taps: tuple of `Tapped`, one per network.
        sources: tuple of tuples of int, sources of the feature-map-based loss.
        kl_sources: the same for the KL term.
        transfers: tuple of layers or None, as the objective's `make_transfers` returns.
    """

    taps: tuple
    sources: tuple
    kl_sources: tuple
    transfers: tuple


@dataclasses.dataclass(frozen=True)
class OwnLayers:
    """Layers that the user gave in place of the method's, else None."""

    transfers: list | None
    discriminators: list | None


def check_networks(networks):
    """Return the networks as a list.

    Raises:
        ValueError: if there are fewer than two, one stands twice, or two share a layer.
        TypeError: if an item is not a Keras model.
    """
    if not isinstance(networks, (list, tuple)) or len(networks) < 2:
        received = len(networks) if isinstance(networks, (list, tuple)) else networks
        raise ValueError(
            "Invalid value for argument `networks`. Expected a list of at least 2 "
            f"models: they learn from each other. Received: {received!r}."
        )
    for network in networks:
        if not isinstance(network, keras.Model):
            raise TypeError(
                "Invalid value for argument `networks`. Expected keras.Model objects. "
                f"Received: {network!r} of type {type(network).__name__}."
            )
    owners = {}
    for position, network in enumerate(networks):
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.InputLayer):
                continue
            other = owners.setdefault(id(layer), position)
            if other != position:
                what = (
                    "is the same instance as"
                    if networks[other] is network
                    else f"shares layer '{layer.name}' with"
                )
                raise ValueError(
                    "Invalid value for argument `networks`. Expected networks without "
                    f"common layers. Received: network {position} ('{network.name}') "
                    f"{what} network {other} ('{networks[other].name}'). Build each "
                    "network by a call of its own."
                )
    return list(networks)


def unique_names(networks, names):
    """Return one name per network: the given ones or the models' own, made unique.

    Raises:
        ValueError: if `names` does not fit the networks.
    """
    if names is None:
        result = []
        for network in networks:
            name, count = network.name, 1
            while name in result:
                count += 1
                name = f"{network.name}_{count}"
            result.append(name)
    else:
        result = [str(name) for name in names]
    reserved = {"ensemble", "mean", ""} & set(result)
    if len(set(result)) != len(networks) or reserved:
        raise ValueError(
            f"Invalid value for argument `names`. Expected {len(networks)} different "
            "names, none of them 'ensemble', 'mean' or empty. "
            f"Received: {result}. Pass `names=[...]`."
        )
    return result


def tap_all(networks, layers, tap):
    """Tap every network.

    Args:
        networks: list of keras models.
        layers: None, a layer name for all, or a list with a name or None for each.
        tap: function from (network, layer name or None) to `Tapped`.

    Raises:
        ValueError: if a network cannot be tapped or does not fit the others.
    """
    if layers is None or isinstance(layers, str):
        layers = [layers] * len(networks)
    if len(layers) != len(networks):
        raise ValueError(
            "Invalid value for argument `tap`. Expected one layer name, or a list with "
            f"one for each of the {len(networks)} networks. Received: tap={layers!r}."
        )
    taps = tuple(tap(n, layer) for n, layer in zip(networks, layers, strict=True))
    pairs = list(zip(networks, taps, strict=True))
    for what, attribute in (
        ("numbers of classes", "num_classes"),
        ("input shapes", "input_shape"),
    ):
        values = [(n.name, getattr(t, attribute)) for n, t in pairs]
        if len({value for _, value in values}) > 1:
            raise ValueError(
                "Invalid value for argument `networks`. Expected networks that see the "
                f"same images and classes. Received different {what}: {values}."
            )
    return taps


def wire(method, taps, topology, kl_topology, transfers, discriminators):
    """Create the layers a method needs between the networks.

    Args:
        method: Method.
        taps: tuple of `Tapped`.
        topology: str.
        kl_topology: str or None for the same.
        transfers: the user's transfer layers or None.
        discriminators: the user's discriminators or None.

    Returns:
        Wiring and the list of discriminators.

    Raises:
        ValueError: if the user's layers do not fit the maps.
    """
    sources = topologies.sources(topology, len(taps))
    kl_sources = topologies.sources(kl_topology or topology, len(taps))
    if method.feature is None:
        _refuse(method, "transfers", transfers)
        _refuse(method, "discriminators", discriminators)
        return Wiring(taps, sources, kl_sources, ()), []
    shapes = [t.map_shape for t in taps]
    made = method.feature.make_transfers(shapes, sources)
    transfers = made if transfers is None else list(transfers)
    if len(transfers) != len(made):
        raise ValueError(
            f"Invalid value for argument `transfers`. Expected {len(made)} layers "
            f"(None where a map needs none). Received: {len(transfers)}."
        )
    # StatelessScope: a dry run must not move the statistics of anybody's layer.
    with keras.StatelessScope():
        maps = [tf.zeros((1, *shape)) for shape in shapes]
        messages = method.feature.messages(maps, transfers, sources)
    message_shapes = [tuple(m.shape[1:]) for m in messages]
    if not method.adversarial:
        _refuse(method, "discriminators", discriminators)
        return Wiring(taps, sources, kl_sources, tuple(transfers)), []
    if len(set(message_shapes)) > 1:
        raise ValueError(
            "Invalid value for argument `transfers`. Expected maps of one shape behind "
            f"the transfer layers. Received: {message_shapes}."
        )
    if discriminators is None:
        discriminators = method.feature.make_discriminators(message_shapes)
    _check_discriminators(discriminators, message_shapes)
    wiring = Wiring(taps, sources, kl_sources, tuple(transfers))
    return wiring, list(discriminators)


def _refuse(method, argument, value):
    if value is not None:
        raise ValueError(
            f"Argument `{argument}` does not apply: method '{method.name}' has no use "
            f"for it. Received: {argument}={value!r}. Leave it out."
        )


def _check_discriminators(discriminators, shapes):
    if len(discriminators) != len(shapes):
        raise ValueError(
            f"Invalid value for argument `discriminators`. Expected {len(shapes)} "
            f"models, one per network. Received: {len(discriminators)}."
        )
    for discriminator, shape in zip(discriminators, shapes, strict=True):
        with keras.StatelessScope():
            verdict = discriminator(tf.zeros((2, *shape)), training=True)
        if tuple(verdict.shape) != (2, 1):
            raise ValueError(
                "Invalid value for argument `discriminators`. Expected models from "
                f"(batch, {', '.join(map(str, shape))}) to (batch, 1). Received: "
                f"'{discriminator.name}' with output shape {tuple(verdict.shape)}."
            )


def check_number(argument, value, *, positive=False):
    """Return `value` as a float >= 0 (> 0 if `positive`).

    Raises:
        ValueError: if it is not.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (0 <= number < float("inf")) or (positive and number == 0):
        raise ValueError(
            f"Invalid value for argument `{argument}`. Expected a finite number "
            f"{'> 0' if positive else '>= 0'}. Received: {argument}={value!r}."
        )
    return number
