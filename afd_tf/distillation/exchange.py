"""Who learns from whom, and the layers in between."""

import dataclasses

import keras
import tensorflow as tf

from afd_tf.distillation import topology as topologies
from afd_tf.distillation.frozen import FrozenSource
from afd_tf.methods import PretrainedObjective
from afd_tf.networks.branches import Branched


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Who is tapped where, and who learns from whom through what.

    Attributes:
        taps: tuple of `Tapped`, one per network.
        sources: tuple of tuples of int, sources of the feature-map-based loss.
        kl_sources: the same for the KL term.
        transfers: tuple of layers or None, as the objective's `make_transfers` returns.
        source: FrozenSource, the source of index `len(taps)`, or None.
        branched: Branched, whose gated ensemble has that index, or None.
    """

    taps: tuple
    sources: tuple
    kl_sources: tuple
    transfers: tuple = ()
    source: FrozenSource | None = None
    branched: Branched | None = None


@dataclasses.dataclass(frozen=True)
class OwnLayers:
    """Layers that the user gave in place of the method's, else None."""

    transfers: list | None
    discriminators: list | None


def choose_topology(topology, kl_topology, alone):
    """Return the topology, the default one if None was given.

    Args:
        topology: str or None.
        kl_topology: str or None.
        alone: bool, whether there is one source for all, that is no network itself.

    Raises:
        ValueError: if what was given is of the other kind.
    """
    for name, value in (("topology", topology), ("kl_topology", kl_topology)):
        if value in topologies.TOPOLOGIES and alone != (value == "from_source"):
            rule = (
                "with a frozen source, or a gate, every network learns from it alone"
                if alone
                else "there is no frozen source; pass `source=`, a trained model"
            )
            raise ValueError(
                f"Argument `{name}` does not apply: {rule}. Received: {name}={value!r}."
                " Leave it out."
            )
    return topology or ("from_source" if alone else "cycle")


def beforehand(feature, transfers, sources):
    """List the transfer layers that are trained beforehand; most methods have none."""
    if not isinstance(feature, PretrainedObjective):
        return []
    return feature.pretrained(transfers, sources)


def wire(
    method,
    taps,
    topology,
    kl_topology,
    transfers,
    discriminators,
    *,
    source=None,
    branched=None,
):
    """Create the layers a method needs between the networks.

    Args:
        method: Method.
        taps: tuple of `Tapped`.
        topology: str.
        kl_topology: str or None for the same.
        transfers: the user's transfer layers or None.
        discriminators: the user's discriminators or None.
        source: FrozenSource or None.
        branched: Branched or None.

    Returns:
        Wiring and the list of discriminators.

    Raises:
        ValueError: if the user's layers do not fit the maps.
    """
    wiring = Wiring(
        taps,
        sources=topologies.sources(topology, len(taps)),
        kl_sources=topologies.sources(kl_topology or topology, len(taps)),
        source=source,
        branched=branched,
    )
    feature = method.feature
    if feature is None:
        _refuse(method, "transfers", transfers)
        _refuse(method, "discriminators", discriminators)
        return wiring, []
    shapes = [t.map_shape for t in (*taps, *([source.tap] if source else []))]
    made = feature.make_transfers(shapes, wiring.sources)
    transfers = made if transfers is None else list(transfers)
    if len(transfers) != len(made):
        raise ValueError(
            f"Invalid value for argument `transfers`. Expected {len(made)} layers "
            f"(None where a map needs none). Received: {len(transfers)}."
        )
    for layer in beforehand(feature, transfers, wiring.sources):
        layer.trainable = False
    wiring = dataclasses.replace(wiring, transfers=tuple(transfers))
    # StatelessScope: a dry run must not move the statistics of anybody's layer.
    with keras.StatelessScope():
        maps = [tf.zeros((1, *shape)) for shape in shapes]
        messages = feature.messages(maps, transfers, wiring.sources)
    if not method.adversarial:
        _refuse(method, "discriminators", discriminators)
        return wiring, []
    message_shapes = [tuple(m.shape[1:]) for m in messages]
    if len(set(message_shapes)) > 1:
        raise ValueError(
            "Invalid value for argument `transfers`. Expected maps of one shape behind "
            f"the transfer layers. Received: {message_shapes}."
        )
    judged = message_shapes[: len(taps)]
    if discriminators is None:
        discriminators = feature.make_discriminators(judged)
    _check_discriminators(discriminators, judged)
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
