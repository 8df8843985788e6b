import os
import tempfile
from pathlib import Path

import pytest
from privileges import without_privileges

from afd_tf.errors import Mistake
from afd_tf.files import remove, write_text
from afd_tf.runs import configuration, run_directory
from afd_tf.runs.run_directory import RunDirectory

CONFIG = """# Parameters for train:
# ====================
train.epochs = 2
train.networks = [@resnet8/resnet, @resnet20/resnet]
train.data_dir = '/a'
"""


def started(path, config=CONFIG):
    run = RunDirectory(path)
    run.check(config)
    with run.started(config):
        (run.checkpoints / "epoch-0001-step-000000").mkdir()
    return run


def test_a_new_directory_begins_with_its_configuration(tmp_path):
    run = started(tmp_path / "runs" / "a")
    assert run.config.read_text() == CONFIG


def test_an_empty_directory_and_the_same_configuration_are_accepted(tmp_path):
    started(tmp_path)
    RunDirectory(tmp_path).check(CONFIG)


def test_comments_order_and_places_do_not_make_another_configuration(tmp_path):
    started(tmp_path)
    moved = """train.data_dir = '/b'
train.networks = \\
    [@resnet8/resnet,
     @resnet20/resnet]
train.strategy = 'mirrored'
train.epochs = 2
train.checkpoint_steps = 100
"""
    RunDirectory(tmp_path).check(moved)


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (CONFIG.replace("2", "3", 1), "train.epochs = 2 there, 3 now"),
        (CONFIG + "train.seed = 1\n", "train.seed = not set there, 1 now"),
        (
            CONFIG.replace("@resnet20/resnet]", "@resnet8/resnet]"),
            "[@resnet8/resnet, @resnet20/resnet] there, "
            "[@resnet8/resnet, @resnet8/resnet] now",
        ),
    ],
)
def test_another_configuration_is_refused_with_what_differs(
    tmp_path, config, difference
):
    started(tmp_path)
    with pytest.raises(ValueError, match="another configuration") as caught:
        RunDirectory(tmp_path).check(config)
    assert difference in str(caught.value)
    assert RunDirectory(tmp_path).config.read_text() == CONFIG


def test_somebody_elses_directory_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex' and no config"):
        RunDirectory(tmp_path).check(CONFIG)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="Invalid value for argument `workdir`"):
            RunDirectory(path).check(CONFIG)


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "closed"])
def test_a_place_without_permission_is_refused(mode):
    # Not in tmp_path, whose parents are closed to others.
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        place = Path(parent) / "place"
        place.mkdir()
        place.chmod(mode)
        try:
            with without_privileges(), pytest.raises(ValueError, match="can be writ"):
                RunDirectory(place / "runs" / "run").check(CONFIG)
        finally:
            place.chmod(0o755)


def test_a_place_that_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match=r"would be in /proc \(No such"):
        RunDirectory("/proc/afd/run").check(CONFIG)


def test_checking_leaves_nothing_behind(tmp_path):
    RunDirectory(tmp_path / "a" / "b").check(CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_first_epoch_that_fails_leaves_nothing_behind(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "a")

    def fail_after_writing():
        with run.started(CONFIG):
            run.logs.mkdir()
            write_text(run.metrics, "epoch\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_writing()
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_a_failed_first_epoch_stays(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "other").mkdir()
    with pytest.raises(KeyError), RunDirectory(tmp_path / "runs" / "a").started(CONFIG):
        raise KeyError
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


def test_a_failure_after_a_finished_epoch_keeps_the_run(tmp_path):
    run = started(tmp_path / "a")
    with pytest.raises(KeyError), run.started(CONFIG):
        raise KeyError
    assert run.config.exists()


def test_whatever_a_killed_start_leaves_the_same_command_goes_on(tmp_path):
    steps = [
        lambda: (tmp_path / "run" / "checkpoints").mkdir(parents=True),
        lambda: (tmp_path / "run" / "checkpoints" / "lock").touch(),
        lambda: (tmp_path / "run" / ".tmp-4711").mkdir(),
        lambda: (tmp_path / "run" / ".tmp-4711" / "config.gin").write_text("half"),
        lambda: (tmp_path / "run" / "config.gin").write_text(CONFIG),
        lambda: (tmp_path / "run" / "checkpoints" / ".tmp-4711").write_text("half"),
    ]
    for step in steps:
        step()
        RunDirectory(tmp_path / "run").check(CONFIG)
    run = started(tmp_path / "run")
    names = {path.name for path in run.path.rglob("*")}
    assert names == {"config.gin", "checkpoints", "lock", "epoch-0001-step-000000"}


def test_what_a_killed_removal_leaves_is_known_by_its_configuration(
    tmp_path, monkeypatch
):
    run = RunDirectory(tmp_path)

    def kill(path):
        raise SystemExit(str(path))

    def fail():
        with run.started(CONFIG):
            write_text(run.metrics, "epoch\n")
            raise KeyError

    monkeypatch.setattr(
        run_directory, "remove", lambda p: kill(p) if p == run.config else remove(p)
    )
    with pytest.raises(SystemExit, match=r"config\.gin"):
        fail()
    assert not run.metrics.exists()
    RunDirectory(tmp_path).check(CONFIG)


def test_checkpoints_without_their_configuration_or_records_are_refused(tmp_path):
    run = started(tmp_path)
    with pytest.raises(Mistake, match=r"has checkpoints and no dataset\.json"):
        run.is_new(run.dataset)
    run.config.unlink()
    with pytest.raises(Mistake, match="holds 'checkpoints' and no config"):
        run.check(CONFIG)


@pytest.mark.parametrize(
    "name", ["checkpoints/lock", "logs", "metrics.csv", "checkpoints"]
)
def test_links_out_of_the_directory_are_refused_and_not_followed(tmp_path, name):
    run, target = started(tmp_path / "run"), tmp_path / "target"
    if name in ("logs", "checkpoints"):
        target.mkdir()
        (target / "precious").touch()
    else:
        target.write_text("precious")
    remove(run.path / name)
    (run.path / name).symlink_to(target)
    for refused in (lambda: run.check(CONFIG), run.require):
        with pytest.raises(Mistake, match="without links that lead out of it"):
            refused()
    assert target.is_dir() or target.read_text() == "precious"
    assert not target.is_dir() or os.listdir(target) == ["precious"]


def test_links_to_and_within_the_directory_are_followed(tmp_path):
    run = started(tmp_path / "run")
    (tmp_path / "link").symlink_to(run.path)
    (run.path / "best").symlink_to("checkpoints/epoch-0001-step-000000")
    RunDirectory(tmp_path / "link").check(CONFIG)


def test_settings_from_python_become_a_configuration():
    text = configuration.from_settings(
        {"epochs": 2, "networks": ["resnet8", started], "data_dir": None}
    )
    assert configuration.statements(text) == {
        "train.data_dir": "None",
        "train.epochs": "2",
        "train.networks": "['resnet8', @started]",
    }
