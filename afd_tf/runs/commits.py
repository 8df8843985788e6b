"""Which commits of a checkout a run was computed by."""

import subprocess
from pathlib import Path

# What of a checkout a run depends on; its other files change no result.
_CODE = ("afd_tf", "gin")


def of_run(run):
    """Tell by which commits a run was computed so far, and is from now on.

    Args:
        run: RunDirectory.

    Returns:
        list of str, the commits of its starts, see `current`, in order and this one
        the last; one after the other that is the same is there once. Of this start
        there is none outside a checkout.

    Raises:
        ValueError: if the record of earlier starts is damaged.
    """
    earlier = run.read_record(run.commits, [str]) if run.commits.exists() else []
    now = current()
    if now is None or earlier[-1:] == [now]:
        return earlier
    return [*earlier, now]


def current():
    """Return the commit of the checkout we run from, as it is at this moment.

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
