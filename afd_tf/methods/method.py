"""What a method is made of, and the registry of methods by name."""

import abc
import dataclasses
import inspect

import keras

from afd_tf.errors import lookup, nearest

_METHODS = {}


class FeatureObjective(abc.ABC):
    """How networks exchange knowledge through their feature maps.

    The distiller asks an objective for layers once and for losses at every step. A
    *message* is what a network shows of its map: a tensor computed from the network's
    own map through a transfer layer. Gradients flow back only through messages.

    `sources` has an entry per network that learns; maps and their shapes have one more
    where there is a frozen source, the last.

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
            map_shapes: list of `(height, width, channels)`, one per map.
            sources: tuple of tuples of int, the sources of each network.

        Returns:
            List of built Keras layers, or None where a map needs none.
        """

    @abc.abstractmethod
    def messages(self, maps, transfers, sources) -> list:
        """Return the messages, a list of tensors `(batch, height, width, channels)`."""

    @abc.abstractmethod
    def losses(self, messages, maps, sources, discriminators) -> list:
        """Return one float32 tensor `(batch,)` per network that learns.

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


class PretrainedObjective(FeatureObjective):
    """A feature-map objective that may have transfer layers to train beforehand."""

    @property
    @abc.abstractmethod
    def pretraining_epochs(self) -> int:
        """Epochs of training beforehand, at least 1."""

    @abc.abstractmethod
    def pretrained(self, transfers, sources) -> list:
        """List those transfer layers that are trained beforehand, then constant."""

    @abc.abstractmethod
    def pretraining_loss(self, layer, source_map):
        """Return what a layer of `pretrained` minimises beforehand.

        Args:
            layer: the layer.
            source_map: float tensor `(batch, height, width, channels)`, the frozen
                source's feature map.

        Returns:
            float32 tensor `(batch,)`.
        """


@keras.saving.register_keras_serializable(package="afd_tf")
@dataclasses.dataclass(frozen=True)
class Method:
    """A distillation method: which losses the networks minimise.

    Attributes:
        name: str.
        kl: bool, whether the logit loss has the KL term of E1.
        feature: FeatureObjective, or None for no feature-map-based loss.
        frozen_source: "optional", "required" or "refused", whether the networks may
            learn from a network that is trained already.
        branches: int, how many networks are made of one by branching (ONE), or None.
    """

    name: str
    kl: bool = False
    feature: FeatureObjective | None = None
    frozen_source: str = "optional"
    branches: int | None = None

    def __post_init__(self):
        branches = self.branches
        if branches is not None and (not isinstance(branches, int) or branches < 2):
            raise ValueError(
                "Invalid value for option `branches`. Expected an int >= 2. Received: "
                f"branches={branches!r}."
            )

    @property
    def adversarial(self):
        """Whether discriminators take part."""
        return bool(self.feature and self.feature.adversarial)

    def parts(self, with_source=False):
        """Return what a run of this method has, as `results.json` records it.

        Args:
            with_source: bool, whether the networks learn from a frozen source.

        Returns:
            dict: "kl", "maps" (a feature-map-based loss), "feature_update" (an update
            of its own for it), "discriminators": bool; "source": bool, or None where
            the method refuses one; "branches": int or None; "objective": str or None,
            methods of one objective have one set of options.
        """
        feature = self.feature
        return {
            "kl": self.kl,
            "maps": feature is not None,
            "feature_update": feature is not None and not feature.joins_logit_loss,
            "discriminators": self.adversarial,
            "source": None if self.frozen_source == "refused" else with_source,
            "branches": self.branches,
            "objective": type(feature).__name__ if feature else None,
        }

    def get_config(self):
        feature = self.feature and keras.saving.serialize_keras_object(self.feature)
        return {**vars(self), "feature": feature}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if config.get("feature"):
            config["feature"] = keras.saving.deserialize_keras_object(config["feature"])
        return cls(**config)


def register(name, description, *, feature=None, fixed=None, **parts):
    """Register a method under a name.

    Args:
        name: str, what users write.
        description: str, one line for listings.
        feature: FeatureObjective subclass or None. Its constructor's arguments are the
            method's options, and so is `branches` where the method has them.
        fixed: dict of constructor arguments that this method sets; no longer options.
        **parts: the other attributes of `Method`: `kl`, `frozen_source`, `branches`.
    """
    method = Method(name, **parts)
    _METHODS[name] = _Recipe(method, description, feature, fixed or {})


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
    method: Method
    description: str
    feature: type[FeatureObjective] | None
    fixed: dict

    def build(self, options):
        known = inspect.signature(self.feature).parameters if self.feature else {}
        known = [option for option in known if option not in self.fixed]
        own = ["branches"] if self.method.branches else []
        for option in options:
            if option not in known + own:
                raise ValueError(
                    f"Method '{self.method.name}' has no option `{option}`. Its "
                    f"options: {known + own}.{nearest(option, known + own)}"
                )
        parts = {option: options[option] for option in own if option in options}
        if self.feature:
            rest = {k: v for k, v in options.items() if k not in parts}
            parts["feature"] = self.feature(**self.fixed, **rest)
        return dataclasses.replace(self.method, **parts)
