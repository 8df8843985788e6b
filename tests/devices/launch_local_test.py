"""tools/launch_local: two workers on one machine, through the command."""

import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_runs
import worker_run

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "tools" / "launch_local"
SETTINGS = (
    "train.networks = [@resnet8/resnet, @resnet8/resnet]",
    'train.method_options = {"discriminator_normalization": "none"}',
    "train.epochs = 3",
    "train.batch_size = 256",
    'resnet8/resnet.normalization = "none"',
    "logit/SGD.learning_rate = 0.01",
)
FLAGS = [
    "--gin_file=datasets/digits",
    "--gin_file=networks/resnet8",
    *(f"--gin_param={setting}" for setting in SETTINGS),
]


def launch(*arguments):
    return subprocess.Popen(
        [sys.executable, str(LAUNCHER), *arguments],
        env=worker_run.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def is_running(pid):
    """Whether a process runs, or has yet to be collected by whoever inherits it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_status_is_that_of_the_first_failure(tmp_path):
    process = launch("--workers=2", "--", "--gin_file=pairings/digits_resnet8")
    output, error = process.communicate()
    assert process.returncode == 2
    # Both make the mistake; the one that is slower may be ended before it says so.
    assert re.search(r"^\[[01]\] afd-train: ", error, re.MULTILINE)
    assert "Did you mean pairings/digits_resnet8_resnet20.gin" in error
    assert output == ""


@pytest.mark.parametrize("dead", range(3))
def test_the_death_of_any_worker_ends_the_others(dead):
    seconds = [600, 600, 600]
    seconds[dead] = 0.2
    children = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys, time; time.sleep({s}); sys.exit(75)"]
        )
        for s in seconds
    ]
    launcher = runpy.run_path(str(LAUNCHER))
    launcher["wait"].__globals__["GRACE_SECONDS"] = 0
    try:
        assert launcher["wait"](children) == 75
        statuses = [child.poll() for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    expected = [-signal.SIGTERM] * 3
    expected[dead] = 75
    assert statuses == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=0"], "expected at least 1, received 0"),
        (["--", "--task=1"], "--task=1 is set for every worker"),
        (["--gin_file=x"], "come after --, not before: --gin_file=x"),
    ],
)
def test_mistakes_of_the_launcher_itself_are_named(arguments, message):
    process = launch(*arguments)
    assert message in process.communicate()[1]
    assert process.returncode == 2


@pytest.mark.slow
def test_a_launched_run_is_stopped_continued_and_equal_to_one_process(tmp_path):
    alone = [
        sys.executable,
        "-m",
        "afd_launcher",
        "train",
        f"--workdir={tmp_path}/alone",
    ]
    subprocess.run([*alone, *FLAGS], env=worker_run.environment(), check=True)

    run = tmp_path / "run"
    process = launch("--workers=2", "--", f"--workdir={run}", *FLAGS)
    while not (run / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pids = children(process)
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate()
    assert process.returncode == 143, error
    for task in (0, 1):
        assert f"[{task}] afd-train: interrupted and saved after epoch 1" in error
    again = error.splitlines()[-1]
    assert again.startswith("launch_local: start all again with: tools/launch_local")
    assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)

    process = launch("--workers=2", "--", f"--workdir={run}", *FLAGS)
    output, error = process.communicate()
    assert process.returncode == 0, error
    assert f"[0] Continuing {run} after epoch 1" in output
    assert "[1] " in output
    # The chief alone shows the results.
    assert output.count("[0] ensemble ") == 1
    assert "[1] ensemble" not in output
    one, other = (small_runs.checkpoint_values(tmp_path / n) for n in ("alone", "run"))
    for name, value in one.items():
        if not name.startswith("metrics/") and name != "replicas":
            np.testing.assert_allclose(
                other[name], value, rtol=1e-3, atol=2e-5, err_msg=name
            )
    rows = [small_runs.rows(tmp_path / name) for name in ("alone", "run")]
    assert len(rows[0]) == len(rows[1]) == 3
    for row, same in zip(*rows):
        for key in ("loss", "resnet8_kl", "resnet8_2_feature_loss", "val_loss"):
            assert float(same[key]) == pytest.approx(float(row[key]), rel=1e-3)


@pytest.mark.slow
def test_workers_end_when_the_launcher_is_killed(tmp_path):
    process = launch("--workers=2", "--", f"--workdir={tmp_path}/run", *FLAGS)
    while not (tmp_path / "run" / "checkpoints").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pids = children(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
