"""Runs that learn from a network of an earlier run, or of a file."""

import contextlib
import json
import shutil
import signal
import warnings
import zipfile

import keras
import numpy as np
import pytest
import small_runs
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from afd_tf import OnlineDistiller, errors, exports, training
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training import source
from afd_tf.training.callbacks.saving import StopIfAsked
from afd_tf.training.interruption import Interrupted
from afd_tf.training.outcome import weights_digest
from afd_tf.training.restoring import restore_network


@pytest.fixture
def teacher(finished):
    return finished


@pytest.fixture
def determinism():
    yield
    tf_config.disable_op_determinism()


def offline(workdir, teacher, **changes):
    settings = {
        "networks": [small_runs.small],
        "method": "kd",
        "epochs": 1,
        "source": str(teacher),
        "source_network": "large",
        **changes,
    }
    return small_runs.train(workdir, **settings)


def restored(run, name):
    return restore_network(RunDirectory(run), name)[0]


def test_results_say_what_the_networks_learnt_from(teacher, tmp_path):
    results = offline(tmp_path / "a", teacher)
    assert list(results["networks"]) == ["small"]
    earlier = json.loads((teacher / "results.json").read_text())
    assert results["source"] == {
        "path": str(teacher),
        "network": "large",
        "accuracy": earlier["networks"]["large"]["accuracy"],
        "sha256": weights_digest([restored(teacher, "large")]),
    }
    assert "source" not in earlier
    # A finished run is not repeated, whatever has become of its source.
    assert offline(tmp_path / "a", teacher) == results


def test_a_run_loads_its_source_and_keeps_it_out_of_its_checkpoints(teacher, tmp_path):
    arguments = small_runs.arguments(
        networks=[small_runs.small], method="kd", source=teacher, source_network="large"
    )
    offline(tmp_path / "a", teacher)
    settings = training.Settings(**arguments)
    experiment, _ = training.restore(tmp_path / "a", settings)
    expected = restored(teacher, "large").get_weights()
    for one, other in zip(
        experiment.distiller.source.get_weights(), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)
    names = small_runs.checkpoint_values(tmp_path / "a")
    # Kernel, gamma, beta, moving mean and variance, kernel and bias of one network.
    assert sum(name.startswith("network/") for name in names) == 7
    assert not any("large" in name for name in names)
    assert sum("moving_mean" in name for name in names) == 1


def test_networks_begin_as_they_would_without_a_source(teacher):
    kernels = []
    for changes in ({}, {"method": "kd", "source": teacher, "source_network": "large"}):
        keras.utils.set_random_seed(0)
        settings = training.Settings(**small_runs.arguments(**changes))
        built = training.build(settings, tf.distribute.get_strategy())
        kernels.append(built.distiller.networks[0].get_weights())
    for one, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sources_are_read_from_files_of_every_kind(teacher, tmp_path):
    network = restored(teacher, "large")
    exports.export(network, tmp_path / "large.keras", format="keras")
    exports.export(network, tmp_path / "folder")
    model = OnlineDistiller([network, restored(teacher, "small")], "vanilla")
    model.save(tmp_path / "pair.keras")
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype("float32")
    expected = network(images, training=False)
    for name, wanted in (
        ("large.keras", None),
        ("pair.keras", "large"),
        ("folder", None),
    ):
        found = source.load_source(tmp_path / name, wanted)
        np.testing.assert_allclose(
            found.network(images), expected, rtol=1e-4, atol=1e-5
        )
        assert found.record["accuracy"] is None
        kinds = {"folder": ["kd"]}.get(name, ["kd", "afd"])
        for method in kinds:
            student = small_runs.small(10, (16, 16, 1))
            student = OnlineDistiller([student], method, source=found.network)
            student.compile()
            labels = np.arange(4)
            assert np.isfinite(student.train_on_batch(images, labels)[0])


@pytest.mark.parametrize(
    ("path", "wanted", "message"),
    [
        ("teacher", None, r"Expected one of \['large', 'small'\].*source_network ="),
        ("teacher", "lrage", "Did you mean 'large'"),
        ("nowhere", None, "which does not exist"),
        ("empty", None, "which holds none of these"),
        ("unfinished", "small", "Expected a run that is finished"),
        ("damaged.keras", None, "does not load"),
        ("pair.keras", None, "Expected one of"),
        ("one.keras", "other", "holds one network, 'small'"),
    ],
)
def test_what_is_no_source_says_so(teacher, tmp_path, path, wanted, message):
    (tmp_path / "empty").mkdir()
    shutil.copytree(teacher, tmp_path / "teacher")
    shutil.copytree(teacher, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "results.json").unlink()
    (tmp_path / "damaged.keras").write_text("nothing")
    small, large = (restored(teacher, name) for name in ("small", "large"))
    small.save(tmp_path / "one.keras")
    OnlineDistiller([small, large], "vanilla").save(tmp_path / "pair.keras")
    with pytest.raises(ValueError, match=message):
        source.load_source(tmp_path / path, wanted)
    if path == "teacher":
        with pytest.raises(ValueError, match=message):
            offline(tmp_path / "run", tmp_path / path, source_network=wanted)
        assert not (tmp_path / "run").exists()


def test_a_file_that_would_run_code_is_refused(tmp_path):
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Lambda(lambda x: 2 * x)(inputs)
    x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    keras.Model(inputs, x).save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match=r"does not load.*[Ll]ambda"):
        source.load_source(tmp_path / "code.keras")


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "a.keras"
    small_runs.small(10, (16, 16, 1)).save(path)
    return path


def test_a_damaged_file_is_refused_in_a_line(keras_file, tmp_path):
    content = keras_file.read_bytes()
    path = tmp_path / "a.keras"
    random = np.random.default_rng(0)
    for _ in range(60):
        start = random.integers(len(content))
        end = start + random.choice([1, 100, 3000, len(content)])
        middle = random.bytes(min(end, len(content)) - start)
        damaged = content[:start] + random.choice([b"", middle]) + content[end:]
        path.write_bytes(damaged)
        with contextlib.suppress(errors.InvalidValue):
            source.load_source(path)


@pytest.mark.parametrize("part", ["config.json", "assets/weights"])
def test_a_file_that_unpacks_to_far_more_than_it_is_is_refused(
    keras_file, tmp_path, part
):
    path = tmp_path / "a.keras"
    with (
        zipfile.ZipFile(keras_file) as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            # Keras would read it, however much there is of it.
            padding = b" " * 2**25 if name == part else b""
            bomb.writestr(name, whole.read(name) + padding)
        if part not in whole.namelist():
            bomb.writestr(part, bytes(2**25))
    assert path.stat().st_size < 2**20
    with pytest.raises(errors.InvalidValue, match=r"bytes, more than"):
        source.load_source(path)


def test_a_source_of_other_classes_or_normalisation_is_noticed(teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "teacher")
    file = tmp_path / "teacher" / "checkpoints" / "dataset.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "mean": [0.9]}))
    with pytest.warns(UserWarning, match=r"images of mean \[0.9\]"):
        offline(tmp_path / "a", tmp_path / "teacher")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        offline(tmp_path / "b", teacher)
    file.write_text(json.dumps({**record, "class_names": ["cat"] * 10}))
    with pytest.raises(ValueError, match=r"classes of 'digits', 10 .* for 10 .*cat"):
        offline(tmp_path / "c", tmp_path / "teacher")


def test_without_a_source_kd_says_how_to_give_one(tmp_path):
    with pytest.raises(ValueError, match=r'train.source = "runs/teacher"'):
        small_runs.train(tmp_path / "a", method="kd")
    assert not (tmp_path / "a").exists()


def stop_after(step):
    return small_runs.AfterStep(0, step, lambda _: signal.raise_signal(signal.SIGTERM))


def quick_ft():
    return {"method": "ft_kd", "method_options": {"paraphraser_epochs": 2}}


@pytest.mark.slow
def test_an_interrupted_run_with_a_paraphraser_ends_as_if_it_had_not_been(
    teacher, tmp_path, determinism, capsys
):
    settings = {**quick_ft(), "deterministic": True}
    offline(tmp_path / "whole", teacher, **settings)
    printed = capsys.readouterr().out
    assert "Trains what the method needs beforehand, 2 epochs." in printed
    assert "Trained beforehand, 2 epochs" in printed
    with pytest.raises(Interrupted):
        offline(tmp_path / "stopped", teacher, **settings, callbacks=[stop_after(3)])
    capsys.readouterr()
    results = offline(tmp_path / "stopped", teacher, **settings)
    assert "Trained beforehand" not in capsys.readouterr().out
    small_runs.assert_same_values(
        small_runs.checkpoint_values(tmp_path / "whole"),
        small_runs.checkpoint_values(tmp_path / "stopped"),
    )
    assert small_runs.rows(tmp_path / "whole") == small_runs.rows(tmp_path / "stopped")
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert results["networks"] == whole["networks"]


def test_a_run_stopped_while_it_trains_beforehand_leaves_nothing(
    teacher, tmp_path, monkeypatch
):
    happening = StopIfAsked.on_train_batch_begin

    def hook(self, batch, logs=None):
        if batch == 2:
            signal.raise_signal(signal.SIGTERM)
        happening(self, batch, logs)

    monkeypatch.setattr(StopIfAsked, "on_train_batch_begin", hook)
    with pytest.raises(Interrupted) as stopped:
        offline(tmp_path / "a", teacher, **quick_ft())
    assert stopped.value.position is None
    assert not (tmp_path / "a").exists()


def test_a_source_that_changed_since_the_run_began_is_refused(teacher, tmp_path):
    restored(teacher, "large").save(tmp_path / "large.keras")
    changes = {"source": str(tmp_path / "large.keras"), "source_network": None}
    with pytest.raises(Interrupted):
        offline(tmp_path / "a", teacher, **changes, callbacks=[stop_after(2)])
    network = keras.models.load_model(tmp_path / "large.keras")
    network.layers[-1].bias.assign(np.ones(10))
    network.save(tmp_path / "large.keras")
    with pytest.raises(ValueError, match="whose weights have changed since"):
        offline(tmp_path / "a", teacher, **changes)


def test_a_run_of_branches_is_one_run_and_each_branch_a_network(tmp_path):
    run = tmp_path / "one"
    results = small_runs.train(run, networks=["resnet8"], method="one", epochs=1)
    assert list(results["networks"]) == ["resnet8", "resnet8_2", "resnet8_3"]
    assert {n["parameters"] for n in results["networks"].values()} == {75482}
    network = restored(run, "resnet8_3")
    loaded = source.load_source(run, "resnet8_3")
    assert loaded.record["accuracy"] == results["networks"]["resnet8_3"]["accuracy"]
    values = small_runs.checkpoint_values(run)
    kernel = next(v for v in network.variables if "branch3" in v.path)
    assert any(np.array_equal(value, np.array(kernel)) for value in values.values())
