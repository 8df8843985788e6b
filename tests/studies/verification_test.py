"""Verification: what differs between two runs, and what may be the cause."""

import pytest
from records import results, write_record

from afd_tf.studies import verification


def record(
    folder, sha="a", rows="epoch,seconds,loss\n1,5.0,0.5\n", accuracy=0.5, **others
):
    content = results("n", accuracy=accuracy, weights_sha256=sha, **others)
    return write_record(folder, content, rows=rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "epoch,seconds,loss\n1,9.0,0.5\n"}, None),
        ({"sha": "b"}, "weights_sha256: a before, b now"),
        (
            {"rows": "epoch,seconds,loss\n1,5.0,0.6\n"},
            "metrics.csv, epoch 1, loss: 0.5 before, 0.6 now",
        ),
        ({"rows": "epoch,seconds,loss\n"}, "metrics.csv: 1 rows before, 0 now"),
        ({"accuracy": 0.6}, "networks: {'n': {'accuracy': 0.5, "),
    ],
)
def test_what_differs_between_two_runs_is_named(tmp_path, change, message):
    first = record(tmp_path / "a")
    second = record(tmp_path / "b", **change)
    found = verification.differences(first, second)
    assert found == [] if message is None else found[0].startswith(message)


def test_a_run_that_is_not_there_is_no_verification(tmp_path):
    with pytest.raises(ValueError, match=r"finished run's directory .* a cell"):
        verification.find_run("nothing", [tmp_path])


def test_a_cell_stands_for_its_first_seed(tmp_path):
    for seed in (1, 0):
        record(tmp_path / "a" / f"seed_{seed}")
    assert verification.find_run("a", [tmp_path]) == tmp_path / "a" / "seed_0"


def test_what_may_be_the_cause_is_told_with_what_differs(tmp_path):
    old = {"versions": {"keras": "3.14", "python": "3.11"}, "commit": "a"}
    new = {"versions": {"keras": "3.15", "python": "3.11"}, "commit": "b\x1b[2J"}
    first = record(tmp_path / "a", **old)
    same = record(tmp_path / "b", **new)
    assert verification.differences(first, same) == []
    other = record(tmp_path / "c", sha="b", **new)
    assert verification.differences(first, other) == [
        "weights_sha256: a before, b now",
        r"commit: a before, b\x1b[2J now",
        "keras: 3.14 before, 3.15 now",
        "The run was computed at commit a. Later commits may change last bits: verify "
        "it there.",
    ]
