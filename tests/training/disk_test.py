"""Disks that are damaged, full or read-only."""

import contextlib
import os
import random
import resource
import shutil
import subprocess
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import small_runs
import tensorflow as tf
from privileges import without_privileges

from afd_tf.errors import Mistake
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training.callbacks import metrics_file, tensorboard
from afd_tf.training.checkpoints import Checkpoints, Position, of_run


def some_values(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "network/a/0/kernel": rng.normal(size=(40, 50)).astype("float32"),
        "network/a/1/bias": rng.normal(size=7).astype("float32"),
        "optimizer/0/iterations": np.int64(seed),
    }


@pytest.fixture(scope="module")
def finished_in_two(tmp_path_factory):
    path = tmp_path_factory.mktemp("disk") / "run"
    small_runs.train(path)
    return path


def two_checkpoints(folder):
    checkpoints = Checkpoints(folder)
    for epoch in (1, 2):
        checkpoints.save(Position(epoch), some_values(epoch), {"rows": [epoch]})
    return checkpoints


def assert_is(found, epoch):
    assert found.position == Position(epoch)
    assert found.record == {"rows": [epoch]}
    small_runs.assert_same_values(found.values, some_values(epoch))


def damaged(checkpoints, suffix):
    """Return the path of a file of the newest checkpoint."""
    path = checkpoints.path(checkpoints.positions()[-1])
    return path / f"state{suffix}"


SUFFIXES = (".data-00000-of-00001", ".index")


# Damaged checkpoints


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_anywhere_is_found_or_does_no_harm(tmp_path, suffix):
    checkpoints = two_checkpoints(tmp_path)
    path = damaged(checkpoints, suffix)
    whole = path.read_bytes()
    choose = random.Random(0)
    places = {0, len(whole) - 1, *choose.sample(range(len(whole)), 80)}
    passed_over = 0
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << choose.randrange(8)
        path.write_bytes(flipped)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = Checkpoints(tmp_path).newest()
        if found.position == Position(2):
            assert_is(found, 2)
        else:
            assert_is(found, 1)
            assert str(checkpoints.path(Position(2))) in str(caught[0].message)
            passed_over += 1
    assert passed_over >= (len(places) - 4 if suffix != ".index" else 40)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("length", [0, 1, 100, -1, None])
def test_a_truncated_or_lost_file_is_found(tmp_path, suffix, length):
    checkpoints = two_checkpoints(tmp_path)
    path = damaged(checkpoints, suffix)
    if length is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:length])
    with named(checkpoints):
        assert_is(checkpoints.newest(), 1)


def named(checkpoints):
    return pytest.warns(
        UserWarning, match=f"{checkpoints.path(Position(2))} is damaged"
    )


def test_if_all_are_damaged_nothing_is_begun_anew(tmp_path):
    checkpoints = two_checkpoints(tmp_path)
    for path in tmp_path.glob("*/*.data-*"):
        path.write_bytes(path.read_bytes()[:-50])
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match="all 2 are damaged"),
    ):
        checkpoints.newest()


@pytest.mark.parametrize("change", ["renamed", "copied"])
def test_a_checkpoint_under_another_name_is_refused(tmp_path, change):
    checkpoints = two_checkpoints(tmp_path)
    old, new = (checkpoints.path(Position(epoch)) for epoch in (1, 9))
    old.rename(new) if change == "renamed" else shutil.copytree(old, new)
    before = contents(tmp_path)
    with pytest.raises(Mistake, match=r"is one of epoch 1, not of epoch 9"):
        checkpoints.newest()
    assert contents(tmp_path) == before


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    Checkpoints(tmp_path, configuration="a").save(Position(1), some_values(), {})
    assert Checkpoints(tmp_path, configuration="a").newest().position == Position(1)
    with pytest.raises(Mistake, match="of a run of another configuration"):
        Checkpoints(tmp_path, configuration="b").newest()


def test_missing_checkpoints_are_not_the_same_as_none(tmp_path):
    checkpoints = two_checkpoints(tmp_path)
    for epoch in (1, 2):
        shutil.rmtree(checkpoints.path(Position(epoch)))
    with pytest.raises(Mistake, match="there were some, and none is left"):
        checkpoints.newest()


@pytest.mark.parametrize(
    ("position", "record", "message"),
    [
        (Position(1, 9999), {}, r"epoch 1 and 9999 steps, of a run of 2 epochs of 5"),
        (Position(3), {}, "it is of epoch 3"),
        (Position(1), {"rows": 3}, r"\['rows'\] is 3, not a list"),
    ],
)
def test_what_no_training_saves_is_refused(
    tmp_path, finished_in_two, position, record, message
):
    run = tmp_path / "run"
    shutil.copytree(finished_in_two, run)
    (run / "results.json").unlink()
    checkpoints = of_run(RunDirectory(run))
    newest = checkpoints.newest()
    checkpoints.save(position, newest.values, newest.record | record)
    with pytest.raises(Mistake, match=f"Damaged checkpoint .*{message}"):
        small_runs.train(run)
    assert small_runs.rows(run) == small_runs.rows(finished_in_two)


@pytest.mark.filterwarnings("error")
def test_a_checkpoint_that_is_deleted_while_it_is_read_is_no_damage(
    tmp_path, monkeypatch
):
    reader, training = two_checkpoints(tmp_path), Checkpoints(tmp_path, keep=1)
    load = tf.train.load_checkpoint

    def load_too_late(path):
        monkeypatch.setattr(tf.train, "load_checkpoint", load)
        training.save(Position(3), some_values(3), {"rows": [3]})
        return load(path)

    monkeypatch.setattr(tf.train, "load_checkpoint", load_too_late)
    assert_is(reader.newest(), 3)


def interrupt(model):
    raise KeyboardInterrupt


def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(tmp_path):
    same = {"checkpoint_steps": 1, "keep": 2}
    small_runs.train(tmp_path / "straight", **same)
    stop = small_runs.AfterStep(1, 4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        small_runs.train(tmp_path / "run", **same, callbacks=[stop])
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints.positions() == [Position(1, 2), Position(1, 3)]
    path = damaged(checkpoints, SUFFIXES[0])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"epoch-0001-step-000003 is damaged"):
        small_runs.train(tmp_path / "run", **same)
    a, b = (small_runs.checkpoint_values(tmp_path / n) for n in ("straight", "run"))
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_allclose(value, b[key], rtol=1e-4, atol=1e-5, err_msg=key)


# Disks


@contextlib.contextmanager
def no_file_above(size):
    """Let writing beyond a size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(path, size):
    """Mount a file system of its own that is soon full."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs privileges")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_full_disk_leaves_earlier_checkpoints_as_they_are(tmp_path):
    checkpoints = two_checkpoints(tmp_path)
    before = contents(tmp_path)
    with no_file_above(5000), pytest.raises(OSError, match="File too large"):
        checkpoints.save(Position(3), some_values(3), {})
    assert before == contents(tmp_path)
    assert_is(checkpoints.newest(), 2)


def written(warnings):
    texts = [str(warning.message) for warning in warnings]
    return [text for text in texts if "could not be written" in text]


def test_a_run_on_a_full_disk_says_so_and_goes_on(tmp_path, monkeypatch):
    save, number = Checkpoints.save, 0

    def save_on_a_full_disk(self, *arguments):
        nonlocal number
        number += 1
        with no_file_above(2000) if number in (2, 3) else contextlib.nullcontext():
            save(self, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save_on_a_full_disk)
    with pytest.warns(UserWarning, match="could not be written") as caught:
        small_runs.train(tmp_path / "run", checkpoint_steps=2)
    messages = written(caught)
    assert len(messages) == 2
    assert "That of epoch 0 and 2 steps is kept. Training goes on." in messages[0]
    assert Checkpoints(tmp_path / "run" / "checkpoints").positions() == [
        Position(1, 2),
        Position(1, 4),
        Position(2),
    ]


def fill(disk, epoch, step):
    """Return a callback that fills a disk after a step."""

    def write(model):
        with contextlib.suppress(OSError):
            (disk / "filling").write_bytes(bytes(2**20))

    return small_runs.AfterStep(epoch, step, write)


def temporaries(disk):
    return [
        path for path in disk.rglob("*") if ".temp" in path.name or ".tmp" in path.name
    ]


def test_a_full_disk_loses_no_checkpoint_and_says_what_the_command_does(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "400k"):
        again = "last state could not be saved.*goes on after epoch 1"
        with (
            pytest.warns(UserWarning, match="could not be written") as caught,
            pytest.raises(Mistake, match=again),
        ):
            small_runs.train(disk / "run", callbacks=[fill(disk, 1, 3)])
        messages = "\n".join(written(caught))
        for part in ("metrics.csv", "That of epoch 1 is kept"):
            assert part in messages
        assert not temporaries(disk)
        (disk / "filling").unlink()
        results = small_runs.train(disk / "run")
        assert results["epoch"] == 2
        assert [row["epoch"] for row in small_runs.rows(disk / "run")] == ["1", "2"]


def test_older_checkpoints_make_room_for_the_last_one_and_the_results(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "600k"):
        filling = fill(disk, 1, 3)
        small_runs.train(disk / "run", checkpoint_steps=1, callbacks=[filling])
        assert (disk / "run" / "results.json").exists()
        assert Checkpoints(disk / "run" / "checkpoints").positions()[-1] == Position(2)
        assert [row["epoch"] for row in small_runs.rows(disk / "run")] == ["1", "2"]
        assert not temporaries(disk)


def test_a_last_row_that_was_lost_returns_from_the_checkpoint(tmp_path):
    small_runs.train(tmp_path, epochs=1)
    rows = small_runs.rows(tmp_path)
    (tmp_path / "results.json").unlink()
    for lost in ("epoch\n", None):
        (tmp_path / "metrics.csv").unlink()
        if lost is not None:
            (tmp_path / "metrics.csv").write_text(lost)
        small_runs.train(tmp_path, epochs=1)
        assert small_runs.rows(tmp_path) == rows
        (tmp_path / "results.json").unlink()


def test_metrics_that_could_not_be_written_are_written_later(tmp_path, monkeypatch):
    file = metrics_file.MetricsFile(tmp_path / "metrics.csv", 5, {})
    file.set_model(SimpleNamespace(phases=[]))
    file.on_train_begin()
    with no_file_above(10), pytest.warns(UserWarning, match="rows are kept"):
        file.on_epoch_end(0, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []
    file.on_epoch_end(1, {"loss": 0.5})
    assert [row["loss"] for row in small_runs.rows(tmp_path)] == ["1.0", "0.5"]


def test_training_goes_on_without_tensorboard_that_cannot_be_written(tmp_path):
    board = tensorboard.TensorBoard(tmp_path, 5, 64, "a = 1\n")
    board.set_model(SimpleNamespace(phases=[], metric_specs={}))
    board.on_train_begin()
    board.on_epoch_begin(0)
    with no_file_above(10), pytest.warns(UserWarning, match="large. Training goes on"):
        board.on_epoch_end(0, {"loss": 1.0})
    # Said once: warnings are errors here.
    board.on_epoch_begin(1)
    board.on_epoch_end(1, {"loss": 1.0})
    board.on_train_end()


@contextlib.contextmanager
def read_only(folder):
    """Let nobody write into a folder, not even root."""
    user = os.geteuid()
    for part in (folder, *folder.parents):
        if part.stat().st_uid == user and part.name.startswith(("pytest", "test_")):
            part.chmod(0o755)
    folder.chmod(0o555)
    try:
        with without_privileges():
            yield
    finally:
        folder.chmod(0o755)


def test_a_directory_that_became_read_only_keeps_its_checkpoints(tmp_path):
    checkpoints = two_checkpoints(tmp_path)
    with read_only(tmp_path), pytest.raises(OSError, match="Permission denied"):
        checkpoints.save(Position(3), some_values(3), {})
    assert checkpoints.positions() == [Position(1), Position(2)]
    assert_is(checkpoints.newest(), 2)


def test_a_disk_without_room_for_the_first_file_is_refused(tmp_path):
    with no_file_above(0), pytest.raises(ValueError, match="can be written"):
        small_runs.train(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
