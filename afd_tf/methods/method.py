"""What a method is made of, and the registry of methods by name."""

import abc
import dataclasses
import inspect

import keras

from afd_tf.naming import lookup, nearest

_METHODS = {}


class FeatureObjective(abc.ABC):
    """How networks exchange knowledge through their feature maps.

    The distiller asks an objective for layers once and for losses at every step. A
    *message* is what a network shows of its map: a tensor computed from the network's
    own map through a transfer layer. Gradients flow back only through messages.

    Attributes:
        joins_logit_loss: bool. False: the feature optimizer minimises the losses. True:
            they are added to the logit loss and the logit optimizer minimises both.
        adversarial: bool, whether it has discriminators.
    """

    joins_logit_loss = False
    adversarial = False

    @abc.abstractmethod
    def make_transfers(self, map_shapes, sources) -> list:
        """Create the transfer layers.

        Args:
            map_shapes: list of `(height, width, channels)`, one per network.
            sources: tuple of tuples of int, the sources of each network.

        Returns:
            List of built Keras layers, or None where a map needs none.
        """

    @abc.abstractmethod
    def messages(self, maps, transfers, sources) -> list:
        """Return the messages, a list of tensors `(batch, height, width, channels)`."""

    @abc.abstractmethod
    def losses(self, messages, maps, sources, discriminators) -> list:
        """Return one float32 tensor `(batch,)` per network: what it minimises.

        Args:
            messages: what `messages` returned; gradients are taken with respect to it.
            maps: list of tensors, the raw feature maps; constants.
            sources: tuple of tuples of int.
            discriminators: list of Keras models, empty without an adversarial loss.
        """

    def make_discriminators(self, message_shapes) -> list:
        """Create one discriminator per network; an empty list where none is needed."""
        del message_shapes
        return []

    def judge(self, messages, sources, discriminators) -> list:
        """Let the discriminators judge; return `(real, own)` per network."""
        del messages, sources, discriminators
        return []

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="afd_tf")
@dataclasses.dataclass(frozen=True)
class Method:
    """A distillation method: which losses the networks minimise.

    Attributes:
        name: str.
        kl: bool, whether the logit loss has the KL term of E1.
        feature: FeatureObjective, or None for no feature-map-based loss.
    """

    name: str
    kl: bool = False
    feature: FeatureObjective | None = None

    @property
    def adversarial(self):
        """Whether discriminators take part."""
        return bool(self.feature and self.feature.adversarial)

    def get_config(self):
        feature = self.feature and keras.saving.serialize_keras_object(self.feature)
        return {"name": self.name, "kl": self.kl, "feature": feature}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if config.get("feature"):
            config["feature"] = keras.saving.deserialize_keras_object(config["feature"])
        return cls(**config)


def register(name, description, *, kl=False, feature=None, **fixed):
    """Register a method under a name.

    Args:
        name: str, what users write.
        description: str, one line for listings.
        kl: bool, whether the logit loss has the KL term of E1.
        feature: FeatureObjective subclass or None. Its constructor's arguments are the
            method's options.
        **fixed: constructor arguments that this method sets; no longer options.
    """
    _METHODS[name] = _Recipe(name, description, kl, feature, fixed)


def names():
    """Return the names of all registered methods, sorted."""
    return tuple(sorted(_METHODS))


def describe(name):
    """Return the one-line description of a registered method.

    Raises:
        ValueError: if the name is unknown (the nearest is suggested).
    """
    return lookup("method", name, _METHODS).description


def get(method, **options):
    """Return a `Method` from its name.

    Args:
        method: str, one of `names()`, or a `Method` (returned as it is).
        **options: the method's own options, e.g. `discriminator_batches` for "afd".

    Raises:
        ValueError: if the name or an option is unknown (the nearest is suggested), or
            options come with a `Method`, which has its own already.
    """
    if isinstance(method, Method):
        if options:
            raise ValueError(
                "A `Method` object carries its own options. Received as well: "
                f"{options}. Give them to `afd_tf.methods.get('{method.name}', ...)`."
            )
        return method
    return lookup("method", method, _METHODS).build(options)


@dataclasses.dataclass(frozen=True)
class _Recipe:
    name: str
    description: str
    kl: bool
    feature: type[FeatureObjective] | None
    fixed: dict

    def build(self, options):
        known = inspect.signature(self.feature).parameters if self.feature else {}
        known = [option for option in known if option not in self.fixed]
        for option in options:
            if option not in known:
                raise ValueError(
                    f"Method '{self.name}' has no option `{option}`. Its options: "
                    f"{known}.{nearest(option, known)}"
                )
        feature = self.feature and self.feature(**self.fixed, **options)
        return Method(self.name, kl=self.kl, feature=feature)
