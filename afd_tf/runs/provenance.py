"""Provenance of a run: its configuration, its command, the commits of the code."""

import dataclasses
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from afd_tf.runs import configuration

# What of a checkout a run depends on; its other files change no result.
_CODE = ("afd_tf", "gin")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Configuration and command of a run.

    Attributes:
        config: str, the configuration in gin syntax.
        operative_config: callable that returns every parameter in use as gin text.
        command: str, what was typed.
    """

    config: str
    operative_config: Callable[[], str]
    command: str

    @classmethod
    def from_python(cls, settings):
        """Describe a run that was started from Python.

        Args:
            settings: dict from setting to value.
        """
        text = configuration.from_settings(settings)
        return cls(text, lambda: text, command_line(sys.argv[0], sys.argv[1:]))


def command_line(program, arguments):
    """Write a command as a shell takes it."""
    return shlex.join([Path(program).name, *arguments])


def commits_of(run):
    """Return the commits that computed a run so far, and do from now on.

    Args:
        run: RunDirectory.

    Returns:
        list of str, the commits of its starts, see `current_commit`, in order and this
        one the last; equal neighbours are there once. A start outside a checkout has
        none.

    Raises:
        InvalidValue: if the record of earlier starts is damaged.
    """
    earlier = run.read_record(run.commits, [str]) if run.commits.exists() else []
    current = current_commit()
    if current is None or earlier[-1:] == [current]:
        return earlier
    return [*earlier, current]


def current_commit():
    """Return the commit of the checkout that this package runs from.

    Returns:
        str of 40 hexadecimal digits, with `-dirty` if anything in `afd_tf` or `gin` is
        not as in that commit, new files included: documentation, tests, tools and the
        records that a study adds to its own checkout do not count. None without git,
        or if the package is installed.
    """
    root = Path(__file__).resolve().parents[2]
    try:
        top, head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--show-toplevel"],
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=normal", "--", *_CODE],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # An installed package may lie inside somebody else's repository.
    if Path(top).resolve() != root:
        return None
    return f"{head}-dirty" if changes else head
