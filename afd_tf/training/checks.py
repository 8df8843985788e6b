"""Checks of arguments that have no better place."""


def check_integer(name, value, smallest):
    """Check that an argument is an int of at least `smallest` and less than 2**32.

    Raises:
        ValueError: if it is not.
    """
    if type(value) is not int or not smallest <= value < 2**32:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an int >= {smallest} and "
            f"< 2**32. Received: {name}={value!r}."
        )
