import subprocess

import pytest

from afd_tf.training import provenance, results


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a repository that our package seems to lie in."""
    root = tmp_path / "checkout"
    module = root / "afd_tf" / "training" / "results.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    git(root, "init", "-q")
    git(root, "config", "user.email", "a@b.c")
    git(root, "config", "user.name", "a")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(results, "__file__", str(module))
    return root


def test_the_commit_of_a_checkout_is_recorded(checkout):
    commit = results.commit()
    assert len(commit) == 40
    assert int(commit, 16)


def test_a_changed_checkout_is_said_to_be_changed(checkout):
    (checkout / "afd_tf" / "training" / "results.py").write_text("changed")
    assert results.commit().endswith("-dirty")


def test_a_package_installed_inside_another_repository_has_no_commit(
    checkout, monkeypatch
):
    installed = checkout / "venv" / "afd_tf" / "training" / "results.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    monkeypatch.setattr(results, "__file__", str(installed))
    assert results.commit() is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert results.commit() is None


def test_a_command_is_written_as_a_shell_takes_it():
    line = provenance.command_line("/venv/bin/afd-train", ["--gin_param=a = 'b'"])
    assert line == """afd-train '--gin_param=a = '"'"'b'"'"''"""
