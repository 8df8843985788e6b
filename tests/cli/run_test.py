"""The commands on one run: train, evaluate, export, results."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from afd_tf import data, networks
from afd_tf.cli import evaluate, export, results, train
from afd_tf.exports import FORMATS
from afd_tf.exports import export as write_export
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training import restoring


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    settings = {"networks": ["resnet8", "resnet14"], "epochs": 2, "batch_size": 128}
    arguments = [f"--gin_param=train.{k} = {v!r}" for k, v in settings.items()]
    assert train.main([*arguments, f"--workdir={path}"]) == 0
    return path


@pytest.fixture(scope="module")
def exported(run):
    assert export.main([f"--workdir={run}"]) == 0
    return run / "export" / "resnet8"


def python(*arguments):
    """Run Python as a user would, with nothing set to make TensorFlow quiet."""
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[2])}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment
    )


def recorded(run):
    return json.loads((run / "results.json").read_text())


def files(folder):
    return sorted(str(path) for path in Path(folder).rglob("*"))


def test_evaluate_gives_the_results_of_the_run(run, capsys):
    before = files(run)
    assert evaluate.main([f"--workdir={run}"]) == 0
    output = capsys.readouterr().out
    assert "epoch 2 on 359 images of digits (test)" in output
    for name, network in recorded(run)["networks"].items():
        assert re.search(
            rf"{name} +{network['parameters']:,} +{100 * network['accuracy']:.2f} +"
            rf"{network['loss']:.4f}",
            output,
        )
    assert f"{100 * recorded(run)['ensemble']['accuracy']:.2f}" in output
    assert files(run) == before


def test_the_smallest_network_is_exported_alone(run, exported, capsys):
    loaded = tf.saved_model.load(str(exported))
    count = sum(int(tf.size(variable)) for variable in loaded.variables)
    assert count == recorded(run)["networks"]["resnet8"]["parameters"]
    preprocessing = json.loads(
        (exported / "assets.extra" / "preprocessing.json").read_text()
    )
    _, _, info = data.load("digits", 64)
    assert preprocessing["dataset"] == "digits"
    assert preprocessing["mean"] == pytest.approx(info.mean)
    assert preprocessing["class_names"] == list(info.class_names)
    assert preprocessing["epoch"] == 2


def test_data_of_other_classes_is_not_evaluated(run, tmp_path, capsys):
    path = shutil.copytree(run, tmp_path / "run")
    described = path / "checkpoints" / "dataset.json"
    record = json.loads(described.read_text())
    record["class_names"].reverse()
    described.write_text(json.dumps(record))
    assert evaluate.main([f"--workdir={path}"]) == 2
    assert "Expected data of the class_names that the run in" in capsys.readouterr().err


def test_an_export_evaluates_as_its_network_did(run, exported, capsys):
    assert evaluate.main([f"--model={exported}", "--batch_size=100"]) == 0
    expected = recorded(run)["networks"]["resnet8"]
    output = capsys.readouterr().out
    assert "359 images of digits" in output
    line = output.splitlines()[-1].split()
    assert line[:2] == ["resnet8", f"{100 * expected['accuracy']:.2f}"]
    assert float(line[2]) == pytest.approx(expected["loss"], abs=2e-4)


def test_an_export_from_python_evaluates_if_it_says_how_to_feed_it(tmp_path, capsys):
    _, _, info = data.load("digits", 64)
    small = networks.build("resnet8", info.num_classes, info.image_shape)
    write_export(small, tmp_path / "bare")
    assert evaluate.main([f"--model={tmp_path / 'bare'}"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'bare/assets.extra/preprocessing.json'}" in error
    assert "path, info)" in error
    write_export(small, tmp_path / "part", preprocessing={"mean": 0, "std": 1})
    assert evaluate.main([f"--model={tmp_path / 'part'}"]) == 2
    assert "without dataset, image_shape, class_names in it" in capsys.readouterr().err
    write_export(small, tmp_path / "small", preprocessing=info)
    assert evaluate.main([f"--model={tmp_path / 'small'}"]) == 0
    assert "359 images of digits" in capsys.readouterr().out


def test_an_export_is_evaluated_on_the_split_of_its_training(tmp_path, capsys):
    _, test, info = data.load("digits", 64, test_fraction=0.4, split_seed=3)
    small = networks.build("resnet8", info.num_classes, info.image_shape)
    write_export(small, tmp_path / "small", preprocessing=info)
    arguments = [f"--model={tmp_path / 'small'}"]
    assert evaluate.main(arguments) == 0
    [right] = [
        np.mean(np.argmax(small(x), -1) == y) for x, y in test.unbatch().batch(2000)
    ]
    output = capsys.readouterr().out
    assert f"{info.test_examples} images of digits (test)" in output
    assert output.splitlines()[-1].split()[1] == f"{100 * right:.2f}"
    # Asked for by name it is the set as it is.
    assert evaluate.main([*arguments, "--dataset=digits"]) == 0
    assert "359 images of digits (test)" in capsys.readouterr().out


def test_a_run_hands_on_how_images_are_resized_and_split(run, tmp_path):
    path = shutil.copytree(run, tmp_path / "run")
    described = path / "checkpoints" / "dataset.json"
    record = json.loads(described.read_text())
    own = {"resize": 20, "test_split": "validation", "test_fraction": 0.4}
    described.write_text(json.dumps({**record, **own}))
    handed_on = restoring.preprocessing(RunDirectory(path), "digits", "a", 2)
    assert {key: handed_on.get(key) for key in own} == own
    assert handed_on["split_seed"] == record["split_seed"]
    described.write_text(json.dumps({**record, "resize": "20"}))
    with pytest.raises(ValueError, match=r"dataset\.json.*resize"):
        restoring.preprocessing(RunDirectory(path), "digits", "a", 2)


def test_a_named_network_is_exported_as_keras_where_one_likes(run, tmp_path, capsys):
    output = tmp_path / "a.keras"
    arguments = ["--network=resnet14", "--format=keras", f"--output={output}"]
    assert export.main([f"--workdir={run}", *arguments]) == 0
    parameters = recorded(run)["networks"]["resnet14"]["parameters"]
    assert f"{parameters:,} parameters" in capsys.readouterr().out
    assert output.is_file()


def test_an_export_is_called_as_the_run_calls_the_network(tmp_path, capsys):
    settings = {"networks": ["resnet8", "resnet8"], "epochs": 1, "batch_size": 512}
    arguments = [f"--gin_param=train.{k} = {v!r}" for k, v in settings.items()]
    workdir = f"--workdir={tmp_path / 'twins'}"
    assert train.main([*arguments, "--gin_param=train.method = 'dml'", workdir]) == 0
    assert export.main([workdir, "--network=resnet8_2"]) == 0
    assert "exported epoch 1 of resnet8_2: saved_model" in capsys.readouterr().out


def test_an_export_of_an_unfinished_run_says_so(run, tmp_path, capsys):
    unfinished = shutil.copytree(run, tmp_path / "run")
    assert export.main([f"--workdir={run}", f"--output={tmp_path / 'a'}"]) == 0
    assert "not finished" not in capsys.readouterr().err
    (unfinished / "results.json").unlink()
    assert export.main([f"--workdir={unfinished}", f"--output={tmp_path / 'b'}"]) == 0
    assert "The run is not finished: it has 2 epochs." in capsys.readouterr().err


def test_results_are_tabled_with_what_is_missing(run, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    assert results.main([str(run), str(tmp_path / "notes")]) == 0
    output = capsys.readouterr().out
    network = recorded(run)["networks"]["resnet14"]
    assert re.search(
        rf"resnet14 +{network['parameters']:,} +{100 * network['accuracy']:.2f}", output
    )
    assert f"{tmp_path / 'notes'}: not a run" in output


def test_results_of_nothing_to_show_are_a_mistake_that_names_why(tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    assert results.main([str(tmp_path / "notes")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert f"{tmp_path / 'notes'}: not a run, it has no config.gin." in output.err


def test_results_need_no_tensorflow(run):
    code = (
        "import sys, afd_launcher; from afd_tf.cli import results; "
        f"assert results.main([{str(run)!r}]) == 0; "
        "assert 'tensorflow' not in sys.modules"
    )
    done = python("-c", code)
    assert done.returncode == 0
    assert "resnet8" in done.stdout


@pytest.mark.parametrize("command", [evaluate, export, results])
def test_help_is_short_and_of_our_flags_only(capsys, command):
    assert command.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: {command.COMMAND.name}")
    assert len(lines) < 30


def test_help_lists_the_formats_without_tensorflow():
    code = (
        "import sys, afd_launcher; from afd_tf.cli import export; "
        "assert export.main(['--help']) == 0; assert 'tensorflow' not in sys.modules"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert f"One of {', '.join(FORMATS)}. Default: saved_model." in text


def test_an_export_that_exists_is_not_overwritten(run, exported, capsys):
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    assert export.main([f"--workdir={run}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "exists" in error
    assert before == {path: path.stat().st_mtime_ns for path in exported.rglob("*")}


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (export, [], "--workdir"),
        (export, ["--workdir=RUN", "--network=resnet9"], "Did you mean 'resnet8'"),
        (export, ["--workdir=RUN", "--format=keras2", "--output=OUT"], "'keras'"),
        (export, ["--workdir=RUN", "--format=keras", "--output=OUT"], ".keras"),
        (export, ["--workdir=OUT"], "with a config.gin"),
        (evaluate, [], "either --workdir"),
        (evaluate, ["--workdir=RUN", "--model=OUT"], "either --workdir"),
        (evaluate, ["--workdir=OUT"], "with a config.gin"),
        (evaluate, ["--model=OUT"], "which does not exist"),
        (evaluate, ["--model=RUN"], "without this file"),
        (evaluate, ["--model=EXPORT", "--dataset=digit"], "digits"),
        (results, [], "at least one run directory"),
        (results, ["OUT"], "Expected a run directory"),
    ],
)
def test_a_mistake_is_one_line_exit_status_2_and_nothing_left(
    run, exported, tmp_path, capsys, command, arguments, message
):
    places = {"RUN": run, "OUT": tmp_path / "out", "EXPORT": exported}
    for name, place in places.items():
        arguments = [re.sub(rf"\b{name}$", str(place), a) for a in arguments]
    before = files(run)
    capsys.readouterr()
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"{command.COMMAND.name}: ")
    assert message in error
    assert files(run) == before
    assert files(tmp_path) == []


def test_a_run_without_a_finished_epoch_is_said(run, tmp_path, capsys):
    (tmp_path / "config.gin").write_text((run / "config.gin").read_text())
    for command, message in ((evaluate, "at least one"), (export, "has begun")):
        assert command.main([f"--workdir={tmp_path}"]) == 2
        assert message in capsys.readouterr().err


def test_a_warning_is_one_line_without_source():
    code = """
import afd_launcher, warnings
from afd_tf.cli import command
execute = lambda *_: warnings.warn("the disk is full") or 0
warn = command.Command("afd-train", "", "", (), (), execute)
assert command.entry_points(warn)[0]([]) == 0
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "afd-train: the disk is full\n")


@pytest.mark.slow
def test_the_commands_run_as_modules_without_noise(tmp_path):
    done = python("-m", "afd_launcher", "train", "--dry_run")
    assert (done.returncode, done.stderr) == (0, "")
    done = python("-m", "afd_launcher", "train", "--gin_param=train.epoch=1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    done = python("-m", "afd_launcher", "tarin")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m afd_launcher train|evaluate|")
