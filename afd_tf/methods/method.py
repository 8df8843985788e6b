"""Methods: what each is made of, and their registry by name."""

import abc
import dataclasses

import keras

from afd_tf.errors import InvalidValue, integer, lookup, nearest

_METHODS = {}


class FeatureObjective(abc.ABC):
    """How networks exchange knowledge through their feature maps.

    A subclass is a frozen dataclass; its fields are the method's options. The distiller
    asks it for layers once and for losses at every step. What the losses are a function
    of are *transferred maps*: tensors computed from the networks' own maps through
    transfer layers. Gradients flow back through these alone.

    `peers` has a tuple of indices per network that learns: of the networks that it
    learns from. Maps and their shapes have one more where there is a frozen source, the
    last.

    Attributes:
        joins_logit_loss: bool. False: the feature optimizer minimises the losses. True:
            they are added to the logit loss and the logit optimizer minimises both.
        adversarial: bool, whether it has discriminators.
    """

    joins_logit_loss = False
    adversarial = False

    @abc.abstractmethod
    def make_transfers(self, map_shapes, peers) -> list:
        """Create the transfer layers.

        Args:
            map_shapes: list of `(height, width, channels)`, one per map.
            peers: tuple of tuples of int.

        Returns:
            List of built Keras layers, or None where a map needs none.
        """

    @abc.abstractmethod
    def transfer(self, maps, transfers, peers) -> list:
        """Return the transferred maps.

        Args:
            maps: list of tensors `(batch, height, width, channels)`.
            transfers: what `make_transfers` returned.
            peers: tuple of tuples of int.

        Returns:
            List of tensors `(batch, height, width, channels)`.
        """

    @abc.abstractmethod
    def losses(self, transferred, maps, peers, discriminators) -> list:
        """Return one float32 tensor `(batch,)` per network that learns.

        Args:
            transferred: what `transfer` returned; gradients are taken with respect to
                it.
            maps: list of tensors, the raw feature maps; constants.
            peers: tuple of tuples of int.
            discriminators: list of Keras models, empty without an adversarial loss.
        """

    def make_discriminators(self, map_shapes) -> list:
        """Create one discriminator per network; an empty list where none is needed.

        Args:
            map_shapes: list of the transferred maps' `(height, width, channels)`.
        """
        del map_shapes
        return []

    def discriminate(self, transferred, peers, discriminators) -> list:
        """Return the discriminators' outputs, a pair `(real, own)` per network."""
        del transferred, peers, discriminators
        return []

    def get_config(self):
        return {field: getattr(self, field) for field in option_names(type(self))}

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
    def pretrained(self, transfers, peers) -> list:
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
        if self.branches is not None:
            integer("branches", self.branches, 2)

    @property
    def adversarial(self):
        """Whether discriminators take part."""
        return bool(self.feature and self.feature.adversarial)

    @property
    def feature_update(self):
        """Whether the feature-map-based loss has an update of its own."""
        return bool(self.feature and not self.feature.joins_logit_loss)

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
        return {
            "kl": self.kl,
            "maps": self.feature is not None,
            "feature_update": self.feature_update,
            "discriminators": self.adversarial,
            "source": None if self.frozen_source == "refused" else with_source,
            "branches": self.branches,
            "objective": type(self.feature).__name__ if self.feature else None,
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


def register(name, description, *, feature=None, fixed=None, **attributes):
    """Register a method under a name.

    Args:
        name: str, what users write.
        description: str, one line for listings.
        feature: FeatureObjective subclass or None. Its fields are the method's options,
            and so is `branches` where the method has them.
        fixed: dict of fields that this method sets; no longer options.
        **attributes: of `Method`: `kl`, `frozen_source`, `branches`.
    """
    method = Method(name, **attributes)
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
            raise InvalidValue(
                "A `Method` object carries its own options. Received as well: "
                f"{options}. Give them to `afd_tf.methods.get('{method.name}', ...)`."
            )
        return method
    return lookup("method", method, _METHODS).build(options)


def option_names(objective):
    """List the options of a feature-map objective, the fields of its class."""
    return [field.name for field in dataclasses.fields(objective)]


@dataclasses.dataclass(frozen=True)
class _Recipe:
    method: Method
    description: str
    feature: type[FeatureObjective] | None
    fixed: dict

    def build(self, options):
        known = option_names(self.feature) if self.feature else []
        known = [option for option in known if option not in self.fixed]
        own = ["branches"] if self.method.branches else []
        for option in options:
            if option not in known + own:
                raise InvalidValue(
                    f"Method '{self.method.name}' has no option `{option}`. Its "
                    f"options: {known + own}.{nearest(option, known + own)}"
                )
        attributes = {option: options[option] for option in own if option in options}
        if self.feature:
            rest = {k: v for k, v in options.items() if k not in attributes}
            attributes["feature"] = self.feature(**self.fixed, **rest)
        return dataclasses.replace(self.method, **attributes)
