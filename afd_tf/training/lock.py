"""One process at a time in a run's directory."""

import contextlib
import os
import socket
import warnings

try:
    import fcntl
except ImportError:  # not on this system: nobody is kept out
    fcntl = None


@contextlib.contextmanager
def held(path, create=True):
    """Hold a lock file.

    The operating system keeps the lock and drops it with the process, however that
    ends: a file that a killed process left behind locks nothing.

    Args:
        path: path of the file; it stays.
        create: bool, whether to make it and to write down who holds it; if not and
            there is none, nothing is held.

    Raises:
        BlockingIOError: if another holds it; the message tells who.
    """
    if fcntl is None or not (create or path.exists()):
        yield
        return
    with open(path, "a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = (
                file.read(200).decode(errors="replace").strip() or "another process"
            )
            raise BlockingIOError(holder) from error
        except OSError as error:
            warnings.warn(
                f"{path} cannot be locked ({error.strerror}): see to it yourself that "
                "no other process trains in this directory.",
                stacklevel=3,
            )
        if create:
            with contextlib.suppress(OSError):  # a full disk; it is for the message
                file.truncate(0)
                holder = f"process {os.getpid()} on {socket.gethostname()}\n"
                file.write(holder.encode())
        yield
