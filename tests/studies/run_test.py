"""`tools/reproduce` at work: failures, signals, verification, and a real study."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import reproduce as tool
from reproducing import interrupt, reproduce, results, wait_for, write_finished

from afd_tf import training
from reproduction import execution, verification
from reproduction.cells import Cell
from reproduction.runs import Run
from reproduction.study import Study

ROOT = Path(training.__file__).parents[2]
# In place of `afd-train` where only the handling of processes matters.
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


@pytest.fixture
def quick(monkeypatch):
    def start(arguments, output):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    monkeypatch.setattr(execution, "start", start)


def make(folder, name, seed=0, source=None, record=None):
    cell = Cell(name, (), ("train.epochs = 1",), source)
    return Run(cell, seed, folder, record)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_failed_cell_stops_only_what_learns_from_it(tmp_path, capsys, jobs):
    runs = [
        make(tmp_path, "bad"),
        make(tmp_path, "pupil", source="bad"),
        make(tmp_path, "good"),
        make(tmp_path, "other", source="good"),
    ]
    failed = execution.Execution(runs, jobs).execute()
    assert list(failed) == ["bad/seed_0", "pupil/seed_0"]
    assert "status 1: Expected a good cell" in failed["bad/seed_0"]
    assert failed["pupil/seed_0"] == "bad/seed_0, which it learns from, failed"
    assert [run.finished for run in runs] == [False, False, True, True]
    assert not (runs[1].path / "started").exists()
    assert "other/seed_0: finished. 2 of 4 runs done" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_finished_runs_are_skipped_and_their_files_recorded(tmp_path, capsys):
    record = tmp_path / "record"
    runs = [make(tmp_path / "out", "good", seed, record=record) for seed in (0, 1)]
    assert execution.Execution(runs[:1]).execute() == {}
    (runs[0].path / "started").unlink()
    capsys.readouterr()
    assert execution.Execution(runs).execute() == {}
    assert not (runs[0].path / "started").exists()
    assert "good/seed_0: starts" not in capsys.readouterr().out
    assert sorted(str(p.relative_to(record)) for p in record.rglob("*.*")) == [
        f"good/seed_{seed}/{file}"
        for seed in (0, 1)
        for file in ("config.gin", "metrics.csv", "results.json")
    ]
    # A record alone is as good as a run.
    shutil.rmtree(tmp_path / "out")
    assert execution.Execution(runs).execute() == {}
    assert not runs[0].path.exists()


def test_a_run_with_a_record_shows_how_far_it_is(tmp_path):
    going = make(tmp_path / "out", "good", record=tmp_path / "record")
    going.path.mkdir(parents=True)
    (going.path / "metrics.csv").write_text("epoch,seconds\n1,5.0\n2,9.5\n")
    assert going.progress() == (2, 9.5)
    assert going.status() == "epoch 2 of 1"


def finish(folder, config):
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    (folder / "config.gin").write_text(config)


@pytest.mark.parametrize("where", ["out", "record"])
def test_a_finished_run_of_other_settings_is_not_taken_for_one_of_these(
    tmp_path, where
):
    statements = ("train.epochs = 2", "small/resnet.depth = 8", "train.source = 'x'")
    file = tmp_path / "cell.gin"
    file.write_text('train.networks = ["resnet8", "resnet8"]\n')
    cell = Cell("good", (str(file),), statements, "other")
    same = Run(cell, 3, tmp_path / "out", tmp_path / "record")
    config = file.read_text() + "small/resnet.depth = {}\ntrain.seed = {}\n"
    config += "train.epochs = 2\n"
    folder = tmp_path / where / same.name
    finish(folder, config.format(8, 3))
    same.check_settings()
    for values, message in (
        ((14, 3), r"small/resnet\.depth = 8\. Received: 14 in .*good/seed_3/config"),
        ((8, 4), r"train\.seed = 3\. Received: 4"),
    ):
        shutil.rmtree(folder)
        finish(folder, config.format(*values))
        with pytest.raises(ValueError, match=message):
            same.check_settings()
    shutil.rmtree(folder)
    without_effect = "load_data.memory_limit = 9\nload_data.mean = None\n"
    finish(folder, config.format(8, 3) + without_effect)
    same.check_settings()
    shutil.rmtree(folder)
    finish(folder, config.format(8, 3) + "load_data.crop = 'random_resized'\n")
    message = r"load_data\.crop = None\. Received: 'random_resized'"
    with pytest.raises(ValueError, match=message):
        same.check_settings()


def test_all_seeds_of_a_cell_are_in_the_record_wherever_they_were_computed(tmp_path):
    record = tmp_path / "record"
    earlier, own = (make(tmp_path / "out", "good", n, record=record) for n in (0, 1))
    finish(record / "good" / "seed_0", "")
    assert execution.Execution([earlier, own]).execute() == {}
    assert (own.path / "results.json").is_file()
    assert [run.kept.parent for run in (earlier, own)] == [record / "good"] * 2


@pytest.mark.usefixtures("quick")
def test_a_signal_reaches_every_process_and_nothing_else_starts(tmp_path):
    runs = [make(tmp_path, "slow", seed) for seed in (0, 1, 2)]
    started = [run.path / "started" for run in runs]
    happening = execution.time.sleep

    class Clock:
        monotonic, strftime = time.monotonic, time.strftime

        @staticmethod
        def sleep(seconds):
            happening(seconds)
            if all(path.exists() for path in started[:2]):
                signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "time", Clock)
        with pytest.raises(execution.Stopped) as caught:
            execution.Execution(runs, jobs=2).execute()
    assert caught.value.signal == signal.SIGTERM
    assert [(run.path / "saved").exists() for run in runs] == [True, True, False]
    assert not started[2].exists()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nothing_runs_ends_the_tool_alike(monkeypatch, capsys, number):
    monkeypatch.setattr(tool, "_table", lambda options: signal.raise_signal(number))
    assert tool.main(["--table=4"]) == 128 + number
    assert "Continue with: tools/reproduce --table=4" in capsys.readouterr().err


TINY = """
include "pairings/digits_resnet8_resnet20.gin"
train.networks = ["resnet8", "resnet8"]
train.epochs = 2
train.batch_size = 256
train.deterministic = True
train.tensorboard = False
train.method = "{method}"
"""


def write_study(folder):
    """Write a study of digits, one cell of which cannot run."""
    folder.mkdir()
    for method in ("vanilla", "dml"):
        (folder / f"{method}.gin").write_text(TINY.format(method=method))
    broken = TINY.format(method="dml") + "train.batch_size = 100000\n"
    (folder / "broken.gin").write_text(broken)
    tuned = {"parameters": ["logit/SGD.learning_rate"], "values": [0.1, 1e-9]}
    design = {
        "over": ["vanilla", "broken"],
        "cells": {
            "vanilla": {"gin_file": str(folder / "vanilla.gin"), "seeds": 2},
            "dml": {"gin_file": str(folder / "dml.gin"), "seeds": 1},
            "broken": {
                "gin_file": str(folder / "broken.gin"),
                "seeds": 1,
                "tuned_as": "dml",
            },
        },
        "tuning": {
            "validation": 0.2,
            "seed": 100,
            "cells": {"vanilla": tuned, "dml": tuned},
        },
    }
    (folder / "design.json").write_text(json.dumps(design))
    return folder


@pytest.mark.slow
def test_a_study_that_is_stopped_and_killed_ends_as_an_uninterrupted_one(tmp_path):
    folder = write_study(tmp_path / "study")
    (tmp_path / "work").mkdir()
    work = tmp_path / "work"
    command = [f"--study={folder}", "--output=out"]
    tuning, last = work / "out/tuning", work / "out/vanilla/seed_1"

    begun = (tuning / "vanilla_0.1/seed_100/metrics.csv").exists
    errors = interrupt(reproduce(work, *command), begun, signal.SIGTERM)
    assert f"Stopped. Continue with: tools/reproduce --study={folder}" in errors
    assert not (folder / "chosen.json").exists()

    killed = reproduce(work, *command, "--jobs=2")
    wait_for((last / "metrics.csv").exists, killed)
    killed.kill()
    killed.communicate()

    # What was running has not heard of it; it ends by itself.
    ends = [run / "results.json" for run in (work / "out/vanilla/seed_0", last)]
    ends.append(work / "out/dml/seed_0/results.json")
    while not all(path.exists() for path in ends):
        time.sleep(0.1)
    shutil.rmtree(last)

    resumed = reproduce(work, *command)
    output, errors = resumed.communicate()
    assert resumed.returncode == 1, errors
    assert "broken/seed_0 failed: status 2: afd-train: Invalid value" in errors
    assert "vanilla/seed_0: starts" not in output
    assert "digits, 2 epochs, batches of 256, accuracy on the test images" in output
    chosen = json.loads((folder / "chosen.json").read_text())
    assert chosen["vanilla"]["value"] == 0.1
    low, high = (entry["mean"] for entry in chosen["vanilla"]["validation"])
    assert low > high
    kept = folder / "vanilla" / "seed_1"
    assert sorted(path.name for path in kept.iterdir()) == [
        *["config.gin", "metrics.csv", "results.json"]
    ]
    assert json.loads((kept / "results.json").read_text())["seed"] == 1
    held_out = (folder / "tuning/vanilla_0.1/seed_100/config.gin").read_text()
    assert "train.validation = 0.2" in held_out

    # Anew, without a stop; the record is what is compared with.
    assert verification.verify(folder / "tuning/vanilla_0.1/seed_100") == []
    same = reproduce(work, f"--verify={kept}")
    assert "the same to the bit" in same.communicate()[0]
    assert same.returncode == 0
    changed = json.loads((kept / "results.json").read_text())
    changed["weights_sha256"] = "0" * 64
    changed["versions"]["keras"] = "2.0.0"
    (kept / "results.json").write_text(json.dumps(changed))
    other = reproduce(work, f"--verify={kept}")
    output, _ = other.communicate()
    assert other.returncode == 1
    assert f"weights_sha256: {'0' * 64} before, " in output
    assert "keras: 2.0.0 before, " in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1, 2, 3, 4]}, "at most 3"),
        ({"values": [1]}, "as many values for every cell"),
    ],
)
def test_a_tuning_that_is_not_the_same_for_all_is_refused(tmp_path, change, message):
    folder = write_study(tmp_path / "study")
    design = json.loads((folder / "design.json").read_text())
    design["tuning"]["cells"]["dml"].update(change)
    (folder / "design.json").write_text(json.dumps(design))
    with pytest.raises(ValueError, match=message):
        Study(folder, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"design\.json': it is no JSON"),
        ('{"cells": {}}', "Expected at least one. Received: none"),
        (
            '{"cells": {"a": {"gin_file": "a", "seeds": 1}}, "tuning": {}}',
            r"design\.json': in \['tuning'\] 'validation' is missing",
        ),
        ('{"cells": {"a": {"seeds": 1}}, "tuning": {}}', "'gin_file' is missing"),
        (
            '{"cells": {"a": {"gin_file": "a", "seeds": 1}}, "over": ["x"]}',
            "cells of the study.*Received: 'x'",
        ),
    ],
)
def test_a_damaged_design_is_named(tmp_path, content, message):
    (tmp_path / "design.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Study(tmp_path, tmp_path / "out")


def test_a_plan_chooses_nothing_for_good(tmp_path, capsys):
    folder = write_study(tmp_path / "study")
    planned = Study(folder, tmp_path / "out")
    for run in planned.tuning_runs():
        lines = [Path(run.cell.files[0]).read_text(), *run.cell.params]
        lines.append(f"train.seed = {run.seed}\n")
        write_finished(folder / run.name, results("resnet8"), "\n".join(lines))
    arguments = [f"--study={folder}", f"--output={tmp_path / 'out'}", "--plan"]
    assert tool.main(arguments) == 0
    assert "vanilla/seed_1" in capsys.readouterr().out
    assert not (folder / "chosen.json").exists()


def test_a_choice_from_other_values_is_refused(tmp_path):
    folder = write_study(tmp_path / "study")
    choice = {
        "parameters": ["logit/SGD.learning_rate"],
        "value": 0.3,
        "validation": [{"value": 0.3}],
    }
    (folder / "chosen.json").write_text(json.dumps({"vanilla": choice}))
    with pytest.raises(ValueError, match=r"from \[0.1, 1e-09\]"):
        Study(folder, tmp_path).choose()
