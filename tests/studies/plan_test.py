"""What `tools/reproduce` plans, and that every cell's file is a configuration."""

import json
import re
import shutil
from pathlib import Path

import pytest
from reproducing import results, write_finished

from afd_tf import config, methods, training
from reproduction import cells, study
from reproduction.runs import Run, seconds_left

ROOT = Path(training.__file__).parents[2]
PAPER = sorted((ROOT / "gin" / "paper").glob("*.gin"))
REDUCED = sorted((ROOT / "gin" / "protocols" / "reduced").glob("*.gin"))
STUDY = sorted((ROOT / "gin" / "studies" / "cifar100_reduced").glob("*.gin"))


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    config.clear()


def load(files, params=()):
    """Bind files as a dry run does."""
    config.load(files, params)
    return config.settings()


@pytest.mark.parametrize(
    ("path", "scale"),
    [
        pytest.param(path, scale, id=f"{path.stem}-{scale}")
        for path in PAPER
        for scale in cells.SCALES
        if scale == "paper" or not path.stem.startswith("table6")
    ],
)
def test_every_cell_is_a_configuration_of_its_method(path, scale):
    cell = cells.cell(path, scale)
    settings = load(cell.files)
    variant = cell.name.removesuffix("_2_branches").removesuffix("_3_branches")
    assert settings["method"] in methods.names()
    assert variant.endswith(f"_{settings['method']}")
    assert ("_from_" in cell.name) == (cell.source is not None)
    assert settings.get("source_network") == (
        cell.name.split("_from_")[1].removesuffix(f"_{settings['method']}")
        if cell.source
        else None
    )
    if scale == "reduced":
        assert settings["epochs"] == 60
        assert config.gin.query_parameter("load_data.per_class") == 60


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_every_cell_says_what_it_is_how_to_run_it_and_whose_choice_it_is(path):
    header = path.read_text().split("\n\n")[0]
    table, name = re.fullmatch(r"table(\d)_(\w+)", path.stem).groups()
    first = header.partition(":")[0]
    # Titles of tables go on in other words.
    assert first.startswith(f"# Table {table}, ")
    assert " ".join(cells.TABLES[int(table)].split()[:2]) in first
    assert f"tools/reproduce --table={table} --cells={name} " in header
    assert "# Protocol: " in header
    assert re.search(r"# The paper's: (.|\n)*\[[Sms]\]", header)
    assert "# Our choice: " in header


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_every_cell_has_the_protocol_of_its_header(path):
    found = re.search(
        r"# Protocol: (\d+) epochs of batches of (\d+), (.*)\.", path.read_text()
    )
    epochs, batch_size, optimizers = found.groups()
    settings = load([path])
    assert (settings["epochs"], settings["batch_size"]) == (
        int(epochs),
        int(batch_size),
    )
    own, default = (
        {(s.scope, s.name, s.parameter): s.value for s in config.read(f)}
        for f in ([path], [config.DEFAULTS])
    )
    steps = ("compile", "SGD", "Adam", "StepDecay")
    changed = {k for k, v in own.items() if k[1] in steps and v != default[k]}
    if optimizers == "the optimizers and schedules of afd.gin [m]":
        assert changed == set()
    else:
        assert optimizers == "SGD 0.1, a tenth every 30 epochs"
        assert config.gin.query_parameter("logit/SGD.learning_rate") == 0.1
        boundaries = config.gin.query_parameter("logit/StepDecay.boundaries")
        assert [round(b * 90) for b in boundaries] == [30, 60]


def test_cells_of_one_name_are_one_configuration():
    texts = {}
    for path in PAPER:
        if path.stem.startswith("table6"):  # the one table of other data
            continue
        statements = config.read([path])
        effective = {(s.scope, s.name, s.parameter): s.value for s in statements}
        texts.setdefault(cells.cell(path, "paper").name, []).append(effective)
    repeated = [every for every in texts.values() if len(every) > 1]
    assert repeated
    assert all(one == every[0] for every in repeated for one in every)


@pytest.mark.parametrize("path", [*REDUCED, *STUDY], ids=lambda path: path.stem)
def test_the_reduced_protocol_is_what_it_says(path):
    settings = load([path])
    assert (settings["epochs"], settings["batch_size"]) == (60, 128)
    assert settings["dataset"] == "cifar100"
    assert settings["deterministic"] is True
    assert config.gin.query_parameter("load_data.per_class") == 60
    assert config.gin.query_parameter("load_data.padding") == 4


@pytest.mark.parametrize("table", cells.TABLES)
def test_a_table_has_the_methods_that_the_paper_compares(table):
    compared = {
        1: {f"{m}{kd}" for m in ("l1", "l2", "at", "ft") for kd in ("", "_kd")}
        | {"adversarial", "afd"},
        2: {"vanilla", "dml", "adversarial", "afd"},
        3: {"vanilla", "dml", "one", "afd"},
        4: {"vanilla", "dml", "kd", "afd"},
        5: {"vanilla", "dml", "one", "afd"},
        6: {"vanilla", "dml", "afd"},
        7: {"vanilla", "l1_kd", "afd"},
    }[table]
    found = cells.paper_cells(table)
    online = {cell.setting("method") for cell in found if cell.source is None}
    offline = {cell.setting("method") for cell in found if cell.source}
    assert compared <= online | offline
    if table == 1:
        assert compared <= online
        assert compared <= offline


def names(found):
    return [cell.name for cell in found]


def test_cells_that_others_learn_from_are_planned_first():
    found = cells.paper_cells(4, names=["resnet20_from_wrn16_2_kd"])
    assert names(found) == ["resnet20_wrn16_2_vanilla", "resnet20_from_wrn16_2_kd"]
    runs = [Run(cell, seed, Path("out")) for seed in (0, 1) for cell in found]
    source = "out/resnet20_wrn16_2_vanilla/seed_1"
    assert f"--gin_param=train.source = '{source}'" in runs[3].arguments()
    assert runs[3].source == runs[2].path
    assert runs[2].source is None


def test_a_whole_name_means_one_cell_and_a_part_all_that_have_it():
    l1 = "resnet32_wrn28_4_l1"
    assert names(cells.paper_cells(1, names=[l1])) == [l1]
    assert names(cells.paper_cells(1, names=[f"table1_{l1}"])) == [l1]
    both = [l1, f"{l1}_kd"]
    assert names(cells.paper_cells(1, names=["32_wrn28_4_l1"])) == both
    # Where several files are one cell, each of their names means it.
    [cell] = cells.paper_cells(4, "reduced", names=["table4_resnet32_wrn28_4_afd"])
    assert cell.name == "resnet8_wrn10_2_afd"


def test_cells_that_differ_in_their_networks_alone_are_one_when_reduced():
    found = cells.paper_cells(4, "reduced")
    assert names(found) == [
        "resnet8_wrn10_2_vanilla",
        "resnet8_from_wrn10_2_kd",
        "resnet8_wrn10_2_afd",
        "resnet8_wrn10_2_dml",
    ]
    assert found[1].source == "resnet8_wrn10_2_vanilla"


@pytest.mark.parametrize("scale", cells.SCALES)
def test_a_file_after_a_cells_own_makes_another_cell_of_it(scale):
    found = cells.paper_cells(4, scale, names=["from_wrn"])
    varied = [cell.varied(["protocols/decay_5e-4"]) for cell in found]
    assert names(varied) == [f"{name}_decay_5e-4" for name in names(found)]
    run = Run(varied[-1], 1, Path("out"))
    assert run.source.parent.name.endswith("_vanilla_decay_5e-4")
    assert run.source.parent.name in names(varied)
    load(run.cell.files)
    assert config.gin.query_parameter("compile.logit_weight_decay") == 5e-4
    assert run.arguments()[-4] == "--gin_file=protocols/decay_5e-4"


def test_a_new_cell_is_one_file(tmp_path):
    (tmp_path / "table3_resnet8x2_afd_fresh.gin").write_text(
        'include "networks/resnet8.gin"\n'
        "train.networks = [@resnet8/resnet, @resnet8/resnet]\n"
        'OnlineDistiller.forward = "fresh"\n'
    )
    [cell] = cells.paper_cells(3, folder=tmp_path)
    assert cell.name == "resnet8x2_afd_fresh"
    load(cell.files)
    assert config.gin.query_parameter("OnlineDistiller.forward") == "fresh"


def test_a_file_named_after_other_networks_is_refused(tmp_path):
    (tmp_path / "table3_resnet20x2_afd.gin").write_text(
        'train.networks = ["resnet8", "resnet8"]\n'
    )
    with pytest.raises(ValueError, match=r"table<n>_resnet8x2_<variant>.gin"):
        cells.paper_cells(3, folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": 9}, "Expected one of 1: adversarial .* Received: table=9"),
        ({"table": 4, "names": ["resnet9"]}, "Expected names of cells.*'resnet9'"),
        ({"table": 4, "names": ["afd", ""]}, "Expected names of cells.*Received: ''"),
        ({"table": 6, "scale": "reduced"}, "those of table 4"),
    ],
)
def test_what_is_not_there_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        cells.paper_cells(**arguments)


def write_progress(run, epochs, seconds, finished=False):
    run.path.mkdir(parents=True)
    rows = "".join(f"{e + 1},{(e + 1) * seconds}\n" for e in range(epochs))
    (run.path / "metrics.csv").write_text("epoch,seconds\n" + rows)
    if finished:
        (run.path / "results.json").write_text("{}")


def test_time_left_is_measured_per_cell_and_else_the_mean(tmp_path):
    def make(name, seed):
        return Run(cells.Cell(name, (), ("train.epochs = 10",)), seed, tmp_path)

    runs = [make("a", 0), make("a", 1), make("b", 0), make("c", 0)]
    assert seconds_left(runs) is None
    write_progress(runs[0], 10, 2.0, finished=True)
    write_progress(runs[2], 4, 6.0)
    # Of a 10 epochs of 2 s, of b 6 of 6 s, of c 10 of the mean of both, 4 s.
    assert seconds_left(runs) == pytest.approx(20 + 36 + 40)
    assert seconds_left(runs, jobs=2) == pytest.approx(48)
    assert [run.status() for run in runs] == [
        *["finished", "to do", "epoch 4 of 10", "to do"]
    ]
    runs[1].path.mkdir(parents=True)
    (runs[1].path / "config.gin").touch()
    assert runs[1].status() == "begun"


def test_the_study_has_the_seeds_and_the_budget_it_promises():
    planned = study.Study(ROOT / "studies" / "cifar100_reduced", "out")
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


def bindings(files):
    return {
        f"{s.scope}/{s.name}.{s.parameter}".lstrip("/"): repr(s.value)
        for s in config.read(files)
    }


def test_what_is_ablated_differs_from_afd_as_its_name_says():
    planned = study.Study(ROOT / "studies" / "afd_ablation", "out")
    assert planned.tuning_runs() == []
    assert planned.choose() == {}
    runs = planned.final_runs({})
    every = {run.cell.name: bindings(run.cell.files) for run in runs}
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


@pytest.mark.parametrize(
    ("control", "changed"),
    [
        ("placebo", {"compile.placebo"}),
        ("decoupled_decay", {"compile.weight_decay", "compile.logit_weight_decay"}),
        ("no_feature_decay", _DECAY),
    ],
)
def test_a_control_differs_from_its_cell_in_what_it_says_alone(control, changed):
    cell = "paper/table3_resnet32x2_afd"
    plain, controlled = bindings([cell]), bindings([cell, f"protocols/{control}"])
    differing = {k for k in {*plain, *controlled} if plain.get(k) != controlled.get(k)}
    assert differing == changed


def test_the_ablation_trains_on_as_many_images_as_the_study_and_tests_on_none():
    planned = study.Study(ROOT / "studies" / "afd_ablation", "out")
    for run in planned.final_runs({}):
        assert load(run.cell.files)["deterministic"] is True
        its = bindings(run.cell.files)
        per_class = int(its["load_data.per_class"])
        held_out = float(its["train.validation"]) * per_class
        assert (held_out, per_class - held_out) == (100, 60)


def copy_design(folder):
    folder.mkdir()
    shutil.copy(ROOT / "studies" / "cifar100_reduced" / "design.json", folder)


def write_tuning(runs, folder):
    """Write results of tuning runs, each better than the one before."""
    for place, run in enumerate(runs):
        write_finished(folder / run.name, results("resnet8", accuracy=place / 100))


def test_a_study_tried_with_few_epochs_leaves_the_real_one_alone(tmp_path):
    folder, output = tmp_path / "study", tmp_path / "tried"
    copy_design(folder)
    before = sorted(folder.rglob("*"))
    tried = study.Study(folder, output, epochs=1)
    runs = tried.tuning_runs()
    write_tuning(runs, output)
    chosen = tried.choose()
    assert chosen.keys() == tried.tuning["cells"].keys()
    assert json.loads((output / "chosen.json").read_text()) == chosen
    for run in [*runs, *tried.final_runs(chosen)]:
        run.keep()
        assert run.cell.setting("epochs") == 1
    assert sorted(folder.rglob("*")) == before
    real = study.Study(folder, tmp_path / "real")
    assert not any(run.finished for run in real.tuning_runs())
    assert real.choose() == {}


def test_a_study_tried_with_few_epochs_takes_nothing_from_the_real_one(tmp_path):
    folder = tmp_path / "study"
    copy_design(folder)
    real = study.Study(folder, tmp_path / "real")
    write_tuning(real.tuning_runs(), folder)
    assert real.choose().keys() == real.tuning["cells"].keys()
    tried = study.Study(folder, tmp_path / "tried", epochs=1)
    assert not any(run.finished for run in tried.tuning_runs())
    assert tried.choose() == {}


@pytest.mark.parametrize("cell", ["vanilla", "dml", "afd", "l1_kd", "adversarial"])
def test_every_tuned_parameter_is_one_of_the_configuration(cell):
    planned = study.Study(ROOT / "studies" / "cifar100_reduced", "out")
    tuned = planned.tuning["cells"][cell]
    for parameter in tuned["parameters"]:
        load([f"studies/cifar100_reduced/{cell}"], [f"{parameter} = 0.125"])
        scope, name = parameter.rsplit("/", 1)
        assert config.gin.query_parameter(f"{scope}/afd_tf.{name}") == 0.125
