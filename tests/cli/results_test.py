"""afd-results: where it writes, and mistakes in that."""

import subprocess
import sys

import pytest
from privileges import without_privileges
from records import write_seed

from afd_tf.cli import results
from afd_tf.results import comparison


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def fails(arguments, capsys):
    """Return the one line that a mistake ends in."""
    assert results.main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_table_and_chart_are_written(tmp_path, capsys):
    write_seed(tmp_path / "a", 0.5)
    paths = {"output": tmp_path / "x.txt", "chart": tmp_path / "x.png"}
    flags = [f"--{flag}={path}" for flag, path in paths.items()]
    assert results.main([str(tmp_path / "a"), *flags]) == 0
    assert capsys.readouterr().out == ""
    assert " 50.00" in paths["output"].read_text()
    assert paths["chart"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flag", ["chart", "output"])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/x.png", "No such file or directory"),
        ("folder.png", "Is a directory"),
        ("file/x.png", "Not a directory"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_is_done(
    tmp_path, capsys, monkeypatch, flag, place, reason
):
    write_seed(tmp_path / "a", 0.5)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(comparison, "compare", lambda *_: pytest.fail("computed"))
    before = files(tmp_path)
    other = {"chart": "output", "output": "chart"}[flag]
    path = tmp_path / place
    arguments = [f"--{flag}={path}", f"--{other}={tmp_path / 'other.png'}"]
    error = fails([tmp_path / "a", *arguments], capsys)
    assert f"Received: --{flag}={path} ({reason})." in error
    assert files(tmp_path) == before


@pytest.mark.parametrize("flag", ["chart", "output"])
def test_a_folder_that_is_others_is_refused(tmp_path, capsys, flag):
    write_seed(tmp_path / "a", 0.5)
    (tmp_path / "closed").mkdir(mode=0o555)
    path = tmp_path / "closed" / "x.png"
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and "pytest" in str(folder):
            folder.chmod(0o755)
    with without_privileges():
        error = fails([tmp_path / "a", f"--{flag}={path}"], capsys)
    assert f"Received: --{flag}={path} (Permission denied)." in error


def test_a_chart_that_fails_while_it_is_written_is_a_mistake_too(
    tmp_path, capsys, monkeypatch
):
    from afd_tf.results import chart

    def full(*_):
        raise OSError(28, "No space left on device")

    write_seed(tmp_path / "a", 0.5)
    monkeypatch.setattr(chart, "draw", full)
    error = fails([tmp_path / "a", f"--chart={tmp_path / 'x.png'}"], capsys)
    assert f"--chart={tmp_path / 'x.png'} (No space left on device)." in error


def test_a_reader_that_has_seen_enough_is_no_mistake(tmp_path):
    write_seed(tmp_path / "runs", 0.5)
    # Unbuffered, as where there is more than a buffer holds.
    command = [
        sys.executable,
        "-u",
        "-m",
        "afd_launcher",
        "results",
        str(tmp_path / "runs"),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")
