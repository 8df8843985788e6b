"""What the system refuses to others, also where the tests run as root."""

import contextlib
import os


@contextlib.contextmanager
def without_privileges():
    """Be nobody for a moment where we are root, who may read and write everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
