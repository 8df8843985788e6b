"""`tools/reproduce` as a process."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

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


def results(*networks, accuracy=0.5, **others):
    """Return the content of a `results.json`, as far as it is used."""
    one = {"accuracy": accuracy}
    return {
        "method": "dml",
        "dataset": "cifar100",
        "seed": 0,
        "epoch": 60,
        "step": 2760,
        "networks": {n: {**one, "loss": 1.0, "parameters": 1} for n in networks},
        "mean": one,
        "ensemble": one,
        **others,
    }


def write_finished(folder, content, config="", rows="epoch,seconds\n"):
    """Write the small files of a finished run."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "config.gin").write_text(config)
    (folder / "metrics.csv").write_text(rows)
    return folder


def write_run(run, content):
    """Write the small files of a finished `Run`, of the settings that it has."""
    lines = [*(f'include "{file}"' for file in run.cell.files), *run.cell.params]
    lines.append(f"train.seed = {run.seed}\n")
    return write_finished(run.path, content, "\n".join(lines))


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
