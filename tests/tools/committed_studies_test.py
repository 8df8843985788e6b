"""The committed studies: designs, records, and the configurations of both."""

from pathlib import Path

import pytest

from afd_tf import config
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.studies.study import Study
from reproduction.cells import read_settings

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = [
    *sorted((ROOT / "gin" / "protocols" / "reduced").glob("*.gin")),
    *sorted((ROOT / "gin" / "studies" / "cifar100_reduced").glob("*.gin")),
]
RECORDS = sorted(path.parent for path in ROOT.glob("studies/**/results.json"))


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    config.clear()


def test_records_are_of_the_layout_that_is_read():
    assert len(RECORDS) == 85
    for folder in RECORDS:
        results = RunDirectory(folder).read_results()
        lines = (folder / "config.gin").read_text().splitlines()
        assert {*lines} <= {*config.load([folder / "config.gin"]).splitlines()}
        settings = read_settings([folder / "config.gin"])
        assert (settings["train.method"], settings["train.seed"]) == (
            results["method"],
            results["seed"],
        )


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_the_reduced_protocol_is_what_it_says(path):
    config.load([path])
    expected = {
        "train.epochs": 60,
        "train.batch_size": 128,
        "train.dataset": "cifar100",
        "train.deterministic": True,
        "load_data.per_class": 60,
        "load_data.padding": 4,
    }
    assert expected.items() <= read_settings([path]).items()


def test_the_study_has_the_seeds_and_the_budget_it_promises():
    planned = Study(ROOT / "studies" / "cifar100_reduced", "out", read_settings)
    tuning = planned.tuning_runs()
    values = {}
    for run in tuning:
        values.setdefault(run.cell.setting("method"), []).append(run)
    assert {name: len(runs) for name, runs in values.items()} == dict.fromkeys(
        ["vanilla", "dml", "afd", "l1_kd", "adversarial"], 3
    )
    assert {run.seed for run in tuning} == {100}
    assert {run.cell.setting("validation") for run in tuning} == {0.2}
    chosen = {
        name: {"parameters": tuned["parameters"], "value": tuned["values"][1]}
        for name, tuned in planned.tuning["cells"].items()
    }
    final = planned.final_runs(chosen)
    seeds = {}
    for run in final:
        seeds.setdefault(run.cell.name, []).append(run.seed)
    of_three = ["l1_kd", "adversarial", "afd_decoupled", "afd_placebo"]
    assert seeds == {
        **{name: [0, 1, 2, 3, 4] for name in ("vanilla", "dml", "afd")},
        **{name: [0, 1, 2] for name in of_three},
        "dml_paper_rate": [0, 1, 2, 3, 4],
        "afd_paper_rate": [0, 1, 2],
    }
    assert all(run.cell.setting("validation") == 0.0 for run in final)
    fixed = {r.cell.name: r.cell.params for r in final if "_rate" in r.cell.name}
    assert fixed == {"dml_paper_rate": (), "afd_paper_rate": ()}
    placebo = next(run for run in final if run.cell.name == "afd_placebo")
    assert placebo.cell.params == (
        "feature/Adam.learning_rate = 0.0001",
        "discriminator/Adam.learning_rate = 0.0001",
    )


_RATES = {"feature/Adam.learning_rate", "discriminator/Adam.learning_rate"}
_DECAY = {"compile.feature_weight_decay", "compile.discriminator_weight_decay"}
# In what each differs from `afd`.
_ABLATION = {
    "vanilla": {"train.method", *_RATES},
    "vanilla_logit_0.2": {"train.method", "logit/SGD.learning_rate", *_RATES},
    "dml": {"train.method", *_RATES},
    "dml_logit_0.2": {"train.method", "logit/SGD.learning_rate", *_RATES},
    "dml_decay_5e-4": {"train.method", "compile.logit_weight_decay", *_RATES},
    "dml_resnet8x2": {"train.method", "train.networks", *_RATES},
    "l1_kd": {"train.method", "discriminator/Adam.learning_rate"},
    "adversarial": {"train.method"},
    "adversarial_placebo": {"train.method", "compile.placebo"},
    "afd": set(),
    "afd_placebo": {"compile.placebo"},
    "afd_logit_0.2": {"logit/SGD.learning_rate"},
    "afd_logit_0.2_placebo": {"compile.placebo", "logit/SGD.learning_rate"},
    "afd_rate_2e-5": _RATES,
    "afd_rate_2e-5_placebo": {"compile.placebo", *_RATES},
    "afd_rate_2e-5_logit_0.2": {"logit/SGD.learning_rate", *_RATES},
    "afd_no_decay": _DECAY,
    "afd_no_decay_placebo": {"compile.placebo", *_DECAY},
    "afd_discriminators_2e-5": {"discriminator/Adam.learning_rate"},
    "afd_fresh": {"OnlineDistiller.forward"},
    "afd_unnormalized": {"train.method_options", *_DECAY},
    "afd_concatenated": {"train.method_options"},
    "afd_small_discriminators": {"train.method_options"},
    "afd_resnet8x2": {"train.networks"},
}


def test_what_is_ablated_differs_from_afd_as_its_name_says():
    planned = Study(ROOT / "studies" / "afd_ablation", "out", read_settings)
    assert planned.tuning_runs() == []
    assert planned.choose() == {}
    runs = planned.final_runs({})
    every = {run.cell.name: run.cell.settings for run in runs}
    afd = every["afd"]
    differing = {
        name: {key for key, value in its.items() if value != afd[key]}
        for name, its in every.items()
    }
    assert differing == _ABLATION
    assert [run.seed for run in runs] == [*[0] * 24, *[1] * 11]
    twice = {run.cell.name for run in runs if run.seed == 1}
    assert twice >= {name for pair in planned.contrasts for name in pair}
    pairs = [*planned.contrasts, *planned.exploratory]
    assert {name for pair in pairs for name in pair} == set(_ABLATION)


def test_the_ablation_trains_on_as_many_images_as_the_study_and_tests_on_none():
    planned = Study(ROOT / "studies" / "afd_ablation", "out", read_settings)
    for run in planned.final_runs({}):
        its = run.cell.settings
        assert its["train.deterministic"] is True
        per_class = int(its["load_data.per_class"])
        held_out = float(its["train.validation"]) * per_class
        assert (held_out, per_class - held_out) == (100, 60)


@pytest.mark.parametrize("cell", ["vanilla", "dml", "afd", "l1_kd", "adversarial"])
def test_every_tuned_parameter_is_one_of_the_configuration(cell):
    planned = Study(ROOT / "studies" / "cifar100_reduced", "out", read_settings)
    tuned = planned.tuning["cells"][cell]
    for parameter in tuned["parameters"]:
        assert parameter in read_settings([f"studies/cifar100_reduced/{cell}"])
