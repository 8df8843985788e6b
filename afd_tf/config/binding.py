"""Gin files read, checked and bound.

Nothing in the library is decorated: what a file may set (`configurables.py`) is
registered here, from outside, under a short name: `train.epochs`, `@logit/SGD()`. Files
are read with gin's own parser but bound by us, so that a statement is checked before
anything acts on it: imports are refused, and a name that does not exist is an error.
"""

import difflib
import functools
import inspect
import tokenize
from pathlib import Path

import gin
from gin import config_parser

from afd_tf.config import configurables
from afd_tf.config.statements import (
    Reference,
    Statement,
    invalid,
    is_required,
    macro_name,
    shown,
)
from afd_tf.files import read_text

DEFAULTS = "afd.gin"
DEFAULT_PAIRING = "pairings/digits_resnet8_resnet20.gin"
_ROOT = Path(__file__).resolve().parent.parent
_MODULE = "afd_tf"
# Files that include files that include files; more is a mistake or malice.
_MAX_DEPTH = 20


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name, evaluate):
        return Reference(scoped_configurable_name, evaluate, macro=False)

    def macro(self, macro_name):
        return Reference(macro_name, evaluate=True, macro=True)


def load(files=(), params=(), complete=True):
    """Read gin files and parameters; bind them; return the configuration as text.

    `afd.gin` is always read first and each file once. Earlier bindings are cleared.

    Args:
        files: gin file names or paths, later ones winning; none: the default pairing.
        params: gin statements as str, e.g. `"train.epochs = 10"`, applied last.
        complete: whether this must describe a run: every required value set, every
            scope used.

    Returns:
        str, every binding in gin syntax, sorted, as `load` can read it back.

    Raises:
        ValueError: for a file not found, an `import`, a syntax error, an unknown name
            (the nearest is suggested) or a missing required value; with file and line.
    """
    return bind(read(files, params), complete)


def read(files=(), params=()):
    """Read statements without knowing yet what they name; fast, without TensorFlow.

    Args:
        files: as for `load`.
        params: as for `load`.

    Returns:
        list of Statement.

    Raises:
        ValueError: for a file not found, an `import` or a syntax error.
    """
    for given in (files, params):
        if not isinstance(given, list | tuple) or not all(
            isinstance(item, str | Path) for item in given
        ):
            raise TypeError(
                "Invalid value for argument `files` or `params`. Expected lists of "
                f"str. Received: files={files!r}, params={params!r}"
            )
    seen, statements = set(), []
    for name in [DEFAULTS, *(files or [DEFAULT_PAIRING])]:
        statements += _read_file(find(name), seen)
    for param in params:
        statements += _read(str(param), "--gin_param", None, seen)
    return statements


def bind(statements, complete=True):
    """Check statements and bind them.

    Args:
        statements: what `read` returned.
        complete: as for `load`.

    Returns:
        str, as from `load`.

    Raises:
        ValueError: for an unknown name or a missing required value.
    """
    _register()
    configurables.check(statements, complete)
    if complete:
        statements = configurables.effective(statements)
    clear()
    for statement in statements:
        if not is_required(statement):
            _bind(statement)
    return gin.config_str(max_line_length=88)


def clear():
    """Forget every binding, so that nothing of one run reaches the next."""
    gin.clear_config()


def call(name, **arguments):
    """Call a configurable with what the files bind; `arguments` win."""
    return gin.get_configurable(f"{_MODULE}.{name}")(**arguments)


def settings():
    """Return what `train` would be called with: dict of parameter to value."""
    signature = inspect.signature(configurables.table()["train"].function)
    defaults = {
        p.name: p.default
        for p in signature.parameters.values()
        if p.default is not p.empty
    }
    return defaults | gin.get_bindings(f"{_MODULE}.train")


def operative_text():
    """Return every parameter used so far in this process, defaults included."""
    return gin.operative_config_str(max_line_length=88)


# Files ------------------------------------------------------------------------------


def folders():
    """List the folders that hold our gin files: of a checkout, of a wheel."""
    checkout, installed = _ROOT.parent / "gin", _ROOT / "configs"
    # In site-packages the folder `gin` beside us is the gin package itself.
    return [folder for folder in (checkout, installed) if (folder / DEFAULTS).is_file()]


def find(name, beside=None):
    """Resolve a gin file's name: as a path, else in our folders; with or without .gin.

    Args:
        name: str or path, e.g. `"pairings/cifar100_resnet20_wrn16_2"`.
        beside: folder of the including file, searched first.

    Raises:
        ValueError: if there is no such file, with the places searched and the nearest
            existing names.
    """
    roots = [*([beside] if beside else []), Path(), *folders()]
    for root in roots:
        for candidate in (root / name, root / f"{name}.gin"):
            if _is_file(candidate):
                return candidate
    places = ", ".join(str(root.resolve()) for root in dict.fromkeys(roots))
    raise ValueError(
        "Invalid value for argument `gin_file`. Expected a file, found in "
        f"{places}. Received: gin_file={shown(str(name))}.{_nearest_files(str(name))}"
    )


def _is_file(path):
    try:
        return path.is_file()
    except OSError:  # for instance a name that is too long
        return False


def _nearest_files(name):
    if "://" in name:
        return " Files of other machines are not read: copy it here first."
    known = {
        str(path.relative_to(folder))
        for folder in folders()
        for path in folder.rglob("*.gin")
    }
    by_stem = {Path(path).stem: path for path in sorted(known)}
    matches = difflib.get_close_matches(Path(name).stem, by_stem, n=3, cutoff=0.5)
    if not matches:
        parents = sorted({str(Path(path).parent) for path in known} - {"."})
        return f" There are files in {', '.join(parents)}."
    return f" Did you mean {' or '.join(by_stem[match] for match in matches)}?"


# Reading ----------------------------------------------------------------------------


def _read_file(path, seen, depth=0):
    if path.resolve() in seen:
        return []
    seen.add(path.resolve())
    text = read_text(path, "gin file")
    return _read(text, str(path), path.parent, seen, depth)


def _read(text, source, folder, seen, depth=0):
    statements = []
    for parsed in _parse(text, source):
        where = source
        if folder is not None:
            where = f"{source}:{parsed.location.line_num}"
        if isinstance(parsed, config_parser.ImportStatement):
            # gin would execute it: a configuration is data, whoever wrote it.
            raise invalid(where, "no import statement", parsed.format())
        if isinstance(parsed, config_parser.IncludeStatement):
            try:
                path = find(parsed.filename, beside=folder)
            except ValueError as error:
                raise ValueError(f"{error} Included by {where}.") from None
            if depth == _MAX_DEPTH:
                raise invalid(where, f"at most {_MAX_DEPTH} nested includes", path)
            statements += _read_file(path, seen, depth + 1)
        elif isinstance(parsed, config_parser.BindingStatement):
            statements.append(
                Statement(
                    parsed.scope,
                    parsed.selector,
                    parsed.arg_name,
                    parsed.value,
                    where,
                )
            )
    return statements


def _parse(text, source):
    try:
        # The parser reads one token at construction, so that fails here too.
        yield from config_parser.ConfigParser(text, _Delegate())
    # What it raises for nested brackets, odd tokens and keys of a dict that are lists.
    except (
        SyntaxError,
        tokenize.TokenError,
        RecursionError,
        AssertionError,
        TypeError,
    ) as error:
        line = getattr(error, "lineno", None)
        where = (
            source if line is None or source == "--gin_param" else f"{source}:{line}"
        )
        received = (getattr(error, "text", None) or text).strip().splitlines()
        reason = str(error.args[0]).strip().splitlines() if error.args else []
        line = shown(received[0] if received else "")
        why = reason[-1].strip()[:200] if reason else "-"
        raise invalid(
            where, "`name.parameter = value`, strings in quotes", f"{line} ({why})"
        ) from None


# Binding ------------------------------------------------------------------------------


def _bind(statement):
    value = _resolve(statement.value)
    if statement.parameter:
        key = (statement.scope, f"{_MODULE}.{statement.name}", statement.parameter)
    else:
        key = (macro_name(statement), "gin.macro", "value")
    gin.bind_parameter(key, value)


def _resolve(value):
    if isinstance(value, Reference):
        suffix = "/gin.macro" if value.macro else ""
        return gin.config.ConfigurableReference(value.text + suffix, value.evaluate)
    if isinstance(value, dict):
        return {_resolve(k): _resolve(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolve(item) for item in value)
    return value


@functools.cache
def _register():
    for name, configurable in configurables.table().items():
        gin.external_configurable(
            configurable.function,
            name=name,
            module=_MODULE,
            allowlist=list(configurable.parameters) or None,
        )
