"""Similarity of maps, in which `tools/reproduce --table=7` ends."""

import json
from pathlib import Path

import pytest
from records import read, results
from reproducing import write_run

from afd_tf.studies import execution
from afd_tf.studies.runs import Cell, Run
from reproduction import cells, similarity

ENDED = {"epoch": 2, "step": 20, "weights_sha256": "a"}
MAPS = {"l1": 1.0, "l2": 2.0, "cosine": 0.5, "cka": 0.5}


def test_maps_of_table_7_can_be_compared():
    for scale in cells.SCALES:
        for cell in cells.paper_cells(7, scale):
            first, second = cell.setting("networks")
            assert first.text == second.text


def write_maps(run, pairs, **analysed):
    """Write an analysis, and what it is of if that is not how the run ended."""
    found = [{"networks": ["a", "b"], "maps": maps} for maps in pairs]
    analysis = {**ENDED, **analysed, "pairs": found}
    (run.path / "analysis").mkdir(exist_ok=True)
    (run.path / "analysis" / "analysis.json").write_text(json.dumps(analysis))


def finished(cell, seed, folder):
    run = Run(cell, seed, folder)
    write_run(run, results("a", "b", **ENDED))
    return run


def test_the_table_of_similarity_has_mean_and_deviation_over_seeds(tmp_path):
    alike, other = Cell("alike", (), read), Cell("other", (), read)
    every = [(alike, 0), (alike, 1), (other, 0)]
    runs = [finished(cell, seed, tmp_path) for cell, seed in every]
    for run, cosine in zip(runs[:2], (0.25, 0.75), strict=True):
        measures = {"l1": 1.0, "l2": 2.0, "cosine": cosine, "cka": 0.5}
        write_maps(run, [measures])
    write_maps(runs[2], [{"cka": 0.125}])
    lines = similarity.table([*runs, Run(other, 1, tmp_path)]).splitlines()
    assert lines[0].split() == [
        *["cell", "networks", "seeds", "l1", "l2", "cosine", "cka"]
    ]
    assert "a and b       2  1.0000 +- 0.0000" in lines[2]
    assert "0.5000 +- 0.3536" in lines[2]
    assert lines[3].split() == ["other", "a", "and", "b", "1", "-", "-", "-", "0.1250"]


@pytest.fixture
def answers(monkeypatch):
    """Let `afd-analyse` write, at each call, what the next of a list says it is of."""
    remaining = []

    def call(command_line, output):
        *_, command, path = command_line
        assert command == "analyse"
        path = Path(path)
        run = Run(Cell(path.parent.name, (), read), int(path.name[-1]), path.parents[1])
        write_maps(run, [{**MAPS, "cosine": 1.0}], **remaining.pop(0))
        return 0

    monkeypatch.setattr(execution, "call", call)
    return remaining


@pytest.mark.parametrize(
    "before",
    [
        {"epoch": 1, "step": 10, "weights_sha256": "b"},
        {"weights_sha256": "b"},
        {"epoch": None},
        "damaged",
    ],
)
def test_an_analysis_of_other_weights_than_the_last_is_made_again(
    tmp_path, answers, before
):
    run = finished(Cell("cell", (), read), 0, tmp_path)
    if before == "damaged":
        (run.path / "analysis").mkdir()
        (run.path / "analysis" / "analysis.json").write_text("{")
    else:
        write_maps(run, [MAPS], **before)
    assert "cell" not in similarity.table([run]).splitlines()[-1]
    answers.append({})
    assert similarity.analyse([run]) == {}
    assert answers == []
    assert "1.0000" in similarity.table([run]).splitlines()[-1].split()
    # What is of the last weights is not made again.
    assert similarity.analyse([run]) == {}


def test_an_analysis_that_cannot_be_of_the_last_weights_is_a_failure(tmp_path, answers):
    run = finished(Cell("cell", (), read), 0, tmp_path)
    answers.append({"weights_sha256": "b"})
    [(name, reason)] = similarity.analyse([run]).items()
    assert name == "cell/seed_0"
    assert "analysis.json is not of the weights that" in reason
    assert similarity.table([run]).splitlines()[2:] == []
