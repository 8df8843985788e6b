import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import small_runs
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from afd_tf import data, training
from afd_tf.training import experiment, loop
from afd_tf.training.callbacks import nonfinite


@pytest.fixture
def determinism():
    yield
    tf_config.disable_op_determinism()


def rows(run):
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Results


def test_a_run_leaves_the_promised_files_and_results(tmp_path):
    run = tmp_path / "run"
    results = small_runs.train(run, method="afd", tensorboard=True)
    top = {path.name for path in run.iterdir()}
    assert top == {
        "config.gin",
        "operative_config.gin",
        "metrics.csv",
        "checkpoints",
        "logs",
        "results.json",
    }
    assert json.loads((run / "results.json").read_text()) == results
    assert list(results) == [
        "schema",
        "method",
        "parts",
        "dataset",
        "seed",
        "epoch",
        "step",
        "networks",
        "mean",
        "ensemble",
        "replicas",
        "data_sha256",
        "weights_sha256",
        "command",
        "commit",
        "versions",
    ]
    assert results["schema"] == 2
    assert (results["method"], results["dataset"]) == ("afd", "digits")
    assert (results["epoch"], results["step"]) == (2, 10)
    assert set(results["versions"]) == {"python", "tensorflow", "keras", "afd_tf"}
    accuracies = []
    for name, parameters in (("small", 36 + 16 + 50), ("large", 54 + 24 + 70)):
        network = results["networks"][name]
        assert set(network) == {"accuracy", "loss", "parameters"}
        assert network["parameters"] == parameters
        accuracies.append(network["accuracy"])
    assert results["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    last = rows(run)[-1]
    assert float(last["val_small_accuracy"]) == results["networks"]["small"]["accuracy"]
    assert float(last["val_large_loss"]) == results["networks"]["large"]["loss"]
    assert float(last["val_ensemble_accuracy"]) == results["ensemble"]["accuracy"]


def test_results_are_exact_counts_on_the_whole_test_set(finished):
    results = json.loads((finished / "results.json").read_text())
    settings = training.Settings(**small_runs.arguments(epochs=1))
    loaded, _ = training.restore(finished, settings)
    right, count = 0, 0
    for images, labels in loaded.evaluation:
        logits = loaded.distiller.networks[0](images, training=False)
        right += int(np.sum(np.argmax(logits, -1) == labels.numpy()))
        count += len(labels)
    assert count == loaded.info.test_examples
    assert results["networks"]["small"]["accuracy"] == pytest.approx(right / count)


def test_epochs_that_are_not_evaluated_have_empty_cells(tmp_path):
    small_runs.train(tmp_path / "run", epochs=3, evaluate_every=2)
    found = rows(tmp_path / "run")
    assert [row["val_small_accuracy"] != "" for row in found] == [False, True, True]
    assert all(row["small_accuracy"] != "" for row in found)


def test_a_run_with_a_validation_part_never_opens_the_test_set(tmp_path):
    seen = []

    def load(*args, **kwargs):
        loaded = data.load(*args, **kwargs)
        seen.append(loaded[2])
        return loaded

    small_runs.train(tmp_path / "run", validation=0.2, load_data=load, dry_run=True)
    assert seen[0].evaluated_split == "validation"


def test_precision_is_put_back(tmp_path):
    small_runs.train(tmp_path / "run", precision="mixed_bfloat16", dry_run=True)
    assert keras.config.dtype_policy().name == "float32"


# Resume


def test_the_seed_decides_the_run(tmp_path, determinism):
    for name in "ab":
        small_runs.train(tmp_path / name, epochs=1, deterministic=True)
    a, b = (small_runs.checkpoint_values(tmp_path / name) for name in "ab")
    small_runs.assert_same_values(a, b)
    assert np.array_equal(first_kernel(0), first_kernel(0))
    assert not np.array_equal(first_kernel(0), first_kernel(1))


def first_kernel(seed):
    settings = training.Settings(**small_runs.arguments(seed=seed))
    with experiment.environment(seed):
        built = training.build(settings, tf.distribute.get_strategy())
    return np.array(built.distiller.networks[0].variables[0])


def test_a_finished_run_is_not_repeated(finished, monkeypatch):
    monkeypatch.setattr(loop, "build", None)
    results = json.loads((finished / "results.json").read_text())
    assert small_runs.train(finished, epochs=1) == results


def test_a_run_killed_before_its_results_only_writes_them(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").unlink()
    again = small_runs.train(run, epochs=1)
    assert again["networks"] == results["networks"]
    small_runs.assert_same_values(
        small_runs.checkpoint_values(finished), small_runs.checkpoint_values(run)
    )


def test_data_that_changed_behind_a_run_is_refused(tmp_path):
    fraction = 0.2

    def load(*args, **kwargs):
        return data.load(*args, **kwargs, test_fraction=fraction)

    stop = small_runs.AfterEpoch(1)
    with pytest.raises(KeyboardInterrupt):
        small_runs.train(tmp_path / "run", load_data=load, callbacks=[stop])
    fraction = 0.3
    before = files(tmp_path)
    with pytest.raises(ValueError, match="other train_examples"):
        small_runs.train(tmp_path / "run", load_data=load)
    assert files(tmp_path) == before


# Dry run


def test_a_dry_run_describes_everything_and_writes_nothing(tmp_path, capsys):
    assert small_runs.train(tmp_path / "run", method="afd", dry_run=True) == {}
    assert files(tmp_path) == set()
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "small 102 feature_map 4x4x4 large",
        "feature_map",
        "discriminators: 2",
        "transfer layers: 2",
        "logit optimizer: SGD, learning rate 0.1 (x0.1 at 0.5, 0.75)",
        "feature optimizer: Adam",
        "discriminator optimizer: Adam",
        "digits, 16x16x1, 10 classes",
        "steps: 2 epochs x 5 = 10, of 256 images",
    ):
        assert part in text, part


# Bad input


def shared_layer_networks():
    layer = keras.layers.Conv2D(4, 3, name="feature_map")

    def build(num_classes, input_shape):
        images = keras.Input(input_shape)
        x = keras.layers.GlobalAveragePooling2D()(layer(images))
        return keras.Model(images, keras.layers.Dense(num_classes)(x))

    return [build, build]


def same_instance_networks():
    built = []

    def build(num_classes, input_shape):
        built.append(built[0] if built else small_runs.small(num_classes, input_shape))
        return built[0]

    return [build, build]


def softmax_network(num_classes, input_shape):
    model = small_runs.small(num_classes, input_shape)
    outputs = keras.layers.Softmax()(model.output)
    return keras.Model(model.input, outputs, name="softmax")


def fewer_classes(num_classes, input_shape):
    return small_runs.small(num_classes - 1, input_shape, name="fewer")


def larger_images(num_classes, input_shape):
    return small_runs.small(num_classes, (20, 20, 1), name="larger")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": [small_runs.small]}, "at least 2"),
        ({"networks": []}, "at least 2"),
        ({"networks": same_instance_networks()}, "same instance"),
        ({"networks": shared_layer_networks()}, "shares layer"),
        ({"networks": [small_runs.small, fewer_classes]}, "numbers of classes"),
        ({"networks": [small_runs.small, larger_images]}, "input shapes"),
        ({"networks": [larger_images, larger_images]}, "shape"),
        ({"networks": [small_runs.small, softmax_network]}, "logits"),
        ({"networks": ["resnet8", "resnt8"]}, "resnet8"),
        ({"networks": ["resnet8", 3]}, "Received: 3"),
        ({"method": "adf"}, "Did you mean 'afd'"),
        ({"method_options": {"norm": 1}}, "option"),
        ({"topology": "ring"}, "topology"),
        ({"dataset": "digit"}, "digits"),
        ({"batch_size": 5000}, "batch_size"),
        ({"validation": 1.0}, "validation"),
        ({"strategy": "mirror"}, "Did you mean 'mirrored'"),
        ({"strategy": "multi_worker"}, "needs a cluster"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small_runs.train(tmp_path / "new" / "run", **changes)
    assert files(tmp_path) == set()


# Found while training


def broken_data(break_batch):
    """Load digits, of which every epoch's third batch is broken."""

    def load(*args, **kwargs):
        train, test, info = data.load(*args, **kwargs)

        def maybe(step, batch):
            return tf.cond(step == 2, lambda: break_batch(*batch), lambda: batch)

        broken = train.enumerate().map(maybe)
        broken = broken.apply(tf.data.experimental.assert_cardinality(5))
        return broken, test, info

    return load


def nan_images(images, labels):
    return images * float("nan"), labels


def wrong_labels(images, labels):
    return images, labels + 10


def test_a_nan_stops_the_run_and_says_when_and_where(tmp_path):
    with pytest.raises(nonfinite.NonFiniteLossError) as caught:
        small_runs.train(tmp_path / "run", load_data=broken_data(nan_images))
    message = str(caught.value)
    assert "Loss of small and large is nan" in message
    assert "epoch 1, step 3" in message
    assert "Nothing was saved" in message
    # There is nothing to go on from, so nothing is left.
    assert files(tmp_path) == set()


def test_a_nan_later_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        small_runs.train(tmp_path / "run", callbacks=[small_runs.AfterEpoch(1)])
    before = small_runs.checkpoint_values(tmp_path / "run")
    monkeypatch.setattr(
        loop, "build", lambda *args, **kw: poisoned(training.build(*args, **kw))
    )
    with pytest.raises(nonfinite.NonFiniteLossError, match="checkpoint of epoch 1"):
        small_runs.train(tmp_path / "run")
    small_runs.assert_same_values(
        before, small_runs.checkpoint_values(tmp_path / "run")
    )
    assert len(rows(tmp_path / "run")) == 1


def poisoned(built):
    def maybe(images, labels):
        return images * float("nan"), labels

    train = built.train.map(maybe)
    return dataclasses.replace(built, train=train)


def test_a_label_out_of_range_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Labels must lie in \[0, 10\)"):
        small_runs.train(tmp_path / "run", load_data=broken_data(wrong_labels))
    assert files(tmp_path) == set()


# Callbacks of the user's own


class Own(keras.callbacks.Callback):
    """Adds to the logs, changes the model, and stops after an epoch."""

    def __init__(self, last):
        super().__init__()
        self._last = last

    def on_epoch_end(self, epoch, logs=None):
        logs["own"] = 10.0 + epoch
        self.model.networks[0].layers[-1].bias.assign(np.full(10, epoch + 1.0))
        if epoch + 1 == self._last:
            self.model.stop_training = True


def test_callbacks_reach_the_metrics_and_the_checkpoint_and_may_end_a_run(
    tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training.Experiment, "evaluate", None)
        with pytest.raises(TypeError):  # killed before the results
            small_runs.train(run, epochs=3, callbacks=[Own(last=2)])
    assert [row["own"] for row in rows(run)] == ["10.0", "11.0"]
    values = small_runs.checkpoint_values(run)
    [bias] = [v for k, v in values.items() if "network/small" in k and "bias" in k]
    np.testing.assert_array_equal(bias, np.full(10, 2.0))
    results = small_runs.train(run, epochs=3)
    assert (results["epoch"], results["step"]) == (2, 10)
    assert len(rows(run)) == 2


def test_a_run_larger_than_its_limit_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"Expected at most 10,000 layers.*of 24,000"):
        small_runs.train(tmp_path / "run", networks=["resnet8"] * 3000)
    with pytest.raises(ValueError, match=r"at most 7 layers in all.*max_layers to 8"):
        small_runs.train(tmp_path / "run", networks=["resnet8"], max_layers=7)
    assert not (tmp_path / "run").exists()
