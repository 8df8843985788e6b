"""Configurables: the names in gin files, and the parameters that may be set."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

from afd_tf.errors import InvalidValue

_OPTIMIZERS = "AdamW Adamax Nadam RMSprop Adagrad Adadelta Lion Lamb"
_LOSSES = "SparseCategoricalCrossentropy CategoricalCrossentropy"


class Kind(NamedTuple):
    """What a parameter takes: of text Python makes True, and Keras fails with it later.

    Attributes:
        expected: str, in words.
        types: tuple of types.
        others: tuple of further values.
        items: tuple of types, those in a list.
        target: str, the one configurable that a reference may name; "" for any.
    """

    expected: str
    types: tuple
    others: tuple = ()
    items: tuple = ()
    target: str = ""

    def allows(self, value):
        """Whether a value is of this kind; a bool is no number."""
        if isinstance(value, list | tuple) and not all(
            isinstance(item, self.items) for item in value
        ):
            return False
        if isinstance(value, bool):
            return bool in self.types
        return isinstance(value, self.types) or value in self.others


_SWITCH = Kind("True or False, without quotes", (bool,))
_COUNTED_SWITCH = Kind("True, False or an int, without quotes", (bool, int))
_NUMBER = Kind("a number, without quotes", (int, float))
_NUMBER_OR_NONE = _NUMBER._replace(others=(None,))
_WHOLE = Kind("an int or None, without quotes", (int,), (None,))
_TEXT = Kind("a text in quotes, or None", (str,), (None,))
_TEXTS = Kind("a list of texts in quotes, or None", (list, tuple), (None,), (str,))
# Those that the default does not tell.
_KINDS = {
    "train.source": _TEXT,
    "train.data_dir": _TEXT,
    "train.load_data": Kind("@load_data", (), (None,), target="load_data"),
    "train.distiller": Kind("@OnlineDistiller", (), (None,), target="OnlineDistiller"),
    "train.compile": Kind("@compile", (), (None,), target="compile"),
    "OnlineDistiller.tap": Kind(
        "a text or a list of texts in quotes, or None",
        (str, list, tuple),
        (None,),
        (str, type(None)),
    ),
    "OnlineDistiller.checkpointing": _COUNTED_SWITCH,
    "OnlineDistiller.names": _TEXTS,
    "OnlineDistiller.discriminators": Kind(
        "None: models are given in Python", (), (None,)
    ),
    "OnlineDistiller.transfers": Kind("None: models are given in Python", (), (None,)),
    "compile.metrics": _TEXTS,
    "compile.placebo": _COUNTED_SWITCH,
    "compile.jit_compile": _SWITCH._replace(others=("auto",)),
}
_KERAS_KINDS = {
    "ema_overwrite_frequency": _WHOLE,
    "gradient_accumulation_steps": _WHOLE,
    "ignore_class": _WHOLE,
    "dtype": _TEXT,
}


class Configurable(NamedTuple):
    """A callable that gin files may name.

    Attributes:
        function: what gin calls.
        parameters: tuple of str, those that a file may set.
        needed: those of them that have no default.
        kinds: dict of parameter to Kind, or to None where the function checks it.
        complete: bool, whether it can be called with what files set alone, as in
            `@logit/SGD()`; others get arguments from the caller, as in `@resnet`.
    """

    function: Callable
    parameters: tuple
    needed: tuple
    kinds: dict
    complete: bool


class _KerasClass(functools.partial):
    """A class of Keras; a value that it refuses comes from a configuration."""

    def __call__(self, /, *args, **keywords):
        try:
            return super().__call__(*args, **keywords)
        except (TypeError, ValueError, OverflowError) as error:
            name = self.func.__name__
            message = f"Invalid configuration of `{name}`. {error}"
            raise InvalidValue(message) from error


@functools.cache
def table():
    """Return every configurable: dict of name to Configurable."""
    import keras

    from afd_tf import data, networks
    from afd_tf.distillation import schedules
    from afd_tf.distillation.fused_optimizers import SGD, Adam
    from afd_tf.distiller import OnlineDistiller
    from afd_tf.training import train

    # With the arguments that the caller gives, which no file may set.
    ours = {
        "train": (train, "workdir callbacks provenance dry_run trust_source"),
        "OnlineDistiller": (OnlineDistiller, "networks method topology source name"),
        "compile": (OnlineDistiller.compile, "self total_steps steps_per_execution"),
        "load_data": (data.load, "name batch_size data_dir validation seed"),
    }
    for build in networks.builders():
        ours[build.__name__] = (build, "num_classes input_shape")
    for schedule in schedules.SCHEDULES.values():
        ours[schedule.__name__] = (schedule, "")
    classes = [SGD, Adam]
    classes += [getattr(keras.optimizers, name) for name in _OPTIMIZERS.split()]
    classes += [getattr(keras.losses, name) for name in _LOSSES.split()]
    # Partials: of a class, gin would make a subclass, and Keras serializes classes.
    return {
        name: _configurable(name, functools.partial(target), given.split())
        for name, (target, given) in ours.items()
    } | {cls.__name__: _configurable(cls.__name__, _KerasClass(cls)) for cls in classes}


def _configurable(own_name, function, given=()):
    # Without `**kwargs`, which would let a mistyped parameter through.
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind not in variable}
    needed = [name for name in defaults if defaults[name] is inspect.Parameter.empty]
    is_keras = isinstance(function, _KerasClass)
    kinds = {
        name: _KINDS.get(f"{own_name}.{name}") or _kind(name, default, is_keras)
        for name, default in defaults.items()
    }
    return Configurable(
        function,
        tuple(name for name in defaults if name not in given),
        tuple(name for name in needed if name not in given),
        kinds,
        complete=not any(name in given for name in needed),
    )


def _kind(name, default, is_keras):
    """Return the Kind of a parameter, or None: the function checks it itself."""
    if isinstance(default, bool):
        return _SWITCH
    if name == "name":
        return _TEXT
    if not is_keras:
        return None
    if name in _KERAS_KINDS:
        return _KERAS_KINDS[name]
    if isinstance(default, str):
        return _TEXT
    return _NUMBER_OR_NONE if default is None else _NUMBER
