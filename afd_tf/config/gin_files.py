"""Gin files: found by name and read as statements, without TensorFlow."""

import difflib
import os
import tokenize
from pathlib import Path
from typing import Any, NamedTuple

from gin import config_parser

from afd_tf import errors
from afd_tf.files import read_text

DEFAULTS = "afd.gin"
DEFAULT_PAIRING = "pairings/digits_resnet8_resnet20.gin"
_PACKAGE = Path(__file__).resolve().parent.parent


class Reference(NamedTuple):
    """`@scope/name`, `@scope/name()` or `%macro`."""

    text: str
    evaluate: bool
    macro: bool

    def __repr__(self):
        if self.macro:
            return f"%{self.text}"
        return f"@{self.text}{'()' if self.evaluate else ''}"


class Statement(NamedTuple):
    """`scope/name.parameter = value`, or `name = value`, which defines a macro."""

    scope: str
    name: str
    parameter: str
    value: Any
    where: str
    origin: str

    @property
    def key(self):
        """The text before the equals sign."""
        name = f"{self.scope}/{self.name}".lstrip("/")
        return f"{name}.{self.parameter}" if self.parameter else name

    def references(self):
        """List every Reference in the value."""
        return [part for part, _ in _parts(self.value) if isinstance(part, Reference)]

    def invalid(self, expected, received=None, hint=""):
        """Return the error for a statement that cannot be meant."""
        received = received or f"{self.key} = {errors.shown(self.value)}"
        return _invalid(self.where, expected, received, hint)


def read(files=(), params=()):
    """Read statements without knowing yet what they name.

    Args:
        files: list of gin file names or paths, later ones winning; none: the default
            pairing. `afd.gin` is always read first, and each file once.
        params: list of gin statements, e.g. `"train.epochs = 10"`, applied last.

    Returns:
        list of Statement.

    Raises:
        InvalidValue: for a file not found, an `import`, a syntax error, or a value that
            is no plain data; with file and line.
    """
    errors.instance("files", files, list | tuple, "a list of str")
    errors.instance("params", params, list | tuple, "a list of str")
    seen, statements = set(), []
    for name in [DEFAULTS, *(files or [DEFAULT_PAIRING])]:
        statements += _read_file(find(name), seen)
    for param in params:
        statements += _read_text(str(param), "--gin_param", None, seen)
    return statements


def folders():
    """List the folders that hold our gin files: of a checkout, of a wheel."""
    checkout, installed = _PACKAGE.parent / "gin", _PACKAGE / "configs"
    # In site-packages the folder `gin` beside us is the gin package itself.
    return [folder for folder in (checkout, installed) if (folder / DEFAULTS).is_file()]


def find(name, beside=None):
    """Resolve a gin file's name: as a path, else in our folders; with or without .gin.

    Args:
        name: str or path, e.g. `"pairings/cifar100_resnet20_wrn16_2"`.
        beside: folder of the including file, searched first.

    Raises:
        InvalidValue: if there is no such file, with the places searched and the
            nearest existing name.
    """
    roots = [*([beside] if beside else []), Path(), *folders()]
    for root in roots:
        for candidate in (root / name, root / f"{name}.gin"):
            if os.path.isfile(candidate):  # Path.is_file raises for a long name
                return candidate
    places = ", ".join(str(root.resolve()) for root in dict.fromkeys(roots))
    known = [path.relative_to(f) for f in folders() for path in f.rglob("*.gin")]
    stems = {path.stem: path for path in sorted(known)}
    nearest = difflib.get_close_matches(Path(name).stem, stems, n=1, cutoff=0.5)
    parents = sorted({str(path.parent) for path in known} - {"."})
    hint = f"There are files in {', '.join(parents)}."
    if nearest:
        hint = f"Did you mean {stems[nearest[0]]}?"
    raise errors.invalid("gin_file", f"a file, found in {places}", str(name), hint=hint)


def _read_file(path, seen):
    if path.resolve() in seen:
        return []
    seen.add(path.resolve())
    return _read_text(read_text(path, "gin file"), str(path), path.parent, seen)


def _read_text(text, origin, folder, seen):
    statements = []
    for parsed in _parse(text, origin):
        where = f"{origin}:{parsed.location.line_num}" if folder else origin
        if isinstance(parsed, config_parser.ImportStatement):
            # gin would execute it: a configuration is data, whoever wrote it.
            raise _invalid(where, "no import statement", parsed.format())
        if isinstance(parsed, config_parser.IncludeStatement):
            if len(seen) > 100:
                raise _invalid(where, "at most 100 files", parsed.filename)
            try:
                path = find(parsed.filename, beside=folder)
            except errors.InvalidValue as error:
                message = f"{error} Included by {where}."
                raise errors.InvalidValue(message) from None
            statements += _read_file(path, seen)
        elif isinstance(parsed, config_parser.BindingStatement):
            scope, name, parameter, value, _ = parsed
            if not parameter:  # a macro's name may have slashes in it
                scope, name = "", f"{scope}/{name}".lstrip("/")
            statements.append(Statement(scope, name, parameter, value, where, origin))
            _check_value(statements[-1])
    return statements


def _parse(text, origin):
    try:
        # The parser reads one token at construction, so that fails here too.
        yield from config_parser.ConfigParser(text, _Delegate())
    # Odd tokens, unfinished lines, nested brackets, keys of a dict that are lists.
    except (
        SyntaxError,
        tokenize.TokenError,
        AssertionError,
        RecursionError,
        TypeError,
    ) as error:
        line = getattr(error, "lineno", None)
        in_file = line is not None and origin != "--gin_param"
        lines = (getattr(error, "text", None) or text).strip().splitlines() or [""]
        reasons = str(error.args[0] if error.args else "").strip().splitlines() or ["-"]
        raise _invalid(
            f"{origin}:{line}" if in_file else origin,
            "`name.parameter = value`, strings in quotes",
            f"{errors.shown(lines[0])} ({reasons[-1].strip()[:200]})",
        ) from None


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name, evaluate):
        return Reference(scoped_configurable_name, evaluate, macro=False)

    def macro(self, macro_name):
        return Reference(macro_name, evaluate=True, macro=True)


def _check_value(statement):
    """Refuse what gin could not write down and read again, and dicts for Keras.

    From a dict Keras makes an object, of any class that it names.
    """
    options = (statement.name, statement.parameter) == ("train", "method_options")
    for part, depth in _parts(statement.value):
        if isinstance(part, int | float):
            plain = abs(part) < 2**63  # neither infinite nor NaN
        else:
            plain = isinstance(part, Reference | str | list | tuple | None) or (
                options and isinstance(part, dict)
            )
        if depth > 20 or not plain:
            expected = "numbers below 2**63, text, True, False, None, or lists of these"
            raise statement.invalid(f"{expected}; a dict for train.method_options only")


def _parts(value, depth=0):
    """Yield a value and everything in it, with how deep it lies."""
    yield value, depth
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple) and not isinstance(value, Reference):
        for item in value:
            yield from _parts(item, depth + 1)


def _invalid(where, expected, received, hint=""):
    return errors.InvalidValue(
        f"Invalid configuration in {where}. Expected {expected}. "
        f"Received: {received}.{hint}"
    )
