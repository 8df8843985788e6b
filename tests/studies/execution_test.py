"""Processes of runs: failures, signals, and what is kept of finished ones."""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from records import read

from afd_tf.studies.execution import Execution, Stopped, call
from afd_tf.studies.runs import Cell, Run

# In place of `afd-train`.
PROGRAM = """
import json, pathlib, signal, sys, time
options = dict(a[2:].split("=", 1) for a in sys.argv[1:])
path = pathlib.Path(options["workdir"])
def stop(number, frame):
    (path / "saved").write_text(signal.Signals(number).name)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
path.mkdir(parents=True, exist_ok=True)
(path / "started").touch()
if "bad" in path.parts:
    sys.exit("Expected a good cell")
if "slow" in path.parts:
    time.sleep(600)
(path / "config.gin").write_text("")
(path / "metrics.csv").write_text("epoch,seconds\\n1,1.0\\n")
(path / "results.json").write_text("{}")
"""


def make(folder, name, seed=0, source=None, record=None):
    cell = Cell(name, (), read, ("train.epochs = 1",), source)
    return Run(cell, seed, folder, record)


def execute(runs, jobs=1):
    return Execution(runs, jobs, [sys.executable, "-c", PROGRAM]).execute()


def send_signal(number, condition):
    """Send a signal to this process, from a thread, as soon as a condition holds."""

    def wait():
        while not condition():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_failed_cell_stops_only_what_learns_from_it(tmp_path, capsys, jobs):
    runs = [
        make(tmp_path, "bad"),
        make(tmp_path, "pupil", source="bad"),
        make(tmp_path, "good"),
        make(tmp_path, "other", source="good"),
    ]
    failed = execute(runs, jobs)
    assert list(failed) == ["bad/seed_0", "pupil/seed_0"]
    assert "status 1: Expected a good cell" in failed["bad/seed_0"]
    assert failed["pupil/seed_0"] == "bad/seed_0, which it learns from, failed"
    assert [run.finished for run in runs] == [False, False, True, True]
    assert not (runs[1].path / "started").exists()
    assert "other/seed_0: finished. 2 of 4 runs done" in capsys.readouterr().out


def test_a_run_whose_source_nobody_computes_fails(tmp_path):
    failed = execute([make(tmp_path, "pupil", source="x"), make(tmp_path, "good")])
    source = tmp_path / "x" / "seed_0"
    assert failed == {
        "pupil/seed_0": f"{source}, which it learns from, is no finished run"
    }


def test_finished_runs_are_skipped_and_their_files_recorded(tmp_path, capsys):
    record = tmp_path / "record"
    runs = [make(tmp_path / "out", "good", seed, record=record) for seed in (0, 1)]
    assert execute(runs[:1]) == {}
    (runs[0].path / "started").unlink()
    capsys.readouterr()
    assert execute(runs) == {}
    assert not (runs[0].path / "started").exists()
    assert "good/seed_0: starts" not in capsys.readouterr().out
    assert sorted(str(p.relative_to(record)) for p in record.rglob("*.*")) == [
        f"good/seed_{seed}/{file}"
        for seed in (0, 1)
        for file in ("config.gin", "metrics.csv", "results.json")
    ]
    # A record alone is as good as a run.
    shutil.rmtree(tmp_path / "out")
    assert execute(runs) == {}
    assert not runs[0].path.exists()


def test_a_signal_reaches_every_process_and_nothing_else_starts(tmp_path):
    runs = [make(tmp_path, "slow", seed) for seed in (0, 1, 2)]
    started = [run.path / "started" for run in runs]
    before = signal.getsignal(signal.SIGTERM)
    thread = send_signal(
        signal.SIGTERM, lambda: all(path.exists() for path in started[:2])
    )
    with pytest.raises(Stopped) as caught:
        execute(runs, jobs=2)
    thread.join()
    assert caught.value.signal == signal.SIGTERM
    assert [(run.path / "saved").exists() for run in runs] == [True, True, False]
    assert not started[2].exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_ends_a_program_that_is_called(tmp_path):
    path = tmp_path / "process"
    program = (
        "import os, pathlib, sys, time;"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()));"
        "time.sleep(600)"
    )
    thread = send_signal(signal.SIGINT, lambda: path.exists() and path.read_text())
    with (tmp_path / "log").open("w") as output, pytest.raises(Stopped) as caught:
        call([sys.executable, "-c", program, str(path)], output)
    thread.join()
    assert caught.value.signal == signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


def test_a_program_is_called_to_its_end(tmp_path):
    with (tmp_path / "log").open("w") as output:
        program = "import sys; print('done'); sys.exit(3)"
        assert call([sys.executable, "-c", program], output) == 3
    assert Path(tmp_path / "log").read_text() == "done\n"
