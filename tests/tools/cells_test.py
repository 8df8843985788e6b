"""Cells of the paper's tables: their files, names and configurations."""

import re
from pathlib import Path

import pytest

from afd_tf import config, methods
from afd_tf.studies.runs import Run
from reproduction import cells
from reproduction.cells import read_settings

PAPER = sorted((Path(__file__).parents[2] / "gin" / "paper").glob("*.gin"))


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    config.clear()


def load(files):
    """Bind files as a dry run does; return what they set."""
    config.load(files)
    return read_settings(files)


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
    settings = load(list(cell.files))
    variant = cell.name.removesuffix("_2_branches").removesuffix("_3_branches")
    method = settings["train.method"]
    assert method in methods.names()
    assert variant.endswith(f"_{method}")
    assert ("_from_" in cell.name) == (cell.source is not None)
    assert settings.get("train.source_network") == (
        cell.name.split("_from_")[1].removesuffix(f"_{method}") if cell.source else None
    )
    if scale == "reduced":
        assert settings["train.epochs"] == 60
        assert settings["load_data.per_class"] == 60


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
    settings, default = read_settings([path]), read_settings([config.DEFAULTS])
    assert settings["train.epochs"] == int(epochs)
    assert settings["train.batch_size"] == int(batch_size)
    step = re.compile(r"compile\.|.*/(SGD|Adam|StepDecay)\.")
    changed = {k for k, v in settings.items() if step.match(k) and v != default[k]}
    if optimizers == "the optimizers and schedules of afd.gin [m]":
        assert changed == set()
    else:
        assert optimizers == "SGD 0.1, a tenth every 30 epochs"
        assert settings["logit/SGD.learning_rate"] == 0.1
        boundaries = settings["logit/StepDecay.boundaries"]
        assert [round(b * 90) for b in boundaries] == [30, 60]


def test_cells_of_one_name_are_one_configuration():
    texts = {}
    for path in PAPER:
        if path.stem.startswith("table6"):  # the one table of other data
            continue
        name = cells.cell(path, "paper").name
        texts.setdefault(name, []).append(read_settings([path]))
    repeated = [every for every in texts.values() if len(every) > 1]
    assert repeated
    assert all(one == every[0] for every in repeated for one in every)


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
    varied = [cells.varied(cell, ["protocols/decay_5e-4"]) for cell in found]
    assert names(varied) == [f"{name}_decay_5e-4" for name in names(found)]
    run = Run(varied[-1], 1, Path("out"))
    assert run.source.parent.name.endswith("_vanilla_decay_5e-4")
    assert run.source.parent.name in names(varied)
    assert run.cell.settings["compile.logit_weight_decay"] == 5e-4
    assert run.arguments()[-4] == "--gin_file=protocols/decay_5e-4"


def test_a_new_cell_is_one_file(tmp_path):
    (tmp_path / "table3_resnet8x2_afd_fresh.gin").write_text(
        'include "networks/resnet8.gin"\n'
        "train.networks = [@resnet8/resnet, @resnet8/resnet]\n"
        'OnlineDistiller.forward = "fresh"\n'
    )
    [cell] = cells.paper_cells(3, folder=tmp_path)
    assert cell.name == "resnet8x2_afd_fresh"
    assert load(list(cell.files))["OnlineDistiller.forward"] == "fresh"


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


@pytest.mark.parametrize(
    ("control", "changed"),
    [
        ("placebo", {"compile.placebo"}),
        ("decoupled_decay", {"compile.weight_decay", "compile.logit_weight_decay"}),
        (
            "no_feature_decay",
            {"compile.feature_weight_decay", "compile.discriminator_weight_decay"},
        ),
    ],
)
def test_a_control_differs_from_its_cell_in_what_it_says_alone(control, changed):
    cell = "paper/table3_resnet32x2_afd"
    plain, controlled = (
        read_settings([cell]),
        read_settings([cell, f"protocols/{control}"]),
    )
    differing = {k for k in {*plain, *controlled} if plain.get(k) != controlled.get(k)}
    assert differing == changed
