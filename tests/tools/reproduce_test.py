"""`tools/reproduce`: its flags, its plan, and the line that a mistake ends in."""

import json
import signal

import pytest
import reproduce
from privileges import without_privileges
from records import results, write_record
from reproducing import reproduce as start
from reproducing import write_run

from afd_tf.studies import execution, workflow
from afd_tf.studies.runs import Run
from reproduction.cells import paper_cells

ONE = ["--table=4", "--scale=reduced", "--cells=resnet8_wrn10_2_afd", "--seeds=1"]


def write_one(folder):
    """Write the run of `ONE` as a finished one; return its folder."""
    [cell] = paper_cells(4, "reduced", ["resnet8_wrn10_2_afd"])
    return write_run(Run(cell, 0, folder), results("resnet8", "wrn10_2"))


def fails(arguments, capsys):
    """Return the one line that a command ends in."""
    assert reproduce.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


@pytest.mark.slow  # it loads TensorFlow
def test_a_plan_is_printed_without_notes_of_the_libraries(tmp_path):
    output, errors = start(tmp_path, *ONE, "--plan").communicate()
    assert "resnet8_wrn10_2_afd/seed_0" in output
    assert errors == ""


def test_data_that_is_not_prepared_is_said_before_the_first_run(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("AFD_TFDS_DIR", str(tmp_path))
    arguments = ["--table=4", "--scale=reduced", "--seeds=1", "--cells=afd"]
    assert reproduce.main([*arguments, f"--output={tmp_path / 'runs'}"]) == 2
    error = capsys.readouterr().err
    assert "has prepared 'cifar100'" in error
    assert str(tmp_path) in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--study", "--seeds=1"], "--seeds has no meaning with --study"),
        (["--study", "--cells=afd", "--plan"], "--cells has no meaning with --study"),
        (["--verify=x", "--scale=paper"], "--scale has no meaning with --verify"),
        (["--verify=x", "--jobs=2"], "--jobs has no meaning with --verify"),
        (["--study", "--cells="], "--cells has no meaning with --study"),
        (["--study", "--gin_file=x"], "--gin_file has no meaning with --study"),
        # Variables of a shell that are not set.
        (["--study="], "argument --study: expected a path"),
        (["--verify="], "argument --verify: expected a path"),
        (["--table=4", "--output="], "argument --output: expected a path"),
        (["--table=4", "--data_dir="], "argument --data_dir: expected a path"),
    ],
)
def test_flags_that_would_not_be_heard_are_refused(capsys, arguments, flag):
    with pytest.raises(SystemExit) as caught:
        reproduce.main(arguments)
    assert caught.value.code == 2
    assert flag in capsys.readouterr().err


def test_no_cells_are_not_all_cells(capsys, tmp_path):
    arguments = ["--table=4", "--plan", f"--output={tmp_path}"]
    for cells in ("", "afd,"):
        error = fails([*arguments, f"--cells={cells}"], capsys)
        assert "Invalid value for argument `cells`" in error
        assert "Received: ''" in error


@pytest.mark.parametrize("plan", [["--plan"], []])
@pytest.mark.parametrize("below", ["", "/runs"])
def test_an_output_that_is_a_file_is_refused(capsys, tmp_path, below, plan):
    file = tmp_path / "file"
    file.touch()
    error = fails([*ONE, *plan, f"--output={file}{below}"], capsys)
    assert "Invalid value for argument `output`" in error
    assert f"{file} is no folder" in error


def test_an_output_that_cannot_be_written_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(workflow, "_check_data", lambda runs: None)
    output = tmp_path / "runs"
    output.mkdir(mode=0)
    with without_privileges():
        error = fails([*ONE, f"--output={output}"], capsys)
    assert f"Permission denied: '{output}/resnet8_wrn10_2_afd" in error


def test_a_file_for_all_cells_that_is_not_there_is_refused(capsys, tmp_path):
    error = fails([*ONE, "--gin_file=decay_6e-4", f"--output={tmp_path}"], capsys)
    assert "Did you mean protocols/decay_5e-4.gin" in error


def test_a_file_for_all_cells_gives_them_folders_of_their_own(capsys, tmp_path):
    write_one(tmp_path)
    arguments = [*ONE, "--plan", f"--output={tmp_path}"]
    assert reproduce.main(arguments) == 0
    assert "resnet8_wrn10_2_afd/seed_0  finished" in capsys.readouterr().out
    assert reproduce.main([*arguments, "--gin_file=protocols/decay_5e-4"]) == 0
    planned = capsys.readouterr().out
    assert "resnet8_wrn10_2_afd_decay_5e-4/seed_0  to do" in planned
    assert "1 run," in planned


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", "{}", "'schema' is missing"),
        ("results.json", '{"method": "afd", ', "it is no JSON"),
        ("metrics.csv", "nothing\n1\n", "a row has no epoch and seconds"),
        ("metrics.csv", "epoch,seconds\n1,\n", "a row has no epoch and seconds"),
    ],
)
def test_a_damaged_file_of_a_finished_run_is_named(
    capsys, tmp_path, monkeypatch, file, content, message
):
    run = write_one(tmp_path)
    (run / file).write_text(content)
    monkeypatch.setattr(execution, "start", None)  # before anything is run
    verified = file == "results.json"
    arguments = [f"--verify={run}"] if verified else [*ONE, f"--output={tmp_path}"]
    assert f"{run / file}': {message}" in fails(arguments, capsys)


@pytest.mark.parametrize("content", ['{"afd": {"parameters": []}}', "{", "[]"])
def test_a_damaged_choice_of_a_study_is_named(capsys, tmp_path, content):
    design = {
        "cells": {"a": {"gin_file": "a", "seeds": 1}},
        "tuning": {"validation": 0.5, "seed": 1, "cells": {}},
    }
    (tmp_path / "design.json").write_text(json.dumps(design))
    (tmp_path / "chosen.json").write_text(content)
    error = fails([f"--study={tmp_path}", "--plan"], capsys)
    assert f"choice of a study '{tmp_path / 'chosen.json'}'" in error


@pytest.mark.parametrize("methods", [["kd", "l1_kd"], ["l1_kd"]])
def test_offline_methods_of_table_1_have_gains_over_kd(capsys, tmp_path, methods):
    accuracies = {"vanilla": 0.5, "kd": 0.6, "l1_kd": 0.65}
    names = [f"resnet8_from_wrn10_2_{method}" for method in methods]
    for cell in paper_cells(1, "reduced", names):
        method = cell.setting("method")
        networks = ["resnet8", "wrn10_2"] if method == "vanilla" else ["resnet8"]
        for seed in (0, 1):
            own = {"accuracy": accuracies[method], "method": method, "seed": seed}
            write_run(Run(cell, seed, tmp_path), results(*networks, **own))
    arguments = ["--table=1", "--scale=reduced", "--seeds=2"]
    arguments += [f"--cells={','.join(names)}", f"--output={tmp_path}"]
    assert reproduce.main(arguments) == 0
    table = capsys.readouterr().out
    assert "+15.00" in table  # over vanilla
    assert ("over kd" in table) == ("kd" in methods)
    assert ("+5.00" in table) == ("kd" in methods)


def test_a_plan_is_of_files_that_exist_and_says_what_is_missing(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("AFD_TFDS_DIR", str(tmp_path))  # which main() sets, too
    table = ["--table=4", "--scale=reduced", "--seeds=1", "--plan"]
    assert reproduce.main([*table, "--gin_file=protocols/decay"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Did you mean protocols/decay_5e-4.gin" in printed.err
    assert reproduce.main([*table, f"--data_dir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "to do" in printed
    assert "Not yet: Invalid value for argument `data_dir`." in printed


def test_a_mistyped_cell_is_told_the_nearest(capsys):
    assert reproduce.main(["--table=3", "--cells=resnet32x2_adf", "--plan"]) == 2
    assert "Did you mean 'resnet32x2_afd'?" in capsys.readouterr().err


def test_a_list_of_seeds_is_not_a_number_of_them(capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--table=3", "--seeds=0,1"])
    assert "--seeds: expected a number from 1 on, not '0,1'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nothing_runs_ends_the_tool_alike(monkeypatch, capsys, number):
    stop = lambda *_: signal.raise_signal(number)  # noqa: E731
    monkeypatch.setattr(reproduce, "paper_cells", stop)
    assert reproduce.main(["--table=4"]) == 128 + number
    assert "Continue with: tools/reproduce --table=4" in capsys.readouterr().err


def test_a_stopped_verification_is_said_to_begin_again(tmp_path, monkeypatch, capsys):
    run = write_record(tmp_path / "run", results("n"))

    def stopped(*_):
        raise execution.Stopped(signal.SIGTERM)

    monkeypatch.setattr(reproduce, "verify", stopped)
    assert reproduce.main([f"--verify={run}"]) == 143
    error = capsys.readouterr().err
    assert f"Nothing is kept. Begin with: tools/reproduce --verify={run}" in error
    assert "Continue" not in error
