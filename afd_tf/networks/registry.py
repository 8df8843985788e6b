"""Networks by name, as configurations write them: "resnet20", "wrn16_2"."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from afd_tf.naming import nearest
from afd_tf.networks.resnet import resnet
from afd_tf.networks.wide_resnet import wide_resnet


@dataclass(frozen=True)
class _Family:
    pattern: str
    examples: tuple
    builder: Callable

    def parse(self, name):
        """Return the numbers in the name, or None if it is of another family."""
        regex = re.sub(r"<\w+>", r"([1-9][0-9]*)", self.pattern)
        match = re.fullmatch(regex, name)
        return None if match is None else tuple(int(n) for n in match.groups())


_families: dict[str, _Family] = {}


def register(pattern, builder, examples=()):
    """Register a network, or a family of them, under a name.

    Args:
        pattern: str, the name; each `<number>` in it is handed to the builder as an
            int, in order, before the other arguments.
        builder: callable `(*numbers, num_classes, input_shape, **options)` that
            returns a keras.Model.
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
        numbers = family.parse(name) if isinstance(name, str) else None
        if numbers is not None:
            return family.builder(*numbers, num_classes, input_shape, **options)
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
