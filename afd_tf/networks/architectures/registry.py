"""Networks by name, as configurations write them: "resnet20", "wrn16_2"."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from afd_tf.errors import nearest
from afd_tf.networks.architectures.application import ARCHITECTURES, application
from afd_tf.networks.architectures.densenet import densenet
from afd_tf.networks.architectures.imagenet_resnet import DEPTHS as IMAGENET_DEPTHS
from afd_tf.networks.architectures.imagenet_resnet import imagenet_resnet
from afd_tf.networks.architectures.mobilenet_v2 import mobilenet_v2
from afd_tf.networks.architectures.resnet import resnet
from afd_tf.networks.architectures.shufflenet_v2 import WIDTHS, shufflenet_v2
from afd_tf.networks.architectures.vgg import DEPTHS as VGG_DEPTHS
from afd_tf.networks.architectures.vgg import vgg
from afd_tf.networks.architectures.wide_resnet import wide_resnet


@dataclass(frozen=True)
class _Family:
    pattern: str
    examples: tuple
    builder: Callable

    def parse(self, name):
        """Return what the name says, or None if it is of another family."""
        regex = re.sub(r"<[a-z]+>", r"([1-9][0-9]*)", self.pattern)
        regex = re.sub(r"<[A-Z][a-z]+>", r"([A-Z]\\w*)", regex)
        match = re.fullmatch(regex, name, re.ASCII)
        if match is None:
            return None
        return tuple(int(s) if s.isdecimal() else s for s in match.groups())


_families: dict[str, _Family] = {}


def register(pattern, builder, examples=()):
    """Register a network, or a family of them, under a name.

    Args:
        pattern: str, the name; each `<number>` in it is handed to the builder as an
            int, and each `<Name>`, with a capital, as a str, in order, before the other
            arguments.
        builder: callable `(*said, num_classes, input_shape, **options)` that returns a
            keras.Model, or a `functools.partial` of one.
        examples: tuple of str, names of the pattern worth mentioning in help and
            error messages. Default: the pattern itself if it has no number.

    Raises:
        ValueError: if the pattern is taken.
    """
    if pattern in _families:
        raise ValueError(
            "Invalid value for argument `pattern`. Expected a name that is not taken. "
            f"Received: pattern={pattern!r}."
        )
    if not examples and "<" not in pattern:
        examples = (pattern,)
    _families[pattern] = _Family(pattern, tuple(examples), builder)


def build(name, num_classes, input_shape=(32, 32, 3), **options):
    """Build a network from its name.

    Args:
        name: str, such as "resnet20" or "wrn16_2"; see `patterns`.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        **options: what the network's builder takes besides.

    Returns:
        keras.Model, named `name` unless the options say otherwise.

    Raises:
        ValueError: if there is no such network.

    Example:
        >>> build("wrn16_2", num_classes=100).name
        'wrn16_2'
    """
    for family in _families.values():
        said = family.parse(name) if isinstance(name, str) else None
        if said is not None:
            return family.builder(*said, num_classes, input_shape, **options)
    raise ValueError(
        f"Invalid value for argument `name`. Expected one of {', '.join(patterns())}. "
        f"Received: name={name!r}.{nearest(name, names())}"
    )


def names():
    """List the networks worth knowing by name; the patterns give more."""
    return tuple(name for family in _families.values() for name in family.examples)


def patterns():
    """List the patterns that names of networks follow, such as "resnet<depth>"."""
    return tuple(_families)


def builders():
    """List the functions that build networks, each once."""
    functions = [
        getattr(family.builder, "func", family.builder) for family in _families.values()
    ]
    return tuple(dict.fromkeys(functions))


register(
    "resnet<depth>",
    resnet,
    tuple(f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)),
)
register(
    "wrn<depth>_<width>",
    wide_resnet,
    ("wrn10_2", "wrn16_2", "wrn16_4", "wrn28_2", "wrn28_4", "wrn40_2", "wrn28_10"),
)
register(
    "imagenet_resnet<depth>",
    imagenet_resnet,
    tuple(f"imagenet_resnet{depth}" for depth in IMAGENET_DEPTHS),
)
register("vgg<depth>_bn", vgg, tuple(f"vgg{depth}_bn" for depth in VGG_DEPTHS))
register("densenet<depth>_<growth>", densenet, ("densenet40_12", "densenet100_12"))
for _stem, _prefix in (("imagenet", ""), ("cifar", "cifar_")):
    register(f"{_prefix}mobilenet_v2", functools.partial(mobilenet_v2, stem=_stem))
    for _width in WIDTHS:
        register(
            f"{_prefix}shufflenet_v2_x{str(_width).replace('.', '_')}",
            functools.partial(shufflenet_v2, _width, stem=_stem),
        )
register(
    "applications/<Architecture>",
    application,
    tuple(f"applications/{name}" for name in ARCHITECTURES),
)
