"""What a configuration may name, and what it may set of it; the rest is refused."""

import functools
import inspect
from typing import Any, NamedTuple

from afd_tf.config.statements import (
    check_loops,
    check_value,
    invalid,
    is_required,
    macro_name,
    references,
    shown,
)
from afd_tf.errors import nearest

_OPTIMIZERS = [
    "AdamW",
    "Adamax",
    "Nadam",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "Lion",
    "Lamb",
]
# How to give a value that has no default.
_EXAMPLES = {
    "train.networks": " Name a file in pairings/ before your own, such as "
    "--gin_file=pairings/digits_resnet8_resnet20, or add "
    '--gin_param=\'train.networks = ["resnet8", "resnet20"]\'.'
}
_LOSSES = ["SparseCategoricalCrossentropy", "CategoricalCrossentropy"]


class Configurable(NamedTuple):
    """A callable that a file may name, and the parameters that it may set."""

    function: Any
    parameters: tuple


@functools.cache
def table():
    """Return what a file may name: dict of short name to Configurable."""
    import keras

    from afd_tf import data, networks
    from afd_tf.distillation import schedules
    from afd_tf.distillation.fused_optimizers import SGD, Adam
    from afd_tf.distiller import OnlineDistiller
    from afd_tf.training import experiment

    per_data = ("num_classes", "input_shape")
    listed = [
        _configurable(
            experiment.train, "train", elsewhere=("workdir", "provenance", "dry_run")
        ),
        _configurable(
            OnlineDistiller,
            elsewhere=("networks", "method", "topology", "source", "name"),
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
        *(_configurable(build, elsewhere=per_data) for build in networks.builders()),
        *(_configurable(cls) for cls in schedules.SCHEDULES.values()),
        *(_configurable(optimizer) for optimizer in (SGD, Adam)),
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


def check(statements, complete):
    """Refuse every name that does not exist, before anything is bound.

    Args:
        statements: list of Statement, in the order in which they win.
        complete: bool, whether they must describe a run; see `config.load`.

    Raises:
        ValueError: for the first name that is not known, with where it stands.
    """
    known = table()
    for statement in statements:
        check_value(statement)
    macros = {macro_name(s) for s in statements if not s.parameter}
    used_macros, used_scopes = set(), set()
    for statement in statements:
        for reference in references(statement.value):
            if reference.macro:
                used_macros.add(reference.text)
                _check_known("%", reference.text, {*macros, "gin.REQUIRED"}, statement)
            else:
                *scopes, name = reference.text.split("/")
                used_scopes.update(scopes)
                _check_known("@", name, known, statement)
    for statement in statements:
        if not statement.parameter:
            _check_macro(statement, used_macros)
            continue
        _check_known("", statement.name, known, statement)
        _check_parameter(statement, known)
        if complete:
            _check_scope(statement, used_scopes)
    if complete:
        _check_required(statements)
    check_loops(statements)


def effective(statements):
    """Return the statements that have an effect: the last of each, if it is reached.

    What one file says of `@resnet20/resnet` is without effect where a later one
    replaces the networks, and two ways to say the same become the same text.

    Args:
        statements: list of Statement that `check` has accepted as complete.
    """
    last = {(s.scope, s.name, s.parameter): s for s in statements}
    found = list(last.values())
    while True:
        scopes = {""}
        for reference in references([s.value for s in found]):
            scopes.update(reference.text.split("/")[:-1])
        reached = [
            s for s in found if not s.parameter or scopes.issuperset(s.scope.split("/"))
        ]
        if len(reached) == len(found):
            return found
        found = reached


def _check_known(mark, name, known, statement):
    if name not in known:
        expected = "a macro that a file defines" if mark == "%" else "a known name"
        received = f"{mark}{name}"
        raise invalid(statement.where, expected, received, nearest(name, known))


def _check_macro(statement, used):
    # Most likely a parameter without its configurable: `epochs = 3`.
    name = macro_name(statement)
    if name not in used:
        parameters = [f"{n}.{p}" for n, c in table().items() for p in c.parameters]
        raise invalid(
            statement.where,
            "`name.parameter = value`, or a macro that something refers to",
            shown(statement.value, statement),
            nearest(f"train.{name}", [*parameters, *used]),
        )


def _check_parameter(statement, known):
    own = known[statement.name].parameters
    if statement.parameter not in own:
        wanted = statement.parameter
        # Of another name, such as `train`, it may be just that.
        others = [f"{n}.{wanted}" for n, c in known.items() if wanted in c.parameters]
        hint = nearest(others[0], others) if others else nearest(wanted, own)
        raise invalid(
            statement.where,
            f"a parameter of `{statement.name}`",
            f"{statement.name}.{wanted}",
            hint,
        )


def _check_scope(statement, used):
    unused = [scope for scope in statement.scope.split("/") if scope not in {*used, ""}]
    if unused:
        raise invalid(
            statement.where,
            f"a scope that some `@scope/{statement.name}` refers to",
            f"{statement.scope}/{statement.name}.{statement.parameter}",
            nearest(unused[0], used),
        )


def _check_required(statements):
    last = {(s.scope, s.name, s.parameter): s for s in statements}
    for statement in filter(is_required, last.values()):
        name = f"{statement.name}.{statement.parameter}"
        raise ValueError(
            f"Invalid configuration. `{name}` has no value. Expected one from a file "
            f"or a parameter. Received: none.{_EXAMPLES.get(name, '')}"
        )
