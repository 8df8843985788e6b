"""What a configuration may name, and what it may set of it."""

import functools
import inspect
from typing import Any, NamedTuple

_OPTIMIZERS = [
    "SGD",
    "Adam",
    "AdamW",
    "Adamax",
    "Nadam",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "Lion",
    "Lamb",
]
_LOSSES = ["SparseCategoricalCrossentropy", "CategoricalCrossentropy"]


class Configurable(NamedTuple):
    """A callable that a file may name, and the parameters that it may set."""

    function: Any
    parameters: tuple


@functools.cache
def table():
    """Return what a file may name: dict of short name to Configurable."""
    import keras

    from afd_tf import data, networks, schedules
    from afd_tf.distiller import OnlineDistiller
    from afd_tf.training import experiment

    per_data = ("num_classes", "input_shape")
    listed = [
        _configurable(
            experiment.train, "train", elsewhere=("workdir", "provenance", "dry_run")
        ),
        _configurable(
            OnlineDistiller, elsewhere=("networks", "method", "topology", "name")
        ),
        _configurable(
            OnlineDistiller.compile,
            elsewhere=("self", "total_steps", "steps_per_execution"),
        ),
        _configurable(
            data.load,
            "load_data",
            elsewhere=("name", "batch_size", "data_dir", "validation", "seed"),
        ),
        _configurable(networks.resnet, elsewhere=per_data),
        _configurable(networks.wide_resnet, elsewhere=per_data),
        *(_configurable(cls) for cls in schedules.SCHEDULES.values()),
        *(_configurable(getattr(keras.optimizers, name)) for name in _OPTIMIZERS),
        *(_configurable(getattr(keras.losses, name)) for name in _LOSSES),
    ]
    return {configurable.function.__name__: configurable for configurable in listed}


def _configurable(target, name=None, elsewhere=()):
    """Wrap a callable, so that gin never touches a class that Keras serializes."""

    def build(*args, **kwargs):
        try:
            return target(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if not target.__module__.startswith("keras"):
                raise
            # What Keras refuses here, a configuration has asked for.
            raise ValueError(f"Invalid configuration of `{name}`. {error}") from error

    name = name or target.__name__
    signature = inspect.signature(target)
    # A `**kwargs` would let a mistyped parameter through.
    named = [
        p
        for p in signature.parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    build.__signature__ = signature.replace(parameters=named)
    build.__name__ = build.__qualname__ = name
    build.__doc__ = target.__doc__
    parameters = tuple(p.name for p in named if p.name not in elsewhere)
    return Configurable(build, parameters)
