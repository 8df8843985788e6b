"""Names: look one up, say which one was probably meant, write one for a terminal."""

import difflib


def nearest(name, known):
    """Return " Did you mean 'x'?" for the known name nearest to `name`, or "".

    Args:
        name: what was received, any object.
        known: iterable of str, the valid names.
    """
    # In lower case, so that "AFD" is near "afd".
    lower = {str(each).lower(): each for each in known}
    matches = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.5)
    return f" Did you mean '{lower[matches[0]]}'?" if matches else ""


def lookup(argument, name, known):
    """Return `known[name]`, or say what is known.

    Args:
        argument: str, the argument's name for the message.
        name: what was received.
        known: dict from str to anything.

    Raises:
        ValueError: if `name` is not a key of `known`.
    """
    if isinstance(name, str) and name in known:
        return known[name]
    raise ValueError(
        f"Invalid value for argument `{argument}`. Expected one of "
        f"{sorted(known)}. Received: {argument}={name!r}.{nearest(name, known)}"
    )


def printable(text):
    """Write what would move the cursor or colour the terminal as an escape sequence."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
