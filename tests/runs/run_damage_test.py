"""Run directories and exports that are damaged, or made to do harm."""

import json
import shutil
import sys

import keras
import pytest
import tensorflow as tf

from afd_tf import networks
from afd_tf.cli import analyse, evaluate, export, results, train
from afd_tf.exports import export as write_export

TRAIN = [
    "--gin_param=train.networks = ['resnet8', 'resnet8']",
    "--gin_param=train.method = 'vanilla'",
    "--gin_param=train.epochs = 1",
    "--gin_param=train.batch_size = 1024",
    "--gin_param=train.tensorboard = False",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train.main([*TRAIN, f"--workdir={path}"]) == 0
    return path


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def files(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def complaint(command, arguments, capsys):
    """Run a command that must refuse; return the line that it says."""
    capsys.readouterr()
    assert command.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    *warnings, line = error.splitlines()
    name = command.COMMAND.name
    assert all(f"{name}: Checkpoint" in warning for warning in warnings)
    assert line.startswith(f"{name}: ")
    assert line.isprintable()
    assert len(line) < 1500
    return line


@pytest.mark.parametrize("command", [train, export, evaluate])
@pytest.mark.parametrize(
    "content",
    [
        b"import trap_module\n",
        b"include '../../hostile'\n",
        b"train.networks = @train()\n",
        b"\xff\xfe\x00",
        b"",
        None,
    ],
)
def test_a_hostile_configuration_is_not_run(
    run, capsys, command, content, monkeypatch, tmp_path
):
    (tmp_path / "trap_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    if content is None:
        with open(run / "config.gin", "wb") as file:
            file.truncate(2**40)
    else:
        (run / "config.gin").write_bytes(content)
    before = files(run)
    arguments = [f"--workdir={run}", *(TRAIN if command is train else [])]
    complaint(command, arguments, capsys)
    assert files(run) == before
    assert "trap_module" not in sys.modules


RESULTS = [
    "",
    "[]",
    "{}",
    "[" * 100_000,
    '{"method": 3}',
    "accuracy:null",
    'accuracy:"0.9"',
    "accuracy:NaN",
    "accuracy:1e999",
    "networks:[]",
    "networks:{}",
    "seed:[1]",
    "epoch:1" + "0" * 5000,
]


@pytest.mark.parametrize("content", RESULTS, ids=range(len(RESULTS)))
def test_damaged_results_are_named(run, capsys, content):
    path = run / "results.json"
    if content[:1].isalpha():
        key, _, value = content.partition(":")
        recorded = json.loads(path.read_text())
        (recorded["mean"] if key == "accuracy" else recorded)[key] = "HERE"
        content = json.dumps(recorded).replace('"HERE"', value)
    path.write_text(content)
    if content.count('"networks": {}'):  # nothing is wrong with fewer networks
        assert results.main([str(run)]) == 0
        return
    assert f"Damaged results '{path}'" in complaint(results, [run], capsys)
    arguments = [*TRAIN, f"--workdir={run}"]
    assert f"Damaged results '{path}'" in complaint(train, arguments, capsys)


def test_damaged_runs_are_left_out_of_the_table_and_named(run, finished, capsys):
    (run / "results.json").write_text("{}")
    assert results.main([str(run), str(finished)]) == 0
    output = capsys.readouterr().out
    assert "resnet8" in output
    assert f"{run}: Damaged results" in output


def test_a_table_does_not_move_the_cursor(run, capsys):
    path = run / "results.json"
    recorded = json.loads(path.read_text())
    recorded["dataset"] = "\x1b[2Jgone\n\x9b"
    path.write_text(json.dumps(recorded))
    assert results.main([str(run)]) == 0
    output = capsys.readouterr().out
    assert "\\x1b[2Jgone\\n\\x9b" in output
    assert output.replace("\n", "").isprintable()


def test_damaged_metrics_of_an_unfinished_run_are_named(run, capsys):
    (run / "results.json").unlink()
    (run / "metrics.csv").write_bytes(b"\xff")
    assert "Damaged metrics" in complaint(results, [run], capsys)


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": "10"},
        {"num_classes": 10**9},
        {"image_shape": [16, 16]},
        {"image_shape": [16, -16, 1]},
        {"image_shape": None},
        {"class_names": 3},
        {"mean": "x"},
        None,
    ],
)
def test_a_damaged_description_of_the_data_is_named(run, capsys, change):
    path = run / "checkpoints" / "dataset.json"
    record = json.loads(path.read_text())
    path.write_text("{" if change is None else json.dumps({**record, **change}))
    before = files(run)
    line = complaint(export, [f"--workdir={run}"], capsys)
    assert str(path) in line or "`input_shape`" in line
    assert files(run) == before


@pytest.mark.filterwarnings("default:Checkpoint")
@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_damaged_checkpoint_is_named(run, capsys, suffix):
    (path,) = (run / "checkpoints").glob(f"*/*{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[:-9])
    before = files(run)
    line = complaint(export, [f"--workdir={run}"], capsys)
    assert "No checkpoint in" in line
    assert "all 1 are damaged" in line
    assert files(run) == before


# Exports


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    network = networks.resnet(8, 10, (16, 16, 1))
    described = {
        "dataset": "digits",
        "image_shape": [16, 16, 1],
        "mean": [0.5],
        "std": [0.25],
        "class_names": list("0123456789"),
    }
    for name, format in (("a", "saved_model"), ("a.keras", "keras")):
        write_export(network, folder / name, described, format=format)
    return folder


@pytest.mark.parametrize("change", ["std", "image_shape", "class_names", "dataset"])
@pytest.mark.parametrize("value", [None, [], {}, ["x"], "\x1b[2J"])
def test_a_damaged_description_of_an_export_is_named(
    exports, tmp_path, capsys, change, value
):
    shutil.copy(exports / "a.keras", tmp_path)
    described = json.loads((exports / "a.preprocessing.json").read_text())
    path = tmp_path / "a.preprocessing.json"
    path.write_text(json.dumps({**described, change: value}))
    complaint(evaluate, [f"--model={tmp_path / 'a.keras'}"], capsys)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_description_that_is_none_is_named(exports, tmp_path, capsys, content):
    shutil.copy(exports / "a.keras", tmp_path)
    path = tmp_path / "a.preprocessing.json"
    path.write_bytes(content)
    line = complaint(evaluate, [f"--model={tmp_path / 'a.keras'}"], capsys)
    assert f"Damaged description of the export '{path}'" in line


@pytest.mark.parametrize("name", ["a", "a.keras"])
def test_a_damaged_export_is_named(exports, tmp_path, capsys, name):
    shutil.copytree(exports, tmp_path, dirs_exist_ok=True)
    inside = "saved_model.pb" if name == "a" else ""
    path = tmp_path / name / inside
    path.write_bytes(path.read_bytes()[:1000])
    line = complaint(evaluate, [f"--model={tmp_path / name}"], capsys)
    assert f"Received: model='{tmp_path / name}'" in line


def test_code_in_a_keras_file_is_not_run(exports, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = tmp_path / "ran"
    images = keras.Input((16, 16, 1))
    harm = keras.layers.Lambda(
        lambda x: (__import__("os").mkdir("ran"), x)[1], output_shape=(16, 16, 1)
    )
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(harm(images)))
    keras.Model(images, outputs).save(tmp_path / "a.keras")
    # So it would, if Keras were told to trust it.
    trusted = keras.models.load_model(tmp_path / "a.keras", safe_mode=False)
    trusted(keras.ops.zeros((1, 16, 16, 1)))
    assert ran.exists()
    ran.rmdir()
    shutil.copy(exports / "a.preprocessing.json", tmp_path)
    line = complaint(evaluate, [f"--model={tmp_path / 'a.keras'}"], capsys)
    assert "without code of its own" in line
    assert not ran.exists()


class Harm(tf.saved_model.experimental.TrackableResource):
    """Part of a SavedModel that writes a file when it is loaded."""

    def __init__(self, path):
        super().__init__()
        self._path = str(path)

    def _create_resource(self):
        return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.string)

    def _initialize(self):
        tf.io.write_file(self._path, "written")


@pytest.fixture
def harmful(tmp_path):
    """Return a SavedModel that writes the file "ran" beside it."""
    module = tf.Module()
    module.harm = Harm(tmp_path / "ran")

    @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 1), name="images")])
    def serve(images):
        return {"logits": tf.reshape(images, (-1, 256))[:, :10]}

    tf.saved_model.save(module, tmp_path / "harmful", signatures=serve)
    (tmp_path / "ran").unlink(missing_ok=True)
    return tmp_path / "harmful"


def test_a_saved_model_in_a_configuration_is_not_run(run, harmful, capsys):
    ran = harmful.parent / "ran"
    source = f"train.source = '{harmful}'"
    with (run / "config.gin").open("a") as config:
        config.write(f"\n{source}\n")
    file = harmful.parent / "stranger.gin"
    one = "train.networks = ['resnet8']\ntrain.method = 'kd'\n"
    file.write_text(f"include 'datasets/digits'\n{one}{source}\n")
    dry = [f"--gin_file={file}", "--dry_run"]
    new = [f"--gin_file={file}", f"--workdir={harmful.parent / 'new'}"]
    for command, arguments in (
        (train, dry),
        (train, new),
        (evaluate, [f"--workdir={run}"]),
        (analyse, [run]),
    ):
        line = complaint(command, arguments, capsys)
        assert "Add --trust_source if you trust who made it" in line
        assert not ran.exists()
    file.write_text(f"{file.read_text()}train.trust_source = True\n")
    complaint(train, dry, capsys)
    assert not ran.exists()
    file.write_text(file.read_text().replace("train.trust_source = True\n", ""))
    assert train.main([*dry, "--trust_source"]) == 0
    assert ran.exists()  # so the refusals above did keep it from being run


def test_an_export_of_other_outputs_is_named(exports, tmp_path, capsys):
    images = keras.Input((16, 16, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(images))
    keras.Model(images, outputs).save(tmp_path / "a.keras")
    shutil.copy(exports / "a.preprocessing.json", tmp_path)
    line = complaint(evaluate, [f"--model={tmp_path / 'a.keras'}"], capsys)
    assert "it gives an array of shape (256, 3)" in line


def test_a_whole_export_is_evaluated(exports, capsys):
    for name in ("a", "a.keras"):
        assert evaluate.main([f"--model={exports / name}"]) == 0
        assert "accuracy" in capsys.readouterr().out
