"""Configuration text: statements `name = value`, and the differences of two texts."""

import functools
import hashlib
import json


def from_settings(settings, name="train"):
    """Write settings as gin text, for runs started from Python without gin files.

    Args:
        settings: dict from setting to value; callables are written by name.
        name: str, the configurable.
    """
    lines = [
        f"{name}.{key} = {_text(value)}" for key, value in sorted(settings.items())
    ]
    return "\n".join(lines) + "\n"


def _text(value):
    if isinstance(value, list | tuple):
        inside = ", ".join(_text(item) for item in value)
        return f"[{inside}]"
    if isinstance(value, functools.partial):
        given = ", ".join(f"{k}={_text(v)}" for k, v in sorted(value.keywords.items()))
        return f"{_text(value.func)}({given})"
    if callable(value):
        return f"@{getattr(value, '__qualname__', type(value).__name__)}"
    return repr(value)


def statements(text):
    """Read gin text into a dict from `scope/name.parameter` to the value's text.

    Indented lines belong to the statement above; comments and blank lines do not count.
    """
    joined = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace() and joined:
            joined[-1] = f"{joined[-1].rstrip(' ' + chr(92))} {line.strip()}"
        else:
            joined.append(line.strip())
    pairs = (statement.partition("=") for statement in joined)
    return {key.strip(): value.strip().strip("\\").strip() for key, _, value in pairs}


def digest(text, ignore=()):
    """Return a SHA-256 that configurations without `differences` have in common.

    Args:
        text: str, gin text.
        ignore: keys that do not count.
    """
    counted = {k: v for k, v in statements(text).items() if k not in ignore}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def differences(old, new, ignore=()):
    """List the settings in which two configurations differ.

    Args:
        old: str, gin text.
        new: str, gin text.
        ignore: keys that do not count.

    Returns:
        List of str such as `"train.epochs = 2 there, 4 now"`.
    """
    old, new = statements(old), statements(new)
    keys = sorted((old.keys() | new.keys()) - set(ignore))
    return [
        f"{key} = {old.get(key, 'not set')} there, {new.get(key, 'not set')} now"
        for key in keys
        if old.get(key) != new.get(key)
    ]
