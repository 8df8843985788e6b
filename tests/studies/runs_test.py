"""Runs of a study: progress, time left, and settings of finished ones."""

import pytest
from records import read, results, write_record

from afd_tf.studies.runs import Cell, Run, seconds_left


def make(folder, name, seed=0, **others):
    return Run(Cell(name, (), read, ("train.epochs = 10",)), seed, folder, **others)


def write_progress(run, epochs, seconds):
    run.path.mkdir(parents=True)
    rows = "".join(f"{e + 1},{(e + 1) * seconds}\n" for e in range(epochs))
    (run.path / "metrics.csv").write_text("epoch,seconds\n" + rows)


def test_time_left_is_measured_per_cell_and_else_the_mean(tmp_path):
    places = [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    runs = [make(tmp_path, name, seed) for name, seed in places]
    assert seconds_left(runs) is None
    write_progress(runs[0], 10, 2.0)
    (runs[0].path / "results.json").write_text("{}")
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


def test_a_run_with_a_record_shows_how_far_it_is(tmp_path):
    run = make(tmp_path / "out", "a", record=tmp_path / "record")
    write_progress(run, 2, 4.5)
    assert run.progress() == (2, 9.0)
    assert run.status() == "epoch 2 of 10"


def test_all_seeds_of_a_cell_are_in_the_record_wherever_they_were_computed(tmp_path):
    record = tmp_path / "record"
    recorded, computed = (make(tmp_path, "a", n, record=record) for n in (0, 1))
    write_record(record / recorded.name, results("n"))
    write_record(computed.path, results("n", seed=1))
    for run in (recorded, computed):
        run.keep()
        assert run.finished
        assert run.kept == record / run.name
    assert computed.results()["seed"] == 1


CONFIG = "train.epochs = 10\nsmall/resnet.depth = {}\ntrain.seed = {}\n"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG.format(8, 3), None),
        (
            CONFIG.format(14, 3),
            r"small/resnet\.depth = 8\. Received: 14 in .*a/seed_3/config",
        ),
        (CONFIG.format(8, 4), r"train\.seed = 3\. Received: 4"),
        # What it alone has: without effect, and with one.
        (
            CONFIG.format(8, 3) + "load_data.memory_limit = 9\nload_data.mean = None\n",
            None,
        ),
        (
            CONFIG.format(8, 3) + "load_data.crop = 'random_resized'\n",
            r"load_data\.crop = None\. Received: 'random_resized'",
        ),
    ],
)
@pytest.mark.parametrize("place", ["out", "record"])
def test_a_finished_run_of_other_settings_is_not_taken_for_one_of_these(
    tmp_path, place, config, message
):
    params = ("train.epochs = 10", "small/resnet.depth = 8", "train.source = 'x'")
    cell = Cell("a", (), read, params, "other")
    run = Run(cell, 3, tmp_path / "out", tmp_path / "record")
    write_record(tmp_path / place / run.name, results("n"), config)
    if message is None:
        run.check_settings()
    else:
        with pytest.raises(ValueError, match=message):
            run.check_settings()


def test_a_run_learns_from_the_run_of_its_seed(tmp_path):
    run = Run(Cell("kd", ("a", "b"), read, ("x = 1",), "vanilla"), 2, tmp_path)
    assert run.source == tmp_path / "vanilla" / "seed_2"
    assert run.arguments() == [
        "--gin_file=a",
        "--gin_file=b",
        "--gin_param=x = 1",
        f"--gin_param=train.source = '{run.source}'",
        "--seed=2",
        f"--workdir={tmp_path}/kd/seed_2",
    ]
