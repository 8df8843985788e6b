"""Comparison: tables by protocol, gains by seed, remarks."""

import pytest
from records import write_seed, write_seeds

from afd_tf.results import tables
from afd_tf.results.comparison import compare


def rows(comparison, network="small"):
    return {
        row.configuration.rpartition("/")[2]: row
        for _, table in comparison.tables
        for row in table
        if row.network == network
    }


def test_gains_are_over_vanilla_and_dml_by_seed(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.50, 0.52, 0.51])
    write_seeds(tmp_path, "dml", [0.51, 0.54, 0.54])
    write_seeds(tmp_path, "afd", [0.53, 0.53, 0.55])
    found = rows(compare([tmp_path]))
    assert found["vanilla"].gains == {}
    assert list(found["dml"].gains) == ["vanilla"]
    assert found["dml"].gains["vanilla"].mean == pytest.approx(0.02)
    assert found["afd"].gains["vanilla"].mean == pytest.approx(0.08 / 3)
    over_dml = found["afd"].gains["dml"]
    # Differences 2, -1, 1 points: mean 2/3, s = 1.527525, standard error 0.881917.
    assert over_dml.mean == pytest.approx(0.02 / 3)
    assert over_dml.high == pytest.approx((2 / 3 + 4.302653 * 0.881917) / 100)
    assert over_dml.pairs == 3
    assert rows(compare([tmp_path]), "ensemble")["afd"].gains.keys() == {
        "vanilla",
        "dml",
    }


def test_gains_are_over_any_configuration_or_method_asked_for(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.50, 0.52])
    write_seeds(tmp_path, "l1_kd", [0.51, 0.52])
    for name, best in (("afd", 0.56), ("afd_placebo", 0.52)):
        for seed in range(2):
            path = tmp_path / name / f"seed_{seed}"
            more = f"compile.placebo = {best}\n"
            write_seed(path, best + seed / 50, "afd", seed, more=more)
    found = rows(compare([tmp_path], ["vanilla", "l1_kd", "afd_placebo"]))
    gains = {name: row.gains for name, row in found.items()}
    assert list(gains["afd"]) == ["vanilla", "l1_kd", "afd_placebo"]
    assert gains["afd"]["l1_kd"].mean == pytest.approx(0.055)
    assert gains["afd"]["afd_placebo"].mean == pytest.approx(0.04)
    # A baseline has gains over those before it.
    assert list(gains["afd_placebo"]) == ["vanilla", "l1_kd"]
    assert list(gains["l1_kd"]) == ["vanilla"]
    assert gains["vanilla"] == {}
    # A name of runs comes before a method of that name, which two of them have.
    found = rows(compare([tmp_path], ["afd"]))
    assert list(found["afd_placebo"].gains) == ["afd"]
    assert found["afd"].gains == {}


def test_an_unknown_baseline_is_named(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.5])
    with pytest.raises(ValueError, match=r"among vanilla, dml\. Received: over='l2'"):
        compare([tmp_path], ["l2"])


def test_protocols_are_never_in_one_table_and_what_differs_is_named(tmp_path):
    write_seeds(tmp_path / "a", "vanilla", [0.5, 0.6])
    write_seeds(tmp_path / "b", "afd", [0.6, 0.7], per_class=None, epochs=300)
    comparison = compare([tmp_path])
    assert [description for description, _ in comparison.tables] == [
        "cifar100, 60 training images per class, 60 epochs, batches of 128, accuracy "
        "on the test images",
        "cifar100, 300 epochs, batches of 128, accuracy on the test images",
    ]
    assert rows(comparison)["afd"].gains == {}
    assert comparison.remarks == [
        f"Not compared: {tmp_path / 'a/vanilla'} and {tmp_path / 'b/afd'}, whose "
        "protocols differ in load_data.per_class (60, None); train.epochs (60, 300)."
    ]


@pytest.mark.parametrize(
    "more",
    [
        "train.validation = 0.2\n",
        "train.precision = 'mixed_bfloat16'\n",
        "load_data.flip = False\n",
    ],
)
def test_data_and_precision_are_parts_of_the_protocol(tmp_path, more):
    write_seed(tmp_path / "a", 0.5, "vanilla")
    write_seed(tmp_path / "b", 0.6, "afd", more=more)
    tables = compare([tmp_path]).tables
    assert len(tables) == 2
    if "precision" in more:
        assert "batches of 128, mixed_bfloat16, " in tables[1][0]


def test_a_storage_setting_is_no_protocol(tmp_path):
    write_seed(tmp_path / "a", 0.5, "vanilla")
    write_seed(tmp_path / "b", 0.6, "afd", more="load_data.memory_limit = 1\n")
    assert len(compare([tmp_path]).tables) == 1


def test_seeds_that_differ_are_said_and_those_in_common_compared(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.50, 0.52, 0.50])
    write_seeds(tmp_path, "dml", [0.50, 0.52, 0.50])
    write_seeds(tmp_path, "afd", [0.53, 0.53])
    comparison = compare([tmp_path])
    assert rows(comparison)["afd"].gains["vanilla"].mean == pytest.approx(0.02)
    assert rows(comparison)["afd"].gains["vanilla"].pairs == 2
    assert comparison.remarks == [
        "Seeds differ: afd has 0, 1; dml, vanilla have 0, 1, 2. Gains are over those "
        "in common."
    ]


def test_other_seeds_are_not_compared(tmp_path):
    write_seed(tmp_path / "a", 0.5, "vanilla", seed=1)
    write_seed(tmp_path / "b", 0.6, "afd", seed=2)
    comparison = compare([tmp_path])
    assert all(row.gains == {} for _, table in comparison.tables for row in table)
    assert any("no seed in common" in remark for remark in comparison.remarks)


def test_of_several_baselines_none_is_chosen(tmp_path):
    write_seeds(tmp_path / "a", "vanilla", [0.5])
    write_seeds(
        tmp_path / "b", "vanilla", [0.5], more="logit/SGD.learning_rate = 0.2\n"
    )
    write_seeds(tmp_path, "afd", [0.6])
    comparison = compare([tmp_path])
    assert rows(comparison)["afd"].gains == {}
    assert any("of which there are several" in r for r in comparison.remarks)


def test_dml_of_other_networks_is_no_baseline_but_vanilla_of_the_same_one_is(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.50, 0.52])
    write_seeds(tmp_path, "dml", [0.51, 0.54])
    write_seeds(tmp_path, "kd", [0.53, 0.53], networks=("small",))
    comparison = compare([tmp_path])
    assert list(rows(comparison)["kd"].gains) == ["vanilla"]
    assert rows(comparison, "mean")["kd"].gains == {}


def test_other_online_methods_are_a_baseline_in_the_same_company_alone(tmp_path):
    two, three = ("small", "small_2"), ("small", "small_2", "small_3")
    write_seeds(tmp_path / "two", "vanilla", [0.48, 0.49], networks=two)
    write_seeds(tmp_path / "two", "dml", [0.50, 0.52], networks=two)
    write_seeds(tmp_path / "three", "afd", [0.53, 0.53], networks=three)
    assert list(rows(compare([tmp_path]))["afd"].gains) == ["vanilla"]
    write_seeds(tmp_path / "three", "dml", [0.51, 0.51], networks=three)
    for network in (*three, "mean", "ensemble"):
        row = rows(compare([tmp_path / "three"]), network)["afd"]
        assert row.gains["dml"].mean == pytest.approx(0.02)


SOURCE = """train.source = \\
    'runs/{name}/seed_{seed}{file}'
train.source_network = '{network}'
"""


def offline(path, accuracy, seed, name="vanilla", file="", network="large"):
    """Write a run that learns from the one of its seed, at the end of a long line."""
    more = SOURCE.format(name=name, seed=seed, file=file, network=network)
    write_seed(path, accuracy, "kd", seed, more=more, networks=("small",))


@pytest.mark.parametrize("file", ["", "/networks/large.keras"])
def test_runs_that_learn_from_the_run_of_their_seed_are_one_configuration(
    tmp_path, file
):
    write_seeds(tmp_path, "vanilla", [0.50, 0.52, 0.51])
    for seed, accuracy in enumerate([0.53, 0.53, 0.56]):
        offline(tmp_path / "kd" / f"seed_{seed}", accuracy, seed, file=file)
    comparison = compare([tmp_path])
    [small] = [
        row
        for _, table in comparison.tables
        for row in table
        if (row.method, row.network) == ("kd", "small")
    ]
    assert small.configuration == str(tmp_path / "kd")
    assert small.accuracies == {0: 0.53, 1: 0.53, 2: 0.56}
    # Differences 3, 1, 5 points: mean 3, s = 2, standard error 1.154701.
    over_vanilla = small.gains["vanilla"]
    assert (over_vanilla.mean, over_vanilla.pairs) == (pytest.approx(0.03), 3)
    assert over_vanilla.high == pytest.approx((3 + 4.302653 * 1.154701) / 100)
    assert comparison.remarks == []
    assert " 54.00 +- 1.73 " in tables.text(comparison)


def test_runs_that_all_learn_from_one_run_are_another_configuration(tmp_path):
    for seed in range(3):
        offline(tmp_path / "own" / f"seed_{seed}", 0.5, seed)
        path = tmp_path / "one" / f"seed_{seed}"
        more = SOURCE.format(name="vanilla", seed=0, file="", network="large")
        write_seed(path, 0.6, "kd", seed, more=more, networks=("small",))
    found = rows(compare([tmp_path]))
    # Seed 0 learns from the run of seed 0 in both: one run too many of it.
    assert sorted(len(row.accuracies) for row in found.values()) == [2, 3]


def test_offline_runs_are_a_baseline_for_the_network_that_learned(tmp_path):
    write_seeds(tmp_path, "afd", [0.53, 0.55])
    write_seeds(tmp_path, "kd", [0.50, 0.51], networks=("small",))
    comparison = compare([tmp_path], ["kd"])
    assert rows(comparison)["afd"].gains["kd"].mean == pytest.approx(0.035)
    assert rows(comparison, "large")["afd"].gains == {}
    assert rows(comparison, "mean")["afd"].gains == {}


@pytest.mark.parametrize("other", [{"name": "dml"}, {"network": "small"}])
def test_runs_that_learn_from_other_networks_are_other_configurations(tmp_path, other):
    offline(tmp_path / "a", 0.5, seed=0)
    offline(tmp_path / "b", 0.6, seed=1, **other)
    assert len(rows(compare([tmp_path]))) == 2


AUGMENTATION = """load_data.padding = 4
load_data.pad_mode = 'reflect'
load_data.flip = True
"""


def test_a_number_of_the_paper_is_shown_beside_its_own_configuration_alone(tmp_path):
    paper = {
        "networks": ("resnet32", "resnet32_2"),
        "epochs": 300,
        "per_class": None,
        "more": AUGMENTATION,
    }
    write_seeds(tmp_path / "full", "afd", [0.7], **paper)
    found = rows(compare([tmp_path]), "resnet32_2")
    assert str(found["afd"].paper) == "74.03 [s]"
    control = {"more": AUGMENTATION + "compile.placebo = True\n"}
    write_seeds(tmp_path / "control", "afd", [0.7], **{**paper, **control})
    write_seeds(tmp_path / "part", "afd", [0.7], **{**paper, "per_class": 60})
    for name in ("control", "part"):
        found = rows(compare([tmp_path / name]), "resnet32")
        assert found["afd"].paper is None, name


def test_a_repeated_seed_is_said(tmp_path):
    write_seed(tmp_path / "a", 0.5, seed=1)
    write_seed(tmp_path / "b", 0.5, seed=1)
    assert any("a seed occurs twice" in r for r in compare([tmp_path]).remarks)


def test_nothing_finished_gives_no_table(tmp_path):
    comparison = compare([write_seed(tmp_path / "a", 0.5, finished=False)])
    assert comparison.tables == []
    assert len(comparison.remarks) == 1


def test_runs_on_different_images_are_no_seeds_of_one_configuration(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.5, 0.6], data_sha256="a" * 64)
    write_seed(tmp_path / "afd" / "seed_0", 0.7, seed=0, data_sha256="a" * 64)
    write_seed(tmp_path / "afd" / "seed_1", 0.9, seed=1, data_sha256="b" * 64)
    found = compare([tmp_path])
    assert [len(table) for _, table in found.tables] == [8, 4]
    [remark] = [text for text in found.remarks if "protocols differ" in text]
    assert f"data ({'a' * 12}, {'b' * 12})" in remark


def test_a_baseline_that_is_asked_for_and_not_there_is_named(tmp_path):
    write_seeds(tmp_path / "a", "afd", [0.3])
    assert compare([tmp_path / "a"]).remarks == []
    found = compare([tmp_path / "a"], ["vanilla", "afd"])
    assert found.remarks == ["No gain over vanilla: no run is one."]
    with pytest.raises(ValueError, match="Did you mean 'vanilla'"):
        compare([tmp_path / "a"], ["vanila"])
