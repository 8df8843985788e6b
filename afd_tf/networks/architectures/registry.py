"""Networks by name, as configurations write them: "resnet20", "wrn16_2"."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from afd_tf.errors import invalid, nearest, shown
from afd_tf.networks.architectures.blocks import MOST_LAYERS
from afd_tf.text import counted


@dataclass(frozen=True)
class _Family:
    pattern: str
    builder: Callable
    examples: tuple
    arguments: dict

    def parse(self, name):
        """Return the builder's arguments, or None for a name of another family."""
        regex = re.sub("<([a-z]+)>", r"(?P<\1>[1-9][0-9]*)", self.pattern)
        regex = re.sub("<([A-Z][a-z]+)>", r"(?P<\1>[A-Z]\\w*)", regex)
        match = re.fullmatch(regex, name, re.ASCII)
        if match is None:
            return None
        parsed = {
            key.lower(): int(value) if value.isdecimal() else value
            for key, value in match.groupdict().items()
        }
        return {**parsed, **self.arguments}


_families: dict[str, _Family] = {}


def register(pattern, examples=(), **arguments):
    """Register the decorated function as a network, or a family of them.

    Args:
        pattern: str, the name. Each `<number>` in it is an int and each `<Name>`, with
            a capital, a str; the function gets them as arguments of these names, in
            lower case.
        examples: iterable of str, names of the pattern worth mentioning in error
            messages. Default: the pattern itself if nothing in it varies.
        **arguments: further arguments of the function under this name.

    Returns:
        Decorator of a function `(num_classes, input_shape, **options)` that returns a
        keras.Model; the function stays as it is.

    Raises:
        ValueError: if the pattern is taken.

    Example:
    ```python
    @register("mlp<depth>", examples=["mlp3"])
    def mlp(depth, num_classes, input_shape=(32, 32, 3)): ...
    ```
    """
    if pattern in _families:
        raise invalid("pattern", "a name that is not taken", pattern)
    if not examples and "<" not in pattern:
        examples = (pattern,)

    def add(builder):
        _families[pattern] = _Family(pattern, builder, tuple(examples), arguments)
        return builder

    return add


def build(name, num_classes, input_shape=(32, 32, 3), **options):
    """Build a network from its name.

    Args:
        name: str, such as "resnet20" or "wrn16_2"; see `patterns`.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        **options: further arguments of the network's function.

    Returns:
        keras.Model, named `name` unless the options say otherwise.

    Raises:
        ValueError: if there is no such network.

    Example:
        >>> build("wrn16_2", num_classes=100).name
        'wrn16_2'
    """
    for family in _families.values():
        arguments = family.parse(name) if isinstance(name, str) else None
        if arguments is not None:
            arguments |= {"num_classes": num_classes, "input_shape": input_shape}
            return family.builder(**{**arguments, **options})
    hint = nearest(name, names()).strip()
    raise invalid("name", f"one of {', '.join(patterns())}", name, hint=hint)


@contextlib.contextmanager
def at_most_layers(networks, most):
    """Limit how many layers networks have together; nothing larger is built meanwhile.

    Args:
        networks: list of names, or of callables, which count when they are called.
        most: int.

    Raises:
        ValueError: if there are more, by the depths in the names.
    """
    depths = [_depth(network) for network in networks]
    if sum(depths) > most:
        largest = networks[depths.index(max(depths))]
        raise invalid(
            "networks",
            f"at most {most:,} layers in all",
            received=f"{counted(len(networks), 'network')} of {sum(depths):,} layers, "
            f"the largest {shown(largest)}",
            hint=f"Set max_layers to {sum(depths)} if you have the time and the "
            "memory.",
        )
    token = MOST_LAYERS.set(most)
    try:
        yield
    finally:
        MOST_LAYERS.reset(token)


def _depth(network):
    if isinstance(network, str):
        for family in _families.values():
            arguments = family.parse(network)
            if arguments is not None:
                return arguments.get("depth", 1)
    return 1


def names():
    """List the networks worth knowing by name; the patterns give more."""
    return tuple(name for family in _families.values() for name in family.examples)


def patterns():
    """List the patterns that names of networks follow, such as "resnet<depth>"."""
    return tuple(_families)


def builders():
    """List the functions that build networks, each once."""
    return tuple(dict.fromkeys(family.builder for family in _families.values()))
