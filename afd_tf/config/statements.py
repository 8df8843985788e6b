"""Statements of a configuration, and what each may hold whatever it names."""

import graphlib
import math
from typing import Any, NamedTuple

# Lists within lists.
_MAX_DEPTH = 20


class Reference(NamedTuple):
    """`@scope/name`, `@scope/name()` or `%macro`, before the name is looked up."""

    text: str
    evaluate: bool
    macro: bool

    def __repr__(self):
        if self.macro:
            return f"%{self.text}"
        return f"@{self.text}{'()' if self.evaluate else ''}"


class Statement(NamedTuple):
    """One line of a configuration: `scope/name.parameter = value`, or a macro."""

    scope: str
    name: str
    parameter: str
    value: Any
    where: str


def invalid(where, expected, received, hint=""):
    """Return the error for a statement that cannot be meant."""
    return ValueError(
        f"Invalid configuration in {where}. Expected {expected}. "
        f"Received: {received}.{hint}"
    )


def shown(value, statement=None):
    """Return a value as text for a message, not longer than fits there."""
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        text = "an int that is too large"
    text = text if len(text) <= 200 else f"{text[:200]}..."
    if statement is None:
        return text
    names = (macro_name(statement), statement.parameter)
    return f"{'.'.join(filter(None, names))} = {text}"


def is_required(statement):
    """Whether a statement only says that another one must give the value."""
    value = statement.value
    return isinstance(value, Reference) and value.text == "gin.REQUIRED"


def macro_name(statement):
    """Return the name of the macro that a statement without parameter defines."""
    return f"{statement.scope}/{statement.name}".lstrip("/")


def check_value(statement):
    """Refuse what no parameter takes and what cannot be written down and read again.

    A dict is for `train.method_options` alone: Keras makes objects of others, and a
    configuration makes only what is registered.
    """
    value, problem = statement.value, None
    for part, depth in _parts(value):
        if isinstance(part, int) and not -(2**63) <= part < 2**63:
            problem = "an int within 64 bits"
        elif isinstance(part, float) and not math.isfinite(part):
            problem = "a finite number"
        elif isinstance(part, dict):
            if (statement.name, statement.parameter) != ("train", "method_options"):
                problem = "no dict, except for train.method_options"
            elif not all(isinstance(key, str) for key in part):
                problem = "names as keys of a dict"
        elif not isinstance(part, Reference | str | int | float | list | tuple | None):
            problem = "a number, a str, True, False, None or a list of these"
        if depth > _MAX_DEPTH:
            problem = f"at most {_MAX_DEPTH} nested lists"
        if problem:
            raise invalid(statement.where, problem, shown(value, statement))


def _parts(value, depth=0):
    """Yield a value and everything in it, with how deep it lies."""
    yield value, depth
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple) and not isinstance(value, Reference):
        for item in value:
            yield from _parts(item, depth + 1)


def check_loops(statements):
    """Refuse what would call itself: `a = %b`, `b = %a`, `SGD.momentum = @SGD()`."""
    last = {(s.scope, s.name, s.parameter): s for s in statements}
    leads_to = {}
    for statement in last.values():
        own = statement.name if statement.parameter else f"%{macro_name(statement)}"
        for reference in references(statement.value):
            name = reference.text.split("/")[-1]
            name = f"%{reference.text}" if reference.macro else name
            leads_to.setdefault(own, {})[name] = statement
    try:
        graphlib.TopologicalSorter(leads_to).prepare()
    except graphlib.CycleError as error:
        leading, leader = error.args[1][:2]
        statement = leads_to[leader][leading]
        raise invalid(
            statement.where,
            "a value that does not lead back to itself",
            shown(statement.value, statement),
        ) from None


def references(value):
    """Yield every Reference in a value."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict):
        for item in [*value.keys(), *value.values()]:
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
