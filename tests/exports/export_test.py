"""Exports: logits without this package, what is written, and what is refused."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf import data
from afd_tf.errors import Mistake
from afd_tf.exports import FORMATS, export, read_preprocessing, suffix
from afd_tf.exports.formats.format import Format
from afd_tf.files import held
from afd_tf.networks.layers.normalization import FusedBatchNormalization

# Runs exports where importing this package is an error.
RUNNER = """
import sys
import tempfile
import zipfile

sys.modules["afd_tf"] = None
import numpy as np

images, *paths = sys.argv[1:]
images = np.load(images)
for path in paths:
    if path.endswith(".keras"):
        import keras

        network = keras.models.load_model(path)
        logits, count = network(images), network.count_params()
    else:
        import tensorflow as tf

        loaded = tf.saved_model.load(path)
        logits = loaded.serve(images)
        served = loaded.signatures["serving_default"](images=tf.constant(images))
        np.testing.assert_array_equal(next(iter(served.values())), logits)
        count = sum(variable.shape.num_elements() for variable in loaded.variables)
    np.savez(path + ".npz", logits=np.asarray(logits), count=count)
"""


def small_network(normalization=FusedBatchNormalization, name="small", classes=5):
    layers = keras.layers
    images = keras.Input((12, 10, 3))
    x = layers.Conv2D(8, 3, use_bias=False, padding="same")(images)
    x = normalization()(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(0.5)(x)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    network = keras.Model(images, logits, name=name)
    rng = np.random.default_rng(3)
    # Positive, so that they serve as moving variances too.
    network.set_weights([rng.uniform(0.1, 1, w.shape) for w in network.get_weights()])
    return network


def some_images(count=7):
    return np.random.default_rng(1).normal(size=(count, 12, 10, 3)).astype("float32")


def test_exports_run_without_the_package_and_give_the_networks_logits(tmp_path):
    network, images = small_network(), some_images()
    reports = [
        export(network, tmp_path / f"net{suffix(format)}", format=format)
        for format in ("saved_model", "keras")
    ]
    paths = [report.path for report in reports]
    assert sorted(tmp_path.iterdir()) == sorted(paths)

    np.save(tmp_path / "images.npy", images)
    # -P: the working folder does not become an import path.
    subprocess.run(
        [sys.executable, "-P", "-c", RUNNER, tmp_path / "images.npy", *paths],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        check=True,
    )
    expected = network(images, training=False)
    for report in reports:
        with np.load(f"{report.path}.npz") as out:
            np.testing.assert_allclose(out["logits"], expected, rtol=1e-5, atol=1e-5)
            assert out["count"] == network.count_params() == report.parameters
        assert report.max_abs_error < 1e-4
        assert report.input_shape == (12, 10, 3)


def test_saved_model_holds_every_weight_once(tmp_path):
    network = small_network(classes=3000)

    report = export(network, tmp_path / "net")

    weights = 4 * network.count_params()
    data = next((tmp_path / "net" / "variables").glob("variables.data*"))
    assert weights <= data.stat().st_size < 1.2 * weights
    assert report.bytes == sum(
        f.stat().st_size for f in (tmp_path / "net").rglob("*") if f.is_file()
    )


def test_saved_model_takes_one_tensor_of_any_batch_size(tmp_path):
    export(small_network(), tmp_path / "net")

    loaded = tf.saved_model.load(str(tmp_path / "net"))

    for count in (1, 5):
        assert loaded.serve(some_images(count)).shape == (count, 5)
    (images,) = loaded.serve.input_signature
    assert images.shape.as_list() == [None, 12, 10, 3]
    assert images.dtype == tf.float32


def test_dropout_is_off_and_moving_statistics_stay(tmp_path):
    network, images = small_network(), some_images()
    before = [w.copy() for w in network.get_weights()]
    export(network, tmp_path / "net")
    loaded = tf.saved_model.load(str(tmp_path / "net"))

    np.testing.assert_array_equal(loaded.serve(images), loaded.serve(images))
    for old, new, kept in zip(
        before, network.get_weights(), loaded.variables, strict=True
    ):
        np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(old, kept.numpy())


@pytest.mark.parametrize("format", ["saved_model", "keras"])
def test_network_trained_in_mixed_precision_is_written_in_float32(format, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed, images = small_network(), some_images()
    keras.config.set_dtype_policy("float32")
    exact = small_network()
    exact.set_weights(mixed.get_weights())

    report = export(mixed, tmp_path / f"net{suffix(format)}", format=format)

    run = FORMATS[format].load(report.path)
    np.testing.assert_allclose(run(images), exact(images), rtol=1e-5, atol=1e-5)
    assert mixed.layers[1].compute_dtype == "bfloat16"


@pytest.mark.multi_device
def test_network_trained_on_two_devices_is_written_once(tmp_path):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        network = small_network(classes=3000)

    report = export(network, tmp_path / "net")

    images = some_images()
    loaded = tf.saved_model.load(str(report.path))
    np.testing.assert_allclose(
        loaded.serve(images), network(images), rtol=1e-5, atol=1e-5
    )
    weights = 4 * network.count_params()
    data = next((tmp_path / "net" / "variables").glob("variables.data*"))
    assert weights <= data.stat().st_size < 1.2 * weights


def test_nested_and_sequential_networks_are_exported(tmp_path):
    inner = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16")]
    )
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            inner,
            keras.layers.Flatten(),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )

    report = export(network, tmp_path / "net")

    assert report.parameters == network.count_params() == 4 * 9 + 4 + 144 * 3 + 3
    assert report.max_abs_error < 1e-4


@pytest.mark.parametrize("format", list(FORMATS))
def test_nothing_of_the_exporting_machine_is_inside(format, tmp_path, monkeypatch):
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "marked-user-name")
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / "marked-place"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "marked-place").mkdir()
    path = tmp_path / "marked-folder" / f"net{suffix(format)}"
    export(small_network(), path, format=format, preprocessing={"mean": 0.5})

    files = [f for f in path.parent.rglob("*") if f.is_file()]
    assert files
    here = [os.getcwd(), str(tmp_path), str(Path(__file__).parents[1]), sys.prefix]
    here += ["marked-", "site-packages", "afd_tf", socket.gethostname()]
    for file in files:
        contents = [file.read_bytes()]
        if zipfile.is_zipfile(file):  # a .keras file, whose parts are compressed
            with zipfile.ZipFile(file) as archive:
                contents = [archive.read(name) for name in archive.namelist()]
        for place in here:
            # A host may have a name so short that it is anywhere.
            if len(place) > 5:
                assert not any(place.encode() in c for c in contents), (file, place)


def test_preprocessing_is_kept_beside_the_network(tmp_path):
    given = {
        "mean": np.array([0.5, 0.25], "float32"),
        "std": (1.0, 2.0),
        "image_shape": (12, 10, 3),
        "class_names": ["cat", "dog"],
    }
    expected = {
        "mean": [0.5, 0.25],
        "std": [1.0, 2.0],
        "image_shape": [12, 10, 3],
        "class_names": ["cat", "dog"],
    }

    export(small_network(), tmp_path / "net", preprocessing=given)
    export(small_network(), tmp_path / "net.keras", format="keras", preprocessing=given)

    folder = json.loads((tmp_path / "net/assets.extra/preprocessing.json").read_text())
    file = json.loads((tmp_path / "net.preprocessing.json").read_text())
    assert folder == file == expected
    assert read_preprocessing(tmp_path / "net") == expected
    assert read_preprocessing(tmp_path / "net.keras") == expected
    export(small_network(), tmp_path / "bare")
    assert read_preprocessing(tmp_path / "bare") is None


def test_the_info_of_loaded_data_is_preprocessing_too(tmp_path):
    _, _, info = data.load("digits", 64)

    export(small_network(), tmp_path / "net", preprocessing=info)

    written = read_preprocessing(tmp_path / "net")
    assert written == {
        "network": "small",
        "dataset": "digits",
        "input": "float32 (batch, height, width, channels), (pixel / 255 - mean) / std",
        "output": "logits (batch, classes)",
        "image_shape": [16, 16, 1],
        "mean": list(info.mean),
        "std": list(info.std),
        "class_names": list("0123456789"),
        "test_fraction": 0.2,
        "split_seed": 0,
    }


def test_an_empty_folder_is_a_valid_target_and_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()

    export(small_network(), tmp_path / "empty")
    export(small_network(), tmp_path / "a" / "b" / "net")

    assert (tmp_path / "empty" / "saved_model.pb").exists()
    assert (tmp_path / "a" / "b" / "net" / "saved_model.pb").exists()


@pytest.mark.parametrize("name", ["net", "net.keras"])
def test_an_existing_target_is_refused_and_left_as_it_is(name, tmp_path):
    path = tmp_path / name
    file = path if path.suffix else path / "mine.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")

    format = "keras" if path.suffix else "saved_model"
    with pytest.raises(ValueError, match=r"`path`.*exists\. Remove it"):
        export(small_network(), path, format=format)

    assert file.read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) == (1 if path.suffix else 2)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ValueError, match=r"`path`.*file' is not a writable folder"):
        export(small_network(), tmp_path / "file" / "sub" / "net")


@pytest.mark.parametrize("missing_parent", [True, False])
def test_an_export_that_differs_leaves_nothing_behind(
    missing_parent, tmp_path, monkeypatch
):
    broken = Format(
        suffix="",
        write=FORMATS["saved_model"].write,
        load=lambda path: lambda images: np.full((len(images), 5), np.nan),
    )
    monkeypatch.setitem(FORMATS, "broken", broken)
    parent = tmp_path / "a" / "b" if missing_parent else tmp_path

    with pytest.raises(Mistake, match="differs by nan"):
        export(
            small_network(), parent / "net", format="broken", preprocessing={"mean": 0}
        )

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_after_a_kill_the_same_export_goes_on(tmp_path, monkeypatch, renamed):
    order, replace = [], os.replace

    def record(source, target):
        order.append(Path(target).name)
        replace(source, target)

    same = {"format": "keras", "preprocessing": {"mean": 0}}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", record)
        export(small_network(), tmp_path / "whole" / "net.keras", **same)
    assert order == ["net.preprocessing.json", "net.keras"]
    # What is left by a kill before, between and after the two.
    here = tmp_path / "here"
    left = here / ".export-net.keras" / "files"
    left.mkdir(parents=True)
    (left.parent / "lock").touch()
    for index, name in enumerate(order):
        shutil.copy(
            tmp_path / "whole" / name, (here if index < renamed else left) / name
        )
    if renamed == 2:
        with pytest.raises(Mistake, match=r"net\.keras' exists"):
            export(small_network(), here / "net.keras", **same)
    else:
        export(small_network(), here / "net.keras", **same)
    assert sorted(os.listdir(here)) == sorted(order)
    assert read_preprocessing(here / "net.keras") == {"mean": 0}


def test_two_exports_to_one_place_at_a_time_are_refused(tmp_path):
    (tmp_path / ".export-net").mkdir()
    with (
        held(tmp_path / ".export-net" / "lock"),
        pytest.raises(Mistake, match=r"which process \d+ on .* writes at the moment"),
    ):
        export(small_network(), tmp_path / "net")


def test_the_largest_difference_is_reported_and_judged_by_the_logits_scale(
    tmp_path, monkeypatch
):
    network = small_network()
    shifted = Format(
        suffix="",
        write=FORMATS["saved_model"].write,
        load=lambda path: lambda images: network(images, training=False) + 0.25,
    )
    monkeypatch.setitem(FORMATS, "shifted", shifted)

    report = export(network, tmp_path / "net", format="shifted", tolerance=1.0)
    assert report.max_abs_error == pytest.approx(0.25, rel=1e-3)
    with pytest.raises(Mistake, match=r"differs by 0\.25"):
        export(network, tmp_path / "net2", format="shifted", tolerance=1e-4)


def test_an_ending_may_have_several_parts(tmp_path, monkeypatch):
    two_parts = Format(
        suffix=".both.keras",
        write=FORMATS["keras"].write,
        load=FORMATS["keras"].load,
    )
    monkeypatch.setitem(FORMATS, "two_parts", two_parts)

    for name in ("net.keras", ".both.keras"):
        with pytest.raises(ValueError, match=r"ending in '\.both\.keras'"):
            export(small_network(), tmp_path / name, format="two_parts")

    path = tmp_path / "net.both.keras"
    assert export(small_network(), path, format="two_parts").path == path
    assert two_parts.is_name(path)


def test_keras_format_refuses_layers_that_only_this_process_knows(tmp_path):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    images = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(Mine()(images)))
    network = keras.Model(images, logits)

    with pytest.raises(ValueError, match=r"with \S*Mine.*'saved_model' instead"):
        export(network, tmp_path / "net.keras", format="keras")

    assert list(tmp_path.iterdir()) == []
    export(network, tmp_path / "net")


class Subclassed(keras.Model):
    def call(self, x):
        return x


def built(model):
    model(np.zeros((1, 2), "float32"))
    return model


def two_outputs():
    images = keras.Input((8, 8, 1))
    return keras.Model(images, [images, images])


@pytest.mark.parametrize(
    ("network", "format", "path", "error", "message"),
    [
        (small_network, "saved_modle", "net", ValueError, "Did you mean 'saved_model'"),
        (small_network, "keras", "net", ValueError, r"Use '.*net\.keras'"),
        (lambda: "resnet8", "saved_model", "net", TypeError, "network='resnet8'"),
        (keras.Sequential, "saved_model", "net", ValueError, "is not built"),
        (lambda: built(Subclassed()), "saved_model", "net", ValueError, "`networks`"),
        (two_outputs, "saved_model", "net", ValueError, "2 outputs"),
    ],
)
def test_what_cannot_be_exported_is_said_clearly(
    network, format, path, error, message, tmp_path
):
    with pytest.raises(error, match=message):
        export(network(), tmp_path / path, format=format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), object()])
def test_preprocessing_that_json_cannot_hold_is_refused(bad, tmp_path):
    with pytest.raises(ValueError, match="`preprocessing`"):
        export(small_network(), tmp_path / "net", preprocessing={"mean": bad})
    assert list(tmp_path.iterdir()) == []


def test_a_format_without_its_tools_says_what_to_install(tmp_path, monkeypatch):
    lacking = Format(
        suffix=".x", write=print, load=print, modules=("no_such_module",), extra="onnx"
    )
    monkeypatch.setitem(FORMATS, "lacking", lacking)

    with pytest.raises(ValueError, match=r"no_such_module.*'afd_tf\[onnx\]'"):
        export(small_network(), tmp_path / "net.x", format="lacking")


@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_formats_of_other_runtimes_reproduce_the_network(format, tmp_path):
    missing = FORMATS[format].missing()
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'afd_tf[{format}]'")
    network = small_network()

    report = export(network, tmp_path / f"net{suffix(format)}", format=format)

    assert report.max_abs_error < 1e-3  # of logits up to several hundred
    assert report.bytes >= 4 * network.count_params()
