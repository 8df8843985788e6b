"""Every shipped gin file is read, its networks built; every method takes a step."""

import functools
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import afd_tf
from afd_tf import config, methods, training
from afd_tf.devices import strategies
from reproduction.cells import paper_cells

ROOT = Path(__file__).resolve().parents[2] / "gin"
# Cells and studies, and what they share, are read in reproduce_plan_test.py.
FILES = sorted(
    name
    for name in (str(path.relative_to(ROOT)) for path in ROOT.rglob("*.gin"))
    if not name.startswith(("paper/", "studies/", "protocols/reduced/"))
)
PAIRINGS = [name for name in FILES if name.startswith("pairings/")]
NETWORKS = [name for name in FILES if name.startswith("networks/")]
CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "imagenet2012": 1000}
SHAPES = {
    "digits": (16, 16, 1),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "imagenet2012": (224, 224, 3),
}
# Whose networks are named after them, since they are not those for small images.
LARGE = {"imagenet": "imagenet2012"}


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    config.clear()


def slow_unless(names, small):
    return [
        pytest.param(name, marks=[] if re.search(small, name) else pytest.mark.slow)
        for name in names
    ]


def fake_data(name, batch_size, *, shape=None, classes=None, **_):
    """Stand in for `afd_tf.data.load`: one batch of noise of the right shape."""
    shape, classes = shape or SHAPES[name], classes or CLASSES[name]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, *shape)).astype("float32")
    labels = rng.integers(0, classes, batch_size).astype("int32")
    train = tf.data.Dataset.from_tensors((images, labels))

    class Info:
        num_classes, image_shape, steps_per_epoch = classes, shape, 1

    return train, train, Info()


def build(settings, **changes):
    settings = training.Settings(**{**settings, "load_data": fake_data, **changes})
    return training.build(settings, strategies.strategy("single"))


def test_there_is_no_package_named_gin():
    assert not list(ROOT.rglob("*.py"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_read_by_its_name(name):
    complete = name.startswith("pairings/")
    assert config.load([name], complete=complete)
    assert config.load([name.removesuffix(".gin")], complete=complete)


QUICK = r"/(resnet(8|14|20|32)|wrn1|imagenet_resnet18|vgg|densenet40|cifar_)"


@pytest.mark.parametrize("name", slow_unless(NETWORKS, QUICK))
def test_every_network_file_gives_the_network_of_its_name(name):
    stem = Path(name).stem
    [reference] = set(re.findall(rf"@{stem}/\w+", (ROOT / name).read_text()))
    config.load([name], [f"train.networks = [{reference}]"])
    [network] = config.settings()["networks"]
    model = network(num_classes=7, input_shape=(32, 32, 1))
    assert model.name == stem
    assert model.input_shape == (None, 32, 32, 1)
    assert model.output_shape == (None, 7)


@pytest.mark.parametrize("name", slow_unless(PAIRINGS, r"digits|100_resnet20_wrn16_2"))
def test_every_pairing_builds_what_its_name_says(name):
    config.load([name])
    dataset, *networks = re.findall(
        r"resnet\d+x?\d*|wrn\d+_\d+|^[a-z0-9]+", Path(name).stem
    )
    repeated = re.fullmatch(r"(resnet\d+)x(\d)", networks[0])
    if repeated:
        more = range(2, int(repeated[2]) + 1)
        networks = [repeated[1], *(f"{repeated[1]}_{i}" for i in more)]
    if dataset in LARGE:
        networks = [f"{dataset}_{network}" for network in networks]
        dataset = LARGE[dataset]
    settings = config.settings()
    assert settings["dataset"] == dataset
    built = build(settings)
    assert built.distiller.network_names == networks
    assert built.distiller.method.name == "afd"
    for network in built.distiller.networks:
        assert network.input_shape == (None, *SHAPES[dataset])
        assert network.output_shape == (None, CLASSES[dataset])


@pytest.mark.parametrize("name", PAIRINGS)
def test_every_pairing_says_what_it_is_how_to_run_it_and_what_it_costs(name):
    header = (ROOT / name).read_text().split("\n\n")[0]
    stem = name.removesuffix(".gin")
    assert f"afd-train --gin_file={stem} " in header
    assert "Cost: " in header
    assert "Result: " in header
    assert "TBD" not in header


def tiny_network(channels):
    def build(num_classes, input_shape):
        images = keras.Input(input_shape)
        x = keras.layers.Conv2D(channels, 3, activation="relu")(images)
        x = keras.layers.GlobalAveragePooling2D()(x)
        outputs = keras.layers.Dense(num_classes)(x)
        return keras.Model(images, outputs, name=f"tiny{channels}")

    return build


TOPOLOGIES = [(m, "cycle") for m in sorted({*methods.names()} - {"kd", "one"})]
TOPOLOGIES += [("afd", "all_pairs"), ("l1_kd", "all_pairs")]


@pytest.mark.parametrize(("method", "who"), TOPOLOGIES)
def test_every_method_takes_a_step_among_three(method, who):
    networks = [tiny_network(channels) for channels in (3, 4, 4)]
    setting = [f"train.method = '{method}'", f"train.topology = '{who}'"]
    config.load([], [*setting, "compile.run_eagerly = True"])
    small = functools.partial(fake_data, shape=(8, 8, 1), classes=3)
    built = build(config.settings(), networks=networks, batch_size=4, load_data=small)
    model = built.distiller
    before = [np.array(v) for v in model.trainable_variables]
    logs = model.fit(built.train, epochs=1, verbose=0, shuffle=False).history
    assert all(np.isfinite(values[0]) for values in logs.values())
    moved = [
        not np.array_equal(b, np.array(v))
        for b, v in zip(before, model.trainable_variables, strict=True)
    ]
    assert all(moved)


@pytest.mark.parametrize("method", ["l1", "l2", "at"])
@pytest.mark.parametrize("kd", ["", "_kd"])
def test_direct_alignment_can_join_the_logit_loss(method, kd):
    cell = f"paper/table1_resnet32_wrn28_4_{method}{kd}"
    config.load([cell, "protocols/joint_alignment"])
    settings = config.settings()
    found = methods.get(settings["method"], **settings["method_options"])
    assert (found.name, found.feature.joins_logit_loss) == (f"{method}{kd}", True)


def test_joint_alignment_names_cells_that_it_is_for():
    documented = (ROOT.parent / "docs" / "reproduce.md").read_text()
    command = (
        r"--gin_file=protocols/joint_alignment --data_dir=DIR \\\n  --cells=(\S+)\n"
    )
    named = re.search(command, documented)[1]
    found = [cell.name for cell in paper_cells(1, names=named.split(","))]
    assert sorted(found) == sorted(
        f"resnet32_wrn28_4_{method}{kd}"
        for method in ("l1", "l2", "at")
        for kd in ("", "_kd")
    )


def test_a_paraphraser_that_trains_along_does_not_join_the_logit_loss():
    networks = [tiny_network(channels)(3, (8, 8, 1)) for channels in (3, 4)]
    method = methods.get("ft", optimizer="logit")
    with pytest.raises(ValueError, match="without a frozen source the paraphraser"):
        afd_tf.OnlineDistiller(networks, method)
    afd_tf.OnlineDistiller(networks[:1], method, source=networks[1])


@pytest.mark.parametrize(
    ("control", "arguments"),
    [
        ("placebo", {"placebo": True}),
        ("decoupled_decay", {"weight_decay": "decoupled", "logit_weight_decay": 1e-3}),
        (
            "no_feature_decay",
            {"feature_weight_decay": 0.0, "discriminator_weight_decay": 0.0},
        ),
    ],
)
def test_controls_are_taken_by_compile(control, arguments):
    config.load(["paper/table3_resnet32x2_afd", f"protocols/{control}"])
    small = functools.partial(fake_data, shape=(8, 8, 1), classes=3)
    networks = [tiny_network(channels) for channels in (3, 4)]
    built = build(config.settings(), networks=networks, batch_size=4, load_data=small)
    compiled = built.distiller.get_compile_config()
    for name, expected in arguments.items():  # the placebo's, True, is kept as a seed
        assert type(expected)(compiled[name]) == expected
