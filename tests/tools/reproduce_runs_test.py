"""`tools/reproduce` as a process: a table and a study, stopped and continued."""

import csv
import io
import json
import shutil
import signal
import time

import numpy as np
import pytest
from prepared_sets import prepare
from records import results as finished_results
from reproducing import interrupt, reproduce, wait_for, write_run

from afd_tf.cli import results
from afd_tf.results.comparison import compare
from afd_tf.studies.runs import Run
from afd_tf.studies.verification import verify
from reproduction import cells
from reproduction.cells import read_settings

CELLS = {
    "resnet8_wrn10_2_vanilla": ["resnet8", "wrn10_2"],
    "resnet8_wrn10_2_dml": ["resnet8", "wrn10_2"],
    "resnet8_wrn10_2_afd": ["resnet8", "wrn10_2"],
    "resnet8_from_wrn10_2_kd": ["resnet8"],
}


def write_data(root):
    """Write 60 small training images of each of 100 classes, each class of a colour."""
    colors = np.random.RandomState(0).randint(0, 256, (100, 1, 1, 3))

    def images(count):
        noise = np.random.RandomState(count).randint(-40, 40, (count, 32, 32, 3))
        for index in range(count):
            image = np.clip(colors[index % 100] + noise[index], 0, 255)
            yield {"image": image.astype(np.uint8), "label": index % 100}

    prepare(
        root,
        "cifar100",
        (32, 32, 3),
        classes=[f"class {number}" for number in range(100)],
        train=list(images(6000)),
        test=list(images(200)),
    )


@pytest.mark.slow
def test_a_reduced_table_is_interrupted_continues_and_ends_in_a_table(tmp_path, capsys):
    write_data(tmp_path / "data")
    command = ["--table=4", "--scale=reduced", "--seeds=1", "--epochs=1", "--jobs=2"]
    command.append(f"--data_dir={tmp_path / 'data'}")
    runs = tmp_path / "runs" / "reduced_1_epochs"

    # It learns from the first run to end.
    begun = (runs / "resnet8_from_wrn10_2_kd/seed_0/config.gin").exists
    errors = interrupt(reproduce(tmp_path, *command), begun, signal.SIGINT)
    assert f"Continue with: tools/reproduce {' '.join(command)}" in errors
    done = {path.parent for path in runs.rglob("results.json")}
    assert 0 < len(done) < 4
    before = {path: (path / "results.json").read_bytes() for path in done}

    resumed = reproduce(tmp_path, *command)
    output, errors = resumed.communicate()
    assert resumed.returncode == 0, errors
    for path, content in before.items():
        assert (path / "results.json").read_bytes() == content
        assert f"{path.parent.name}/{path.name}: starts" not in output
    assert "cifar100, 60 training images per class, 1 epoch, batches of 128" in output

    [(_, rows)] = compare([runs]).tables
    found = {}
    for row in rows:
        assert list(row.accuracies) == [0]
        name = row.configuration.rpartition("/")[2]
        found.setdefault(name, []).append(row.network)
    assert found == {name: [*n, "mean", "ensemble"] for name, n in CELLS.items()}
    # The colours are learned: 200 images of 100 classes would give one percent.
    assert min(row.accuracies[0] for row in rows if row.network == "wrn10_2") > 0.02

    capsys.readouterr()
    assert results.main([str(runs), "--format=csv", "--over=dml"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    gains = {
        row["configuration"].rpartition("/")[2] for row in table if row["gain_dml"]
    }
    assert gains == {"resnet8_wrn10_2_vanilla", "resnet8_wrn10_2_afd"}


def test_cells_with_another_file_are_other_configurations(tmp_path, capsys):
    names = ["resnet32x2_vanilla", "resnet32x2_afd"]
    afd, vanilla = cells.paper_cells(3, names=names)
    more = cells.varied(vanilla, ["protocols/decay_5e-4"])
    for cell, accuracy in ((vanilla, 0.5), (more, 0.55), (afd, 0.65)):
        own = {"accuracy": accuracy, "method": cell.setting("method")}
        for seed in (0, 1):
            content = finished_results("resnet32", "resnet32_2", seed=seed, **own)
            write_run(Run(cell, seed, tmp_path), content)
    over = (vanilla.name, more.name)
    arguments = [str(tmp_path), "--format=csv", f"--over={','.join(over)}"]
    assert results.main(arguments) == 0
    gains = {
        row["configuration"].rpartition("/")[2]: tuple(
            row[f"gain_{name}"] and round(float(row[f"gain_{name}"])) for name in over
        )
        for row in csv.DictReader(io.StringIO(capsys.readouterr().out))
    }
    assert gains == {vanilla.name: ("", ""), more.name: (5, ""), afd.name: (15, 10)}
    # By the method alone it would not be known which is meant.
    assert results.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{more.name}" in shown
    assert "over vanilla" not in shown.splitlines()[2]


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
    assert verify(folder / "tuning/vanilla_0.1/seed_100", read_settings) == []
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
