"""Bindings: statements checked against the configurables, and handed to gin.

Nothing in the library is decorated: the configurables are registered from outside,
under short names: `train.epochs`, `@logit/SGD()`.
"""

import functools
import itertools

import gin

from afd_tf.config import gin_files
from afd_tf.config.configurables import table
from afd_tf.config.gin_files import Reference
from afd_tf.errors import InvalidValue, nearest, shown

_MODULE = "afd_tf"
_REQUIRED = Reference("gin.REQUIRED", evaluate=True, macro=True)
# How to give a value that has no default.
_EXAMPLES = {
    "train.networks": " Name a file in pairings/ before your own, such as "
    "--gin_file=pairings/digits_resnet8_resnet20, or add "
    '--gin_param=\'train.networks = ["resnet8", "resnet20"]\'.'
}


def load(files=(), params=(), complete=True):
    """Read gin files and parameters; bind them; return the configuration as text.

    Earlier bindings are cleared.

    Args:
        files: as for `read`.
        params: as for `read`.
        complete: bool, whether this must describe a run: every required value set,
            every statement with an effect.

    Returns:
        str, in gin syntax and sorted, every binding that has an effect.

    Raises:
        InvalidValue: as from `read`, and for an unknown name (the nearest is
            suggested), a value of the wrong kind, a statement without effect, or a
            missing value; with file and line.
    """
    return bind(gin_files.read(files, params), complete)


def bind(statements, complete=True):
    """Check the statements that `read` returned, and bind them; see `load`."""
    _register()
    _check_names(statements)
    if complete:
        statements = _effective(statements)
        _check_missing(statements)
    clear()
    for statement in statements:
        key = (statement.scope, f"{_MODULE}.{statement.name}", statement.parameter)
        if not statement.parameter:
            key = (statement.name, "gin.macro", "value")
        if statement.value != _REQUIRED:
            gin.bind_parameter(key, _gin_value(statement.value))
    return gin.config_str(max_line_length=88)


def clear():
    """Forget every binding, so that nothing of one run reaches the next."""
    gin.clear_config()


def call(name, **arguments):
    """Call a configurable with what the files bind; `arguments` win."""
    return gin.get_configurable(f"{_MODULE}.{name}")(**arguments)


def settings():
    """Return what the files bind of `train`: dict of parameter to value."""
    return gin.get_bindings(f"{_MODULE}.train")


def operative_text():
    """Return every parameter used so far in this process, defaults included."""
    return gin.operative_config_str(max_line_length=88)


def _check_names(statements):
    macros = {s.name: s for s in statements if not s.parameter} | {"gin.REQUIRED": None}
    used = [r.text for s in statements for r in s.references() if r.macro]
    for statement in statements:
        name, parameter = statement.name, statement.parameter
        if parameter:
            _check_known(statement, "", name, table())
            if parameter not in table()[name].parameters:
                hint = _nearest_parameter(name, parameter)
                expected = f"a parameter of `{name}`"
                raise statement.invalid(expected, f"{name}.{parameter}", hint)
        elif name not in used:
            # Most likely a parameter without its configurable: `epochs = 3`.
            expected = "`name.parameter = value`, or a macro that something refers to"
            hint = nearest(name, used) or _nearest_parameter("train", name)
            raise statement.invalid(expected, hint=hint)
        for reference in statement.references():
            _check_reference(statement, reference, macros)
        if parameter:
            _check_kind(statement, macros)


def _check_reference(statement, reference, macros):
    if reference.macro:
        _check_known(statement, "%", reference.text, macros)
        macro = macros[reference.text]
        plain = macro is None or not macro.references()
    else:
        name = reference.text.split("/")[-1]
        _check_known(statement, "@", name, table())
        if reference.evaluate and not table()[name].complete:
            raise statement.invalid(f"@{reference.text} without (): it is called later")
        plain = False
    # `a = %a` and `SGD.momentum = @SGD()` never end.
    if statement.parameter:
        allowed = plain or not table()[statement.name].complete
    else:
        allowed = not reference.macro
    if not allowed:
        raise statement.invalid("a value that cannot lead back to itself")


def _check_known(statement, mark, name, known):
    if name not in known:
        expected = "a macro that a file defines" if mark == "%" else "a known name"
        raise statement.invalid(expected, f"{mark}{name}", nearest(name, known))


def _nearest_parameter(name, parameter):
    # The name may be another's, such as `train`, and be just that.
    every = [f"{n}.{p}" for n, each in table().items() for p in each.parameters]
    same = [known for known in every if known.endswith(f".{parameter}")]
    own = [known for known in every if known.startswith(f"{name}.")]
    return nearest(f"{name}.{parameter}", same or own)


def _check_kind(statement, macros):
    kind, value = table()[statement.name].kinds[statement.parameter], statement.value
    if isinstance(value, Reference) and value.macro:
        value = macros[value.text].value if macros[value.text] else _REQUIRED
    if kind is None or value == _REQUIRED:
        return
    if isinstance(value, Reference):
        allowed = kind.target in ("", value.text.split("/")[-1])
    else:
        allowed = kind.allows(value)
    if not allowed:
        raise statement.invalid(kind.expected)


def _effective(statements):
    """Return the statements that have an effect.

    What one file says of `@resnet20/resnet` is without effect where a later one
    replaces the networks, and two ways to say the same become the same text. What had
    no effect when it was read, nor later, cannot be meant: it is refused.
    """
    last, seen, reached, calls = {}, set(), set(), set()
    for _, part in itertools.groupby(statements, key=lambda s: s.origin):
        last |= {s.key: s for s in part}
        reached, calls = _reached(last)
        seen |= {id(last[key]) for key in reached}
    for statement in last.values():
        if id(statement) not in seen:
            raise _without_effect(statement, last.values(), calls)
    return [s for s in last.values() if s.key in reached]


def _reached(statements):
    """Follow references from `train` on, as gin does when it calls.

    Args:
        statements: dict of key to Statement.

    Returns:
        set of str, keys of the statements that win in some call; set of (name, scope)
        of all calls.
    """
    by_name = {}
    for s in statements.values():
        by_name.setdefault(s.name if s.parameter else f"%{s.name}", []).append(s)
    reached, calls, waiting = set(), set(), [("train", "")]
    while waiting:
        name, scope = call = waiting.pop()
        if call in calls:
            continue
        calls.add(call)
        for winner in _winners(by_name.get(name, ()), scope).values():
            reached.add(winner.key)
            for reference in winner.references():
                # The value of a macro is computed in a scope of its name.
                own, _, target = reference.text.rpartition("/")
                if reference.macro:
                    own, target = reference.text, f"%{reference.text}"
                waiting.append((target, own or scope))
    return reached, calls


def _winners(statements, scope):
    """Return the statements that win in a scope: dict of parameter to Statement."""
    outer = [s for s in statements if f"{scope}/".startswith(s.scope and f"{s.scope}/")]
    return {s.parameter: s for s in sorted(outer, key=lambda s: len(s.scope))}


def _without_effect(statement, statements, calls):
    """Return the error for a statement that another one hides, or nothing reaches."""
    name, parameter = statement.name, statement.parameter
    rivals = [s for s in statements if (s.name, s.parameter) == (name, parameter)]
    scopes = sorted(scope for called, scope in calls if called == name)
    for scope in scopes:
        winners = _winners(rivals, scope).values()
        if _winners([statement], scope):
            [winner] = winners
            return statement.invalid(
                f"a setting with an effect; {winner.key} = "
                f"{shown(winner.value)} wins ({winner.where})"
            )
    used = {part for _, scope in calls for part in scope.split("/")} - {""}
    wrong = [part for part in statement.scope.split("/") if part not in {*used, ""}]
    hint = nearest(wrong[0], used) if wrong else ""
    names = [f"@{scope}/{name}".replace("@/", "@") for scope in scopes]
    if names:
        hint = hint or f" In use: {', '.join(names)}."
    expected = f"a scope that some `@scope/{name}` refers to"
    return statement.invalid(expected, hint=hint)


def _check_missing(statements):
    """Refuse a value that is required, or has no default, and that nothing gives."""
    for statement in statements:
        if statement.value == _REQUIRED:
            raise InvalidValue(
                f"Invalid configuration. `{statement.key}` has no value. Expected one "
                "from a file or a parameter. Received: none."
                f"{_EXAMPLES.get(statement.key, '')}"
            )
    bound = {(s.name, s.parameter, s.scope) for s in statements}
    for statement in statements:
        for reference in statement.references():
            *scopes, name = reference.text.split("/")
            outer = ["/".join(scopes[:i]) for i in range(len(scopes) + 1)]
            for parameter in () if reference.macro else table()[name].needed:
                if not any((name, parameter, scope) in bound for scope in outer):
                    expected = f"a value of `{reference.text}.{parameter}`"
                    raise statement.invalid(expected)


def _gin_value(value):
    if isinstance(value, Reference):
        suffix = "/gin.macro" if value.macro else ""
        return gin.config.ConfigurableReference(value.text + suffix, value.evaluate)
    if isinstance(value, dict):
        return {key: _gin_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_gin_value, value))
    return value


@functools.cache
def _register():
    for name, configurable in table().items():
        gin.external_configurable(
            configurable.function,
            name=name,
            module=_MODULE,
            allowlist=list(configurable.parameters) or None,
        )
