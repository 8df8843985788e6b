"""Studies: designs, choices on held-out images, and the end in tables."""

import json
from pathlib import Path

import pytest
from records import read, results, write_record

from afd_tf.studies.study import Study
from afd_tf.studies.workflow import complete_study

CELL = {"gin_file": "a", "seeds": 1}
RATE = {"parameters": ["logit/SGD.learning_rate"], "values": [0.1, 1e-9]}
DESIGN = {
    "over": ["vanilla"],
    "cells": {
        "vanilla": {**CELL, "seeds": 2},
        "dml": CELL,
        "dml_plain": {**CELL, "tuned_as": None},
        "dml_placebo": {**CELL, "tuned_as": "dml"},
    },
    "tuning": {
        "validation": 0.2,
        "seed": 100,
        "cells": {"vanilla": RATE, "dml": RATE},
    },
}


def write_design(folder, **changes):
    """Write a design and the files of its cells; return its folder."""
    folder.mkdir(exist_ok=True)
    design = json.loads(json.dumps({**DESIGN, **changes}))
    for name, cell in design["cells"].items():
        cell["gin_file"] = str(folder / f"{name}.gin")
        lines = f"train.epochs = 60\nOnlineDistiller.forward = {name!r}\n"
        Path(cell["gin_file"]).write_text(lines)
    (folder / "design.json").write_text(json.dumps(design))
    return folder


def write_runs(runs, folder, accuracies):
    """Write finished runs of the settings that they would have."""
    for run, accuracy in zip(runs, accuracies, strict=True):
        lines = [Path(run.cell.files[0]).read_text(), *run.cell.params]
        lines.append(f"train.seed = {run.seed}\n")
        content = results("resnet8", accuracy=accuracy, seed=run.seed)
        write_record(folder / run.name, content, "\n".join(lines))


def test_what_is_best_on_held_out_images_is_run_with_every_seed(tmp_path):
    study = Study(write_design(tmp_path / "study"), tmp_path / "out", read)
    tuning = study.tuning_runs()
    assert [run.name for run in tuning] == [
        f"tuning/{name}_{value}/seed_100"
        for name in ("vanilla", "dml")
        for value in (0.1, "1e-09")
    ]
    assert {run.cell.setting("validation") for run in tuning} == {0.2}
    write_runs(tuning[:3], tmp_path / "out", [0.4, 0.5, 0.6])
    assert study.choose().keys() == {"vanilla"}
    assert study.without_choice(study.choose()) == ["dml", "dml_placebo"]
    write_runs(tuning[3:], tmp_path / "out", [0.6])
    chosen = study.choose()
    # Of equals the first.
    assert {name: each["value"] for name, each in chosen.items()} == {
        "vanilla": 1e-9,
        "dml": 0.1,
    }
    final = study.final_runs(chosen)
    assert [run.name for run in final] == [
        "vanilla/seed_0",
        "dml/seed_0",
        "dml_plain/seed_0",
        "dml_placebo/seed_0",
        "vanilla/seed_1",
    ]
    rate = "logit/SGD.learning_rate"
    assert [run.cell.settings.get(rate) for run in final] == [
        *[1e-9, 0.1, None, 0.1, 1e-9]
    ]
    assert all(run.cell.setting("validation") is None for run in final)


def test_what_is_chosen_is_not_chosen_again(tmp_path):
    folder = write_design(tmp_path / "study")
    study = Study(folder, tmp_path / "out", read)
    write_runs(study.tuning_runs(), tmp_path / "out", [0.4, 0.5, 0.6, 0.6])
    chosen = study.choose()
    assert json.loads((folder / "chosen.json").read_text()) == chosen
    again = Study(folder, tmp_path / "other", read)
    assert not any(run.finished for run in again.tuning_runs())
    assert again.choose() == chosen


@pytest.mark.parametrize("epochs_of", ["tried", "real"])
def test_a_study_tried_with_few_epochs_and_the_real_one_share_nothing(
    tmp_path, epochs_of
):
    folder = write_design(tmp_path / "study")
    real = Study(folder, tmp_path / "real", read)
    tried = Study(folder, tmp_path / "tried", read, epochs=1)
    assert {run.cell.setting("epochs") for run in tried.tuning_runs()} == {1}
    own, other = (tried, real) if epochs_of == "tried" else (real, tried)
    before = sorted(folder.rglob("*"))
    runs = own.tuning_runs()
    write_runs(runs, tmp_path / epochs_of, [0.1, 0.2, 0.3, 0.4])
    chosen = own.choose()
    assert chosen.keys() == own.tuning["cells"].keys()
    for run in [*runs, *own.final_runs(chosen)]:
        run.keep()
    if own is tried:
        assert sorted(folder.rglob("*")) == before
    assert not any(run.finished for run in other.tuning_runs())
    assert other.choose() == {}


def test_a_choice_from_other_values_is_refused(tmp_path):
    folder = write_design(tmp_path / "study")
    choice = {
        "parameters": ["logit/SGD.learning_rate"],
        "value": 0.3,
        "validation": [{"value": 0.3}],
    }
    (folder / "chosen.json").write_text(json.dumps({"vanilla": choice}))
    with pytest.raises(ValueError, match=r"from \[0.1, 1e-09\]"):
        Study(folder, tmp_path, read).choose()


def test_a_plan_chooses_nothing_for_good(tmp_path, capsys):
    study = Study(write_design(tmp_path / "study"), tmp_path / "out", read)
    write_runs(study.tuning_runs(), tmp_path / "out", [0.1, 0.2, 0.3, 0.4])
    assert complete_study(study, plan=True) == 0
    assert "vanilla/seed_1" in capsys.readouterr().out
    assert not (tmp_path / "study" / "chosen.json").exists()


def test_a_study_ends_in_its_table_and_its_contrasts(tmp_path, capsys):
    cells = {name: {**CELL, "seeds": 2} for name in "abc"}
    folder = write_design(
        tmp_path / "study",
        cells=cells,
        over=["a"],
        tuning={"validation": 0.0, "seed": 0, "cells": {}},
        contrasts=[["b", "a"]],
        exploratory=[["c", "a"]],
    )
    study = Study(folder, tmp_path / "out", read)
    runs = sorted(study.final_runs({}), key=lambda run: run.name)
    write_runs(runs, folder, [0.3, 0.4, 0.35, 0.49, 0.5, 0.5])
    assert complete_study(study) == 0
    table, planned, exploratory = capsys.readouterr().out.rsplit("contrasts", 2)
    assert "+7.00 [" in table
    assert planned.splitlines()[0] == ", pooled error:"
    assert "Holm's p" in planned
    assert planned.splitlines()[3].split()[:6] == ["b", "a", "2", "/", "2", "+7.00"]
    assert exploratory.splitlines()[0] == ", not corrected, pooled error:"
    assert "Holm" not in exploratory
    assert exploratory.splitlines()[3].split()[:6] == [
        *["c", "a", "2", "/", "2", "+15.00"]
    ]


ONE = (
    '{"cells": {"a": {"gin_file": "a", "seeds": 1}, "b": {"gin_file": "b", "seeds": 1}}'
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"design\.json': it is no JSON"),
        ('{"cells": {}}', "Expected at least one. Received: none"),
        ('{"cells": {"a": {"seeds": 1}}}', "'gin_file' is missing"),
        (f'{ONE}, "tuning": {{}}}}', r"in \['tuning'\] 'validation' is missing"),
        (f'{ONE}, "over": ["x"]}}', "cells of the study.*Received: 'x'"),
        (f'{ONE}, "contrasts": [["a"]]}}', "Invalid `contrasts`"),
        (f'{ONE}, "contrasts": [["a", "b"], ["a", "c"]]}}', "Invalid `contrasts`"),
        (f'{ONE}, "exploratory": [["a", "a"]]}}', "Invalid `exploratory`"),
        (f'{ONE}, "exploratory": [["a", "b", "a"]]}}', "Invalid `exploratory`"),
    ],
)
def test_a_damaged_design_is_named(tmp_path, content, message):
    (tmp_path / "design.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Study(tmp_path, tmp_path / "out", read)


@pytest.mark.parametrize(
    ("values", "message"),
    [([1, 2, 3, 4], "at most 3"), ([1], "as many values for every cell")],
)
def test_a_tuning_that_is_not_the_same_for_all_is_refused(tmp_path, values, message):
    cells = {"vanilla": RATE, "dml": {**RATE, "values": values}}
    folder = write_design(tmp_path, tuning={**DESIGN["tuning"], "cells": cells})
    with pytest.raises(ValueError, match=message):
        Study(folder, tmp_path, read)
