import os
import tempfile
from pathlib import Path

import pytest
from privileges import without_privileges

from afd_tf.files import write_text
from afd_tf.runs import configuration
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


def test_settings_from_python_become_a_configuration():
    text = configuration.from_settings(
        {"epochs": 2, "networks": ["resnet8", started], "data_dir": None}
    )
    assert configuration.statements(text) == {
        "train.data_dir": "None",
        "train.epochs": "2",
        "train.networks": "['resnet8', @started]",
    }
