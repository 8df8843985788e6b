"""Paper values: shown beside runs of the paper's own configurations only."""

import json

import pytest
from records import results

from afd_tf import config
from afd_tf.results import paper_values
from afd_tf.results.comparison import compare
from afd_tf.runs.configuration import statements

CELLS = {
    "table3_resnet32x2_vanilla": ("69.38 [s]", "69.38 [s]"),
    "table3_resnet32x2_dml": ("73.38 [s]", "73.38 [s]"),
    "table3_resnet32x2_afd": ("74.03 [s]", "74.03 [s]"),
    "table6_imagenet_resnet18_resnet34_dml": ("70.19 [s]", "73.57 [s]"),
    "table6_imagenet_resnet18_resnet34_afd": ("70.39 [s]", "74.00 [s]"),
}
CIFAR, IMAGENET = "table3_resnet32x2_afd", "table6_imagenet_resnet18_resnet34_afd"


def shown(folder, cell, *params, networks=None):
    """Return the numbers beside a finished run of a cell, whose settings are real."""
    try:
        text = config.bind(config.read([f"paper/{cell}"], params))
    finally:
        config.clear()
    names = ("resnet32", "resnet32_2")
    if "imagenet" in cell:
        names = ("imagenet_resnet18", "imagenet_resnet34")
    settings = statements(text)
    content = results(
        *(networks or names),
        method=settings["train.method"].strip("'"),
        dataset=settings["train.dataset"].strip("'"),
    )
    (folder / "config.gin").write_text(text)
    (folder / "results.json").write_text(json.dumps(content))
    [(_, rows)] = compare([folder]).tables
    return tuple(str(row.paper) for row in rows[:-2])


@pytest.mark.parametrize("cell", CELLS)
def test_they_are_shown_beside_runs_of_the_papers_cells(tmp_path, cell):
    assert shown(tmp_path, cell) == CELLS[cell]


@pytest.mark.parametrize(
    "param",
    [
        "train.evaluate_every = 10",
        "train.seed = 3",
        "train.precision = 'float32'",
        "train.steps_per_execution = 8",
        "train.topology = 'cycle'",
        "compile.jit_compile = True",
        "OnlineDistiller.checkpointing = 2",
        "OnlineDistiller.kl_weight = 1",
    ],
)
def test_what_changes_no_accuracy_may_be_set(tmp_path, param):
    assert shown(tmp_path, CIFAR, param) == CELLS[CIFAR]


@pytest.mark.parametrize(
    ("cell", "param"),
    [
        (CIFAR, "train.epochs = 200"),
        (CIFAR, "train.batch_size = 64"),
        (CIFAR, "train.validation = 0.1"),
        (CIFAR, "train.precision = 'mixed_bfloat16'"),
        (CIFAR, "train.topology = 'all_pairs'"),
        (CIFAR, "train.source = 'runs/a/seed_0'"),
        (CIFAR, "train.method_options = {'discriminator_batches': 'concatenated'}"),
        (CIFAR, "load_data.per_class = 60"),
        (CIFAR, "load_data.flip = False"),
        (CIFAR, "load_data.test_split = 'train'"),
        (CIFAR, "OnlineDistiller.feature_weight = 10.0"),
        (CIFAR, "OnlineDistiller.kl_weight = 0.5"),
        (CIFAR, "OnlineDistiller.temperature = 4.0"),
        (CIFAR, "OnlineDistiller.forward = 'fresh'"),
        (CIFAR, "OnlineDistiller.tap = 'stem'"),
        (CIFAR, "compile.placebo = True"),
        (CIFAR, "compile.weight_decay = 'decoupled'"),
        (CIFAR, "compile.label_smoothing = 0.1"),
        (CIFAR, "feature/Adam.learning_rate = 1e-4"),
        (CIFAR, "resnet32/resnet.depth = 20"),
        (IMAGENET, "train.epochs = 1"),
        (IMAGENET, "train.batch_size = 128"),
        (IMAGENET, "load_data.image_size = 64"),
        (IMAGENET, "logit/SGD.nesterov = True"),
    ],
)
def test_beside_any_other_configuration_there_is_none(tmp_path, cell, param):
    assert shown(tmp_path, cell, param) == ("None", "None")


@pytest.mark.parametrize("networks", [("resnet32", "x"), ("resnet32",)])
def test_beside_other_networks_there_is_none(tmp_path, networks):
    assert set(shown(tmp_path, CIFAR, networks=networks)) == {"None"}


@pytest.mark.parametrize("missing", ["train.epochs", "load_data.flip"])
def test_the_protocol_has_to_be_set(missing):
    settings = {
        "train.epochs": "300",
        "train.batch_size": "128",
        "load_data.padding": "4",
        "load_data.pad_mode": "'reflect'",
        "load_data.flip": "True",
    }
    networks = dict.fromkeys(["resnet32", "resnet32_2"])
    results = {"dataset": "cifar100", "method": "afd", "networks": networks}
    assert paper_values.find(results, settings)["resnet32"].percent == 74.03
    del settings[missing]
    assert paper_values.find(results, settings) == {}


def test_numbers_of_the_paper_are_those_that_are_known():
    known = {
        (value["dataset"], value["method"], name): percent
        for value in paper_values.table()["values"]
        for name, percent in value["percent"].items()
    }
    assert known == {
        ("cifar100", "vanilla", "resnet32"): 69.38,
        ("cifar100", "dml", "resnet32"): 73.38,
        ("cifar100", "afd", "resnet32"): 74.03,
        ("imagenet2012", "dml", "resnet18"): 70.19,
        ("imagenet2012", "afd", "resnet18"): 70.39,
        ("imagenet2012", "dml", "resnet34"): 73.57,
        ("imagenet2012", "afd", "resnet34"): 74.0,
    }
    marks = {value["mark"] for value in paper_values.table()["values"]}
    assert marks <= paper_values.table()["marks"].keys()
