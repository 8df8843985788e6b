"""What every command does with its output, with names, and with faults of its own."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from privileges import without_privileges

from afd_tf.cli import command, evaluate, export, results, train

LONG = "x" * 300
SMALL = [
    f"--gin_param=train.{setting}"
    for setting in (
        "networks = ['resnet8', 'resnet8']",
        "method = 'vanilla'",
        "epochs = 1",
        "batch_size = 512",
    )
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fake(execute, **options):
    return command.Command("afd-fake", "", "", (), (), execute, **options)


def main(execute, **options):
    return command.entry_points(fake(execute, **options))[0]([])


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


# Lost output

PROGRAM = """
import afd_launcher, pathlib, sys
from afd_tf.cli import command
def execute(*_):
    for line in range(3):
        print("x" * 100_000, flush=True)
    pathlib.Path("done").write_text("everything")
    return {status}
fake = command.Command("afd-fake", "", "", (), (), execute, is_report={report})
command.entry_points(fake)[1]()
"""


def shell(redirection, report=False, status=0):
    Path("program.py").write_text(PROGRAM.format(report=report, status=status))
    root = Path(command.__file__).parents[2]
    line = f"{sys.executable} program.py {redirection}; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert Path("done").read_text() == "everything"
    *lines, status = done.stderr.splitlines()
    return int(status), lines


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [
        ("| head -c 1", "Broken pipe"),
        (">/dev/full", "No space left on device"),
        (">&-", "Bad file descriptor"),
    ],
)
def test_the_work_is_done_without_its_output_and_the_status_says_so(
    redirection, reason
):
    message = f"afd-fake: Finished, but its output was lost: {reason}."
    assert shell(redirection) == (74, [message])


def test_the_status_of_what_failed_stays():
    assert shell(">/dev/full", status=130) == (130, [])
    assert shell(">/dev/null 2>/dev/full") == (0, [])


def test_a_reader_of_a_report_may_leave_early():
    assert results.COMMAND.is_report
    assert evaluate.COMMAND.is_report
    assert shell("| head -c 1", report=True) == (0, [])
    assert shell(">/dev/full", report=True)[0] == 74


def test_training_goes_on_when_its_output_is_lost(tmp_path, monkeypatch, capsys):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert train.main([*SMALL, "--workdir=run"]) == 74
        monkeypatch.undo()
    assert "its output was lost: No space left on device" in capsys.readouterr().err
    assert (tmp_path / "run" / "results.json").is_file()


def test_what_a_locale_cannot_write_is_escaped():
    Path("p.py").write_text(
        "import afd_launcher; from afd_tf.cli import command\n"
        "execute = lambda *_: print('caf\\xe9') or 0\n"
        "fake = command.Command('a', '', '', (), (), execute)\n"
        "command.entry_points(fake)[1]()"
    )
    done = subprocess.run(
        [sys.executable, "p.py"],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(command.__file__).parents[2]),
            "PYTHONIOENCODING": "ascii",
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "caf\\xe9\n", "")


# Names


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        (train, [f"--workdir={LONG}"]),
        (train, [f"--workdir={'/'.join([LONG[:200]] * 30)}"]),
        (train, [f"--gin_param=train.source = '{LONG}'"]),
        (evaluate, [f"--workdir={LONG}"]),
        (evaluate, [f"--model={LONG}"]),
        (export, [f"--workdir={LONG}"]),
        (results, [LONG]),
    ],
)
def test_a_name_too_long_is_one_line(capsys, entry, arguments):
    before = os.listdir()
    assert entry.main(arguments) == 2
    line = one_line(capsys)
    assert "File name too long" in line
    assert len(line) < 1000
    assert os.listdir() == before


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        (train, ["--workdir=closed/run"]),
        (evaluate, ["--workdir=closed/run"]),
        (export, ["--workdir=closed/run"]),
        (results, ["closed/run"]),
        (results, ["closed"]),
    ],
)
def test_a_folder_without_permission_is_one_line(tmp_path, capsys, entry, arguments):
    run = tmp_path / "closed" / "run"
    run.mkdir(parents=True)
    (run / "config.gin").write_text("")
    run.parent.chmod(0)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    with without_privileges():
        status = entry.main(arguments)
    run.parent.chmod(0o755)
    assert status == 2
    line = one_line(capsys)
    assert "Permission denied" in line or "Expected at least one finished" in line
    assert "closed" in line


@pytest.mark.parametrize("argument", ["--workdir=\udcff", "--data_dir=\udcff"])
def test_a_name_that_is_not_utf8_is_refused(capsys, argument):
    assert train.main([argument, "--dry_run"]) == 2
    assert "Expected names in UTF-8, and a locale" in one_line(capsys)
    assert os.listdir() == []


def test_in_another_locale_names_are_ascii(capsys, monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    assert train.main(["--workdir=café", "--dry_run"]) == 2
    assert "LC_ALL=C.UTF-8. Received: '--workdir=caf\\xe9'" in one_line(capsys)


def test_a_working_directory_that_is_gone_is_said(tmp_path, capsys, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert train.main(["--dry_run"]) == 2
    assert "working directory does not exist" in one_line(capsys)


def test_without_a_place_for_temporary_files_it_is_said(capsys, monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert train.main(["--dry_run"]) == 2
    assert "such as TMPDIR. Received: No usable temporary directory" in one_line(capsys)


# Faults


def test_a_fault_is_a_line_that_names_the_file_of_its_traceback(capsys):
    def execute(*_):
        raise KeyError("a bug")

    assert main(execute) == 1
    line = one_line(capsys)
    assert line.startswith(
        "afd-fake: an error of the program itself: KeyError: 'a bug'"
    )
    [name] = re.findall(r"The traceback is in (\S+); please report it\.", line)
    text = Path(name).read_text()
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("KeyError: 'a bug'\n")
    os.remove(name)


def test_a_missing_file_of_its_own_is_a_fault(capsys):
    assert main(lambda *_: Path("not-there").read_text()) == 1
    line = one_line(capsys)
    assert "FileNotFoundError" in line
    os.remove(re.findall(r"in (\S+); please", line)[0])
