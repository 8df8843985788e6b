"""`tools/reproduce` as a process."""

import os
import subprocess
import sys
import time
from pathlib import Path

from records import write_record

ROOT = Path(__file__).resolve().parents[2]


def reproduce(cwd, *arguments):
    tool = str(ROOT / "tools" / "reproduce.py")
    return subprocess.Popen(
        [sys.executable, tool, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_run(run, content):
    """Write the small files of a finished `Run`, of the settings that it has."""
    lines = [*(f'include "{file}"' for file in run.cell.files), *run.cell.params]
    lines.append(f"train.seed = {run.seed}\n")
    return write_record(run.path, content, "\n".join(lines))


def interrupt(process, condition, number):
    """Send a signal once a condition holds; return what it printed to stderr."""
    wait_for(condition, process)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    return errors


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
