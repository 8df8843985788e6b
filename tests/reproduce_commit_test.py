"""The commit that results name, in a checkout to which a study adds its records."""

import subprocess

import pytest

from afd_tf.training import results


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a repository that our package seems to lie in."""
    for name in ("afd_tf/training/results.py", "gin/afd.gin", "studies/a/chosen.json"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text("")
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "first"],
    ):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    module = tmp_path / "afd_tf" / "training" / "results.py"
    monkeypatch.setattr(results, "__file__", str(module))
    return tmp_path


def test_what_no_run_depends_on_leaves_a_commit_clean(checkout):
    (checkout / "studies" / "a" / "chosen.json").write_text("{}")
    (checkout / "studies" / "a" / "results.json").write_text("{}")
    (checkout / "notes.txt").write_text("new")
    assert len(results.commit()) == 40


@pytest.mark.parametrize("name", ["gin/afd.gin", "gin/new.gin", "afd_tf/new.py"])
def test_code_and_configurations_that_differ_do_not(checkout, name):
    (checkout / name).write_text("other")
    assert results.commit().endswith("-dirty")
