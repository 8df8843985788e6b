"""Every kind of cell of the paper's tables, and all that is ablated, takes a step."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf import config, networks
from afd_tf.devices import strategies
from afd_tf.training import Settings, experiment
from afd_tf.training.source import Source
from reproduction import cells

GIN = Path(__file__).resolve().parents[2] / "gin"


def kind(path):
    """Return in what cells differ but for the architectures."""
    settings = cells.read_settings([path])
    names = ("method", "method_options", "topology", "dataset")
    values = [settings[f"train.{name}"] for name in names]
    return repr(values), settings["train.source"] is None


# Of each kind the last: ResNet-20 or -32 in place of ResNet-56.
CELLS = {kind(path): path for path in sorted(GIN.glob("paper/*.gin"))}.values()
DESIGN = json.loads((GIN.parent / "studies/afd_ablation/design.json").read_text())
ABLATED = [GIN / f"{cell['gin_file']}.gin" for cell in DESIGN["cells"].values()]
SHAPES = {"cifar100": ((32, 32, 3), 100), "imagenet2012": ((64, 64, 3), 1000)}


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    config.clear()
    keras.config.set_dtype_policy("float32")


def two_images(name, batch_size, **_):
    """Stand in for `afd_tf.data.load`: two images of noise, of the set's kind."""
    del batch_size
    shape, classes = SHAPES[name]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *shape)).astype("float32")
    train = tf.data.Dataset.from_tensors((images, np.array([0, 1], "int32")))

    class Info:
        num_classes, image_shape, steps_per_epoch = classes, shape, 1
        mean = std = None

    return train, train, Info()


def untrained_source(path, wanted, trust=True):
    """Stand in for a trained network that has the name which the cell asks for."""
    del trust
    assert Path(path).parent.name.endswith("_vanilla")
    shape, classes = SHAPES["cifar100"]
    return Source(networks.build(wanted, classes, shape), {}, {})


def take_a_step(path, monkeypatch):
    """Return the distiller, its logs, and for each variable whether it moved."""
    config.load([path], ["compile.run_eagerly = True"])
    changes = {"load_data": two_images, "batch_size": 2}
    monkeypatch.setattr(experiment, "load_source", untrained_source)
    settings = Settings(**{**config.settings(), **changes})
    built = experiment.build(settings, strategies.strategy("single"))
    model = built.distiller
    if model.needs_pretraining:
        model.pretrain(built.train, epochs=1, verbose=0)
    before = [np.array(v) for v in model.trainable_variables]
    logs = model.fit(built.train, epochs=1, verbose=0, shuffle=False).history
    after = [np.array(v) for v in model.trainable_variables]
    moved = [not np.array_equal(b, a) for b, a in zip(before, after, strict=True)]
    return model, logs, moved


@pytest.mark.slow
@pytest.mark.parametrize("path", CELLS, ids=lambda path: path.stem)
def test_every_kind_of_cell_takes_a_step(path, monkeypatch):
    model, logs, moved = take_a_step(path, monkeypatch)
    assert all(np.isfinite(values[0]) for values in logs.values())
    # Of two images some gradients are zero, of a bias before a normalisation all.
    assert np.mean(moved) > 0.9
    source = cells.cell(path, "paper").source
    assert (model.source is not None) == (source is not None)


@pytest.mark.slow
@pytest.mark.parametrize("path", ABLATED, ids=lambda path: path.stem)
def test_everything_ablated_takes_a_step(path, monkeypatch):
    _, logs, moved = take_a_step(path, monkeypatch)
    assert all(np.isfinite(values[0]) for values in logs.values())
    assert np.mean(moved) > 0.9
