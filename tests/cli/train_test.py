import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gin
import numpy as np
import PIL.Image
import pytest

from afd_tf import config
from afd_tf.cli import evaluate, train
from afd_tf.training import Experiment
from afd_tf.training.callbacks import progress

SMALL = [
    "--gin_param=train.networks = ['resnet8', 'resnet8']",
    "--gin_param=train.method = 'vanilla'",
    "--gin_param=train.epochs = 2",
    "--gin_param=train.batch_size = 512",
    "--gin_param=train.tensorboard = False",
]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files():
    return sorted(str(path) for path in Path().rglob("*"))


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("afd-train: ")
    return error


def test_help_and_mistyped_flags_and_files_need_no_tensorflow():
    code = """
import sys
import afd_launcher
from afd_tf.cli import train
assert train.main(["--help"]) == 0
assert train.main(["--gin_fil=x"]) == 2
assert train.main(["--gin_file=pairings/none"]) == 2
assert train.main(["--gin_param=import os"]) == 2
assert "tensorflow" not in sys.modules
"""
    root = str(Path(config.__file__).parents[2])
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": root},
    )


@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
def test_help_is_short_and_of_our_flags_only(capsys, flag):
    assert train.main([flag]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].startswith("usage: afd-train")
    assert len(lines) < 45
    assert max(map(len, lines)) <= 100
    for name in (
        "gin_file",
        "gin_param",
        "workdir",
        "data_dir",
        "seed",
        "deterministic",
        "checkpoint_steps",
        "checkpoint_minutes",
        "strategy=auto|single|mirrored|multi_worker",
        "dry_run",
        "trust_source",
    ):
        assert f"--{name}" in text
    assert "flagfile" not in text
    assert "examples:" in text


def test_a_run_is_trained_and_not_repeated(capsys):
    assert train.main([*SMALL, "--workdir=run"]) == 0
    output = capsys.readouterr()
    assert "epoch 2/2" in output.out
    assert "resnet8_2" in output.out
    results = json.loads(Path("run/results.json").read_text())
    assert results["command"].startswith("afd-train '--gin_param=train.networks")
    assert results["epoch"] == 2
    operative = Path("run/operative_config.gin").read_text()
    assert "train.epochs = 2" in operative
    assert "load_data.pad_mode = 'zero'" in operative
    assert "StepDecay.boundaries" in operative
    times = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    assert train.main([*SMALL, "--workdir=run"]) == 0
    again = capsys.readouterr().out
    assert "finished before" in again
    assert "epoch 1/2" not in again
    assert output.out.split("\n\n")[-1] == again.split("\n\n")[-1]
    assert times == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    # More epochs are another configuration.
    assert train.main([*SMALL, "--gin_param=train.epochs=3", "--workdir=run"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "train.epochs = 2 there, 3 now" in output.err


@pytest.fixture
def interruptible():
    """Listen to SIGINT, which a process started in the background may ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_says_how_to_go_on_and_does(capsys, monkeypatch):
    done = progress.Progress.on_train_batch_end

    def interrupt(self, batch, logs=None):
        done(self, batch, logs)
        if (self._epoch, batch) == (1, 0):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "on_train_batch_end", interrupt)
        assert train.main([*SMALL, "--workdir=run"]) == 143
    error = capsys.readouterr().err
    assert "saved after epoch 1 and 1 step. Continue with: afd-train " in error
    assert "--workdir=run" in error
    assert "Traceback" not in error
    assert train.main([*SMALL, "--workdir=run"]) == 0
    output = capsys.readouterr().out
    assert "Continuing run after epoch 1 and 1 step; 2 epochs in all." in output
    assert "epoch 1/2" not in output
    assert "epoch 2/2" in output


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_before_anything_was_saved_leaves_nothing(
    capsys, monkeypatch, number
):
    def interrupt(self, logs=None):
        signal.raise_signal(number)

    monkeypatch.setattr(progress.Progress, "on_train_begin", interrupt)
    assert train.main([*SMALL, "--workdir=runs/run"]) == 128 + number
    assert "Nothing is left. Start with: afd-train" in capsys.readouterr().err
    assert files() == []


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_before_training_stops_at_once(capsys, monkeypatch, number):
    def load(*args, **kwargs):
        signal.raise_signal(number)
        raise AssertionError("reached")

    monkeypatch.setattr(Experiment, "describe", load)
    assert train.main([*SMALL, "--dry_run"]) == 128 + number
    assert "interrupted" in capsys.readouterr().err


def test_flags_win_over_parameters_and_files(capsys):
    Path("own.gin").write_text("train.seed = 1\ntrain.strategy = 'mirrored'\n")
    arguments = [*SMALL, "--gin_file=own.gin", "--gin_param=train.seed = 2"]
    flags = ["--seed=3", "--deterministic", "--strategy=single", "--dry_run"]
    seen = {}

    def call(name, **kwargs):
        seen.update(config.settings(), **kwargs)

    original, config.call = config.call, call
    try:
        assert train.main([*arguments, *flags]) == 0
    finally:
        config.call = original
    assert seen["seed"] == 3
    assert seen["deterministic"] is True
    assert seen["strategy"] == "single"
    assert str(seen["workdir"]) == "runs/own-3"


def test_without_flags_the_embedded_pairing_is_described(capsys):
    assert train.main(["--dry_run"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("resnet8 75,482 feature_map 4x4x64 resnet20", "discriminators: 2"):
        assert part in text
    assert files() == []


def test_a_dry_run_says_what_the_directory_would(tmp_path, capsys):
    (tmp_path / "notes").touch()
    assert train.main([*SMALL, "--dry_run", f"--workdir={tmp_path}"]) == 2
    assert "holds 'notes' and no config.gin" in capsys.readouterr().err
    new = tmp_path / "new"
    assert train.main([*SMALL, "--dry_run", f"--workdir={new}"]) == 0
    assert not new.exists()


def test_gin_is_left_clean():
    assert train.main([*SMALL, "--dry_run"]) == 0
    assert gin.config_str() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdirr=x"], "Did you mean: workdir"),
        (["--epochs=3"], "is a setting: --gin_param='train.epochs = ...'. See afd-tr"),
        (["--epoch=3"], "Unknown command line flag 'epoch'. See afd-train --help"),
        (["--seed=a"], "--seed=a"),
        (["--seed=-1"], "`seed`"),
        (["--checkpoint_steps=0"], "`checkpoint_steps`"),
        (["--checkpoint_minutes=-1"], "`checkpoint_minutes`"),
        (["--strategy=many"], "--strategy=many"),
        (["--strategy=many"], "<auto|single|mirrored|multi_worker>"),
        (["--strategy=multi_worker"], "needs a cluster"),
        (["surplus"], "Unexpected argument 'surplus'"),
        (
            ["--gin_file=pairings/digits_resnet8_resnet21"],
            "digits_resnet8_resnet20.gin",
        ),
        (["--gin_param=import os"], "no import statement"),
        (["--gin_param=train.epoch = 1"], "Did you mean 'train.epochs'"),
        (["--gin_param=train.epochs = 0"], "`epochs`"),
        (["--gin_param=train.dataset = digits"], "strings in quotes"),
        (["--gin_param=train.dataset = 'digit'"], "digits"),
        (["--gin_param=train.dataset = 'image_folder'"], "data_dir"),
        (["--gin_param=train.method = 'adf'"], "Did you mean 'afd'"),
        (["--gin_param=train.networks = ['resnet8']"], "at least 2"),
        (["--gin_param=train.networks = ['resnet8', 'resnt8']"], "'resnet8'"),
        (["--gin_param=train.networks = ['resnet8', 'resnet9']"], "depth"),
        (["--gin_param=train.networks = [@resnet(), @resnet()]"], "without ()"),
        (["--gin_param=train.networks = [@resnet, @resnet]"], "depth"),
        (["--gin_param=train.networks = 3"], "networks"),
        (["--gin_param=train.batch_size = 2000"], "batch_size"),
        (["--gin_param=OnlineDistiller.tap = 'fature_map'"], "feature_map"),
        (["--gin_param=OnlineDistiller.tap = 'logits'"], "tap"),
        (["--gin_param=logit/SGD.momentum = 'x'"], "SGD"),
        (["--gin_param=logit/SGD.learning_rate = 'x'"], "learning_rate"),
        (["--gin_param=load_data.image_size = 'x'"], "image_size"),
        (["--workdir=file"], "is a file"),
        (["--workdir=file/run"], "can be written"),
        (["--workdir=/proc/afd/run"], "can be written"),
        (["--workdir=others"], "holds 'thesis.tex'"),
    ],
)
def test_a_mistake_is_one_line_exit_status_2_and_nothing_left(
    capsys, arguments, message
):
    Path("file").touch()
    Path("others").mkdir()
    Path("others/thesis.tex").touch()
    before = files()
    assert train.main(arguments) == 2
    assert message in one_line(capsys)
    assert files() == before


# Your own folder


def image_folder(count=12):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = Path("photos") / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (20 + i, 24, 3)).astype("uint8")
                PIL.Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return Path("photos")


FOLDER = [
    "--gin_file=datasets/image_folder",
    "--gin_param=train.networks = ['resnet8', 'resnet8']",
    "--gin_param=train.method = 'vanilla'",
    "--gin_param=train.epochs = 1",
    "--gin_param=train.batch_size = 8",
    "--gin_param=load_data.image_size = 16",
    "--gin_param=load_data.padding = 2",
    "--data_dir=photos",
]


def test_a_folder_of_images_is_trained_on_and_evaluated_with_its_statistics(capsys):
    image_folder()
    assert train.main(FOLDER) == 0
    assert "runs/image_folder-0: run directory." in capsys.readouterr().out
    recorded = json.loads(Path("runs/image_folder-0/results.json").read_text())
    assert recorded["step"] == 3
    shutil.move("photos", "darker")
    for path in Path("darker/train").rglob("*.jpg"):
        PIL.Image.new("RGB", (20, 20), "black").save(path)
    capsys.readouterr()
    arguments = ["--workdir=runs/image_folder-0", "--data_dir=darker"]
    assert evaluate.main(arguments) == 0
    output = capsys.readouterr().out
    for network in recorded["networks"].values():
        assert f"{network['loss']:.4f}" in output


@pytest.mark.parametrize("memory", [2**30, 0], ids=["in memory", "read while training"])
def test_a_truncated_image_is_named(capfd, memory):
    broken = image_folder() / "train" / "dog" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    before = files()
    assert train.main([*FOLDER, f"--gin_param=load_data.memory_limit = {memory}"]) == 2
    error = capfd.readouterr().err
    assert "dog/3.jpg" in error
    assert "Traceback" not in error
    assert files() == before
