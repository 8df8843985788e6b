"""Finished runs: those in a folder, and the seeds of one configuration."""

import pytest
from records import write_seed, write_seeds

from afd_tf.results.comparison import compare

DECAY = "compile.logit_weight_decay = {}\n"


@pytest.mark.parametrize(
    "more",
    [
        "train.evaluate_every = 10\n",
        "train.steps_per_execution = 8\n",
        "train.data_dir = '/data'\n",
        "train.strategy = 'single'\n",
        "train.workers = 'a:1,b:1'\n",
        "train.task = 1\n",
        "train.tensorboard = False\n",
        "train.keep = 1\n",
        "train.checkpoint_minutes = 1\n",
        "load_data.memory_limit = 1\n",
        "load_data.download = True\n",
        "OnlineDistiller.checkpointing = True\n",
        "compile.gradient_ratio_every = 10\n",
        "compile.jit_compile = True\n",
        "compile.run_eagerly = True\n",
        "train.method_options = None\n",
        "load_data.new = None\n",
    ],
)
def test_what_changes_no_result_does_not_part_seeds(tmp_path, more):
    write_seed(tmp_path / "a", 0.5)
    write_seed(tmp_path / "b", 0.7, seed=1, more=more)
    [(_, [small, *_])] = compare([tmp_path]).tables
    assert small.accuracies == {0: 0.5, 1: 0.7}


def test_what_is_not_in_the_table_is_said(tmp_path):
    (tmp_path / "notes").mkdir()
    write_seed(tmp_path / "a", 0.5)
    write_seed(tmp_path / "b", 0.6, seed=1, finished=False)
    comparison = compare([tmp_path / name for name in ("a", "b", "notes")])
    assert len(comparison.tables) == 1
    assert comparison.remarks == [
        f"{tmp_path / 'b'}: not finished, 1 epoch done.",
        f"{tmp_path / 'notes'}: not a run, it has no config.gin.",
    ]


def test_configurations_of_one_folder_have_labels_of_their_own(tmp_path):
    folder = tmp_path / "afd"
    for seed, decay in enumerate([1e-4, 5e-4, 1e-4]):
        more = DECAY.format(decay)
        write_seed(folder / f"seed_{seed}", 0.5 + decay, seed=seed, more=more)
    write_seeds(tmp_path, "vanilla", [0.4, 0.4], more=DECAY.format(1e-4))
    comparison = compare([tmp_path])
    [(_, found)] = comparison.tables
    assert [row.configuration for row in found] == [
        label
        for label in (folder / "seed_{0,2}", folder / "seed_1", tmp_path / "vanilla")
        for label in [str(label)] * 4
    ]
    assert comparison.remarks[0] == (
        f"{folder} holds runs of different settings: {folder / 'seed_{0,2}'}, "
        f"{folder / 'seed_1'} differ in compile.logit_weight_decay (0.0001, 0.0005)."
    )
    # The folder's name means both, and none is chosen.
    remarks = compare([tmp_path], ["afd"]).remarks
    assert any(r.startswith("No gain over afd, of which there are") for r in remarks)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 3}, "train.epochs (60, 3)"),
        ({"data_sha256": "b" * 64}, f"data ({'a' * 12}, {'b' * 12})"),
        ({"networks": ("small",)}, "the networks (small and large, small)"),
    ],
)
def test_whatever_parts_the_runs_of_a_folder_is_named(tmp_path, options, named):
    write_seed(tmp_path / "seed_0", 0.5, data_sha256="a" * 64)
    write_seed(tmp_path / "seed_1", 0.5, seed=1, **{"data_sha256": "a" * 64, **options})
    comparison = compare([tmp_path])
    labels = [row.configuration for _, found in comparison.tables for row in found]
    assert set(labels) == {str(tmp_path / "seed_0"), str(tmp_path / "seed_1")}
    assert comparison.remarks[0].endswith(f"differ in {named}.")


def test_runs_in_the_directory_of_a_run_have_another_label(tmp_path):
    write_seed(tmp_path / "a", 0.5)
    write_seed(tmp_path / "a" / "seed_1", 0.5, seed=1, more=DECAY.format(0))
    [(_, found)] = compare([tmp_path]).tables
    assert {r.configuration for r in found} == {
        str(tmp_path / "a"),
        str(tmp_path / "a" / "seed_1"),
    }


def test_a_directory_given_twice_counts_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_seed(tmp_path / "a", 0.5)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    comparison = compare(["a", "./a", str(tmp_path / "a"), "link"])
    [(_, [small, *_])] = comparison.tables
    assert (small.configuration, small.accuracies) == ("a", {0: 0.5})
    assert comparison.remarks == []


def test_runs_of_other_numbers_of_replicas_are_other_configurations(tmp_path):
    for seed, replicas in enumerate([1, 1, 4]):
        path = tmp_path / "afd" / f"seed_{seed}"
        write_seed(path, 0.5, seed=seed, replicas=replicas)
    comparison = compare([tmp_path])
    [(_, found)] = comparison.tables
    assert [sorted(row.accuracies) for row in found[::4]] == [[0, 1], [2]]
    assert "differ in the number of replicas (1, 4)" in comparison.remarks[0]


def test_results_of_another_layout_are_refused_in_a_line(tmp_path):
    write_seed(tmp_path / "a", 0.5, schema=1)
    [remark] = compare([tmp_path]).remarks
    assert remark == (
        f"{tmp_path / 'a'}: Results '{tmp_path / 'a/results.json'}' have schema 1, and "
        "this version reads schema 2: read them with the version that wrote them."
    )
