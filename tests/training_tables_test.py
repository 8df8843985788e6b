import json

import pytest

from afd_tf.training import formatting, tables


def run(path, accuracy, *, seed=0, config="train.epochs = 2\n", finished=True):
    path.mkdir(parents=True)
    (path / "config.gin").write_text(f"{config}train.seed = {seed}\n")
    (path / "metrics.csv").write_text("epoch\n1\n")
    results = {
        "method": "afd",
        "dataset": "digits",
        "seed": seed,
        "epoch": 2,
        "networks": {
            "resnet8": {"accuracy": accuracy, "parameters": 1234, "loss": 1.0},
            "resnet20": {"accuracy": accuracy + 0.1, "parameters": 5678, "loss": 1.0},
        },
        "mean": {"accuracy": accuracy + 0.05},
        "ensemble": {"accuracy": accuracy + 0.2},
    }
    if finished:
        (path / "results.json").write_text(json.dumps(results))
    return path


def cells(table):
    return [line.split() for line in table.splitlines()]


def test_seeds_of_one_configuration_are_one_row_with_mean_and_deviation(tmp_path):
    paths = [run(tmp_path / str(s), 0.5 + 0.1 * s, seed=s) for s in range(3)]
    table, remarks = tables.compare(paths)
    _, _, small, large, mean, ensemble = cells(table)
    # Sample deviation of 50, 60, 70.
    assert small[2:] == [
        "digits",
        "afd",
        "2",
        "3",
        "resnet8",
        "1,234",
        "60.00",
        "+-",
        "10.00",
    ]
    assert large == ["resnet20", "5,678", "70.00", "+-", "10.00"]
    assert mean == ["mean", "65.00", "+-", "10.00"]
    assert ensemble == ["ensemble", "80.00", "+-", "10.00"]
    assert remarks == []


def test_different_configurations_are_not_mixed(tmp_path):
    paths = [
        run(tmp_path / "a", 0.5),
        run(tmp_path / "b", 0.6, config="train.epochs = 2\ntrain.validation = 0.1\n"),
    ]
    table, _ = tables.compare(paths)
    accuracies = [row[-1] for row in cells(table) if "resnet8" in row]
    assert accuracies == ["50.00", "60.00"]
    assert "digits (validation)" in table


def test_another_place_of_the_data_is_the_same_configuration(tmp_path):
    paths = [
        run(tmp_path / "a", 0.5, config="train.data_dir = '/a'\n"),
        run(tmp_path / "b", 0.6, config="train.data_dir = '/b'\n", seed=1),
    ]
    table, _ = tables.compare(paths)
    assert "55.00 +- 7.07" in table


def test_what_is_not_in_the_table_is_said(tmp_path):
    (tmp_path / "notes").mkdir()
    paths = [
        run(tmp_path / "a", 0.5),
        run(tmp_path / "b", 0.6, seed=1, finished=False),
        tmp_path / "notes",
    ]
    table, remarks = tables.compare(paths)
    assert "a" in table
    assert remarks == [
        f"{tmp_path / 'b'}: not finished, 1 epochs done.",
        f"{tmp_path / 'notes'}: not a run, it has no config.gin.",
    ]


def test_unequal_numbers_of_seeds_and_repeated_seeds_are_said(tmp_path):
    other = "train.epochs = 3\n"
    paths = [
        run(tmp_path / "a", 0.5, seed=1),
        run(tmp_path / "b", 0.5, seed=1),
        run(tmp_path / "c", 0.5, config=other),
    ]
    _, remarks = tables.compare(paths)
    assert any("a seed occurs twice" in remark for remark in remarks)
    assert any("numbers of seeds differ" in remark for remark in remarks)


def test_a_directory_given_twice_counts_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "a", 0.5)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    table, remarks = tables.compare(["a", "./a", str(tmp_path / "a"), "link"])
    assert cells(table)[2][:5] == ["a", "digits", "afd", "2", "1"]
    assert remarks == []


def test_nothing_finished_gives_no_table(tmp_path):
    table, remarks = tables.compare([run(tmp_path / "a", 0.5, finished=False)])
    assert table == ""
    assert len(remarks) == 1


def test_one_run_is_a_table_of_networks_mean_and_ensemble(tmp_path):
    path = run(tmp_path / "a", 0.5)
    results = json.loads((path / "results.json").read_text())
    assert cells(tables.run_table(results))[2:] == [
        ["resnet8", "1,234", "50.00"],
        ["resnet20", "5,678", "60.00"],
        ["mean", "55.00"],
        ["ensemble", "70.00"],
    ]


@pytest.mark.parametrize(
    ("fractions", "text"), [([0.5], "50.00"), ([0.5, 0.5], "50.00 +- 0.00")]
)
def test_percentages(fractions, text):
    assert formatting.percent(fractions) == text
