"""Provenance: the command, and the commits of a checkout that changes meanwhile."""

import json
import subprocess

import pytest
import small_runs

from afd_tf.files import write_json
from afd_tf.runs import provenance
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training import Experiment


def test_a_command_is_written_as_a_shell_takes_it():
    line = provenance.command_line("/venv/bin/afd-train", ["--gin_param=a = 'b'"])
    assert line == """afd-train '--gin_param=a = '"'"'b'"'"''"""


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)


def change(checkout):
    """Commit a change of the code; return the commit."""
    with open(checkout / "afd_tf" / "runs" / "provenance.py", "a") as file:
        file.write("changed")
    git(checkout, "commit", "-q", "-a", "-m", "changed")
    return provenance.current_commit()


def start(run):
    """Begin or resume a run, as far as its commits go; return them."""
    found = provenance.commits_of(run)
    write_json(run.commits, found)
    return found


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a repository that our package seems to lie in."""
    root = tmp_path / "checkout"
    for name in ("afd_tf/runs/provenance.py", "gin/afd.gin", "studies/a/chosen.json"):
        file = root / name
        file.parent.mkdir(parents=True)
        file.write_text("")
    git(root, "init", "-q")
    git(root, "config", "user.email", "a@b.c")
    git(root, "config", "user.name", "a")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    module = root / "afd_tf" / "runs" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(module))
    return root


def test_what_no_run_depends_on_leaves_a_commit_clean(checkout):
    (checkout / "studies" / "a" / "chosen.json").write_text("{}")
    (checkout / "studies" / "a" / "results.json").write_text("{}")
    (checkout / "notes.txt").write_text("new")
    commit = provenance.current_commit()
    assert len(commit) == 40
    assert int(commit, 16)


@pytest.mark.parametrize(
    "name",
    ["afd_tf/runs/provenance.py", "gin/afd.gin", "gin/new.gin", "afd_tf/new.py"],
)
def test_code_and_configurations_that_differ_do_not(checkout, name):
    (checkout / name).write_text("other")
    assert provenance.current_commit().endswith("-dirty")


def test_a_package_installed_inside_another_repository_has_no_commit(
    checkout, monkeypatch
):
    installed = checkout / "venv" / "afd_tf" / "runs" / "provenance.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.current_commit() is None


def test_without_git_there_is_no_commit(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.current_commit() is None
    run = RunDirectory(tmp_path / "run")
    assert provenance.commits_of(run) == []


def test_each_change_between_two_starts_is_recorded_once(checkout, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    first = provenance.current_commit()
    assert start(run) == [first]
    assert start(run) == [first]
    second = change(checkout)
    assert start(run) == [first, second]
    (checkout / "gin" / "afd.gin").write_text("other")
    assert start(run) == [first, second, f"{second}-dirty"]
    git(checkout, "checkout", "-q", "-f", first)
    assert start(run) == [first, second, f"{second}-dirty", first]


def test_a_damaged_record_names_its_file(checkout, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    run.commits.write_text('{"commit": 1}')
    with pytest.raises(ValueError, match=r"commits\.json"):
        provenance.commits_of(run)


def test_the_result_of_a_resumed_run_names_every_commit(
    checkout, tmp_path, monkeypatch
):
    def stop(experiment):
        raise KeyboardInterrupt

    first = provenance.current_commit()
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            small_runs.train(tmp_path / "run", epochs=1)
    second = change(checkout)
    results = small_runs.train(tmp_path / "run", epochs=1)
    assert (results["commit"], results["earlier_commits"]) == (second, [first])
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
