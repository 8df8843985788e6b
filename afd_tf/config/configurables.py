"""Configurables: the names in gin files, and the parameters that may be set."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

from afd_tf.errors import InvalidValue

_OPTIMIZERS = "AdamW Adamax Nadam RMSprop Adagrad Adadelta Lion Lamb"
_LOSSES = "SparseCategoricalCrossentropy CategoricalCrossentropy"


class Configurable(NamedTuple):
    """A callable that gin files may name.

    Attributes:
        function: what gin calls.
        parameters: tuple of str, those that a file may set.
        needed: those of them that have no default.
        complete: bool, whether it can be called with what files set alone, as in
            `@logit/SGD()`; others get arguments from the caller, as in `@resnet`.
    """

    function: Callable
    parameters: tuple
    needed: tuple
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
        name: _configurable(functools.partial(target), given.split())
        for name, (target, given) in ours.items()
    } | {cls.__name__: _configurable(_KerasClass(cls)) for cls in classes}


def _configurable(function, given=()):
    # Without `**kwargs`, which would let a mistyped parameter through.
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind not in variable}
    needed = [name for name in defaults if defaults[name] is inspect.Parameter.empty]
    return Configurable(
        function,
        tuple(name for name in defaults if name not in given),
        tuple(name for name in needed if name not in given),
        complete=not any(name in given for name in needed),
    )
