"""Reproduce cells of the paper's tables, or a study; started by `tools/reproduce`.

    tools/reproduce --table=4 --scale=reduced --seeds=3 --data_dir=DIR
    tools/reproduce --table=3 --cells=resnet32x2_afd,resnet32x2_dml --data_dir=DIR
    tools/reproduce --table=3 --gin_file=protocols/decay_5e-4 --data_dir=DIR
    tools/reproduce --study --data_dir=DIR
    tools/reproduce --study=studies/afd_ablation --data_dir=DIR
    tools/reproduce --verify=studies/cifar100_reduced/afd/seed_0 --data_dir=DIR

The plan is printed first. Finished runs are skipped and interrupted ones continue, so
that the same command may be stopped (Ctrl-C, SIGTERM) and started again at any time;
but a verification, which begins again.

Exit status: 0 all done, 1 a run failed or a verification found a difference, 2 a
mistake in the command, 130 and 143 stopped by SIGINT and SIGTERM.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

import afd_launcher  # noqa: F401 - TensorFlow waits
from afd_tf.cli import command

command.import_tensorflow()  # before what imports it with its start-up notes

from reproduction import contrasts, similarity
from reproduction.cells import OVER, SCALES, SIMILARITY, paper_cells
from reproduction.execution import ROOT, Execution, Stopped, stopping
from reproduction.runs import Run, seconds_left
from reproduction.study import Study
from reproduction.verification import find_run, is_deterministic, verify

from afd_tf.data.readers.tfds import data_root, find_prepared
from afd_tf.results.comparison import BASELINES, compare
from afd_tf.results.tables import text
from afd_tf.text import as_table, counted, duration

STUDY = ROOT / "studies" / "cifar100_reduced"


def main(argv=None):
    """Run the tool; return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    _check_flags(parser, options)
    if options.data_dir:
        # By the environment, so that no record holds a path of this machine.
        os.environ["AFD_TFDS_DIR"] = str(Path(options.data_dir).expanduser().resolve())
    try:
        with stopping():
            if options.verify:
                return _verify(options)
            if options.study:
                return _study(options)
            return _table(options)
    except (ValueError, OSError) as error:  # OSError: a disk that is full or not ours
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        given = sys.argv[1:] if argv is None else argv
        again = shlex.join(["tools/reproduce", *given])
        what = "Nothing is kept. Begin" if options.verify else "Continue"
        print(f"\nStopped. {what} with: {again}", file=sys.stderr)
        return 128 + stop.signal


def _parser():
    parser = argparse.ArgumentParser(
        prog="tools/reproduce",
        description=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", type=int, help="number of a table of the paper")
    what.add_argument(
        "--study",
        nargs="?",
        const=str(STUDY),
        type=_given,
        help="a study's folder; default: studies/cifar100_reduced",
    )
    what.add_argument(
        "--verify",
        metavar="RUN",
        type=_given,
        help="a finished run or its cell: run it again",
    )
    parser.add_argument(
        "--cells", help="with --table, names or parts of names, separated by commas"
    )
    parser.add_argument(
        "--gin_file",
        action="append",
        type=_given,
        help="with --table, a file after those of each cell, which makes other cells "
        "of them, e.g. protocols/decay_5e-4; may be repeated",
    )
    parser.add_argument(
        "--seeds", type=_positive, help="with --table, how many; default: 5"
    )
    parser.add_argument("--scale", choices=SCALES, help="with --table; default: paper")
    parser.add_argument("--jobs", type=_positive, help="runs at a time; default: 1")
    parser.add_argument(
        "--data_dir", type=_given, help="where the data sets are prepared"
    )
    parser.add_argument(
        "--output",
        type=_given,
        help="folder of the runs; default: runs/paper, runs/reduced or runs/<study>",
    )
    parser.add_argument(
        "--epochs", type=_positive, help="instead of the protocol's, to try things out"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan only")
    return parser


def _check_flags(parser, options):
    """Refuse flags that would not be heard, then set what --table's are by default."""
    table = ("cells", "gin_file", "seeds", "scale")
    unheard = {
        "table": (),
        "study": table,
        "verify": (*table, "jobs", "epochs", "plan"),
    }
    [mode] = [name for name in unheard if getattr(options, name) is not None]
    for name in unheard[mode]:
        if getattr(options, name) not in (None, False):
            parser.error(f"--{name} has no meaning with --{mode}: leave it out")
    options.seeds = options.seeds or 5
    options.scale = options.scale or "paper"
    options.jobs = options.jobs or 1


def _given(text):
    """Take a path; an empty one, such as a shell's unset variable, would be lost."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, received an empty one")
    return text


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, not {text!r}")
    return int(text)


def _output(options, default):
    # Another number of epochs is another run.
    tried = f"_{options.epochs}_epochs" if options.epochs else ""
    return Path(options.output or f"runs/{default}{tried}")


def _folder(options, default):
    """Return where runs are to be, which must be a folder or nothing yet."""
    output = _output(options, default)
    above = (output, *output.absolute().parents)
    nearest = next(path for path in above if os.path.lexists(path))
    if not nearest.is_dir():
        raise ValueError(
            "Invalid value for argument `output`. Expected a folder, or one to make. "
            f"Received: output={str(output)!r}, where {nearest} is no folder."
        )
    return output


def _table(options):
    names = None if options.cells is None else options.cells.split(",")
    cells = paper_cells(options.table, options.scale, names)
    cells = [cell.varied(options.gin_file or []) for cell in cells]
    for cell in cells:
        cell.setting("method")  # reads the files, so that a plan is of what exists
    if options.epochs:
        cells = [cell.changed(f"train.epochs = {options.epochs}") for cell in cells]
    output = _folder(options, options.scale)
    runs = [Run(cell, s, output) for s in range(options.seeds) for cell in cells]
    status = _execute(runs, options, over=OVER.get(options.table, BASELINES))
    if options.table == SIMILARITY and not options.plan:
        failed = similarity.analyse(runs)
        print(f"\nSimilarity of maps:\n\n{similarity.table(runs)}")
        _say_failed(failed)
        return 1 if failed else status
    return status


def _study(options):
    output = _folder(options, Path(options.study).resolve().name)
    study = Study(options.study, output, options.epochs)
    tuning = study.tuning_runs()
    chosen = study.choose(write=not options.plan)
    if options.plan:
        return _execute([*tuning, *study.final_runs(chosen)], options)
    failed = {}
    if len(chosen) < len(study.tuning["cells"]):
        print("Tuning, on held-out images, and what is chosen already:", flush=True)
        failed = _do([*tuning, *study.final_runs(chosen)], options)
        chosen = study.choose()
    for name, choice in chosen.items():
        print(f"{name}: {choice['parameters'][0]} = {choice['value']}")
    for name in study.without_choice(chosen):
        failed[name] = "a run that its value would be chosen by failed"
    if study.tuning["cells"]:
        print("\nFinal runs:", flush=True)
    runs = study.final_runs(chosen)
    status = _execute(runs, options, failed, study.over)
    accuracies = contrasts.of_runs(runs)
    for title, pairs in (
        ("Planned contrasts", study.contrasts),
        ("Exploratory contrasts, not corrected", study.exploratory),
    ):
        if found := contrasts.estimate(accuracies, pairs):
            corrected = pairs is study.contrasts
            print(f"\n{title}, pooled error:\n{contrasts.table(found, corrected)}")
    return status


def _execute(runs, options, failed=(), over=BASELINES):
    """Print the plan, do it, end in a table; return the exit status."""
    if options.plan:
        _print_plan(runs, options.jobs)
        try:
            _check_data(runs)
        except ValueError as error:
            print(f"\nNot yet: {error}")
        return 0
    failed = {**dict(failed), **_do(runs, options)}
    finished = [run.kept for run in runs if run.finished]
    # A cell that failed is no baseline.
    known = {*BASELINES}
    for cell in (run.cell for run in runs if run.finished):
        known |= {cell.name, cell.setting("method")}
    over = [name for name in over if name in known]
    print(f"\n{text(compare(finished, over)) if finished else 'No run is finished.'}")
    _say_failed(failed)
    return 1 if failed else 0


def _say_failed(failed):
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)


def _do(runs, options):
    _print_plan(runs, options.jobs)
    _check_data(runs)
    return Execution(runs, options.jobs).execute()


def _check_data(runs):
    """Say before the first run which data set is not prepared."""
    wanted = {run.cell.setting("dataset") for run in runs if not run.finished}
    root = data_root(None)
    for name in sorted(filter(None, wanted)):
        known = name in ("digits", "image_folder") or os.sep in name
        if not known and find_prepared(root, name, None, None) is None:
            raise ValueError(
                "Invalid value for argument `data_dir`. Expected the folder in which "
                f"tensorflow-datasets has prepared {name!r}. Received: {root!r}. "
                "A first `afd-train` with --gin_param='load_data.download = True' "
                "downloads and prepares what its owner lets it."
            )


def _print_plan(runs, jobs):
    for run in runs:
        run.check_settings()
    rows = [["run", "status"], *([run.name, run.status()] for run in runs)]
    seconds = seconds_left(runs, jobs)
    left = "not known before an epoch is done" if seconds is None else duration(seconds)
    print(
        f"{as_table(rows)}\n{counted(len(runs), 'run')}, time left: {left}\n",
        flush=True,
    )


def _verify(options):
    studies = [STUDY, *sorted(STUDY.parent.glob("*/"))]
    folders = [*studies, _output(options, "reduced"), _output(options, "paper")]
    run = find_run(options.verify, folders)
    print(f"Running {run} again.", flush=True)
    if not is_deterministic(run):
        print(
            "It was not deterministic (train.deterministic = False): expect last "
            "digits to differ, and accuracies as between two seeds.",
            flush=True,
        )
    found = verify(run)
    for difference in found:
        print(difference)
    print(f"{run}: {'differs' if found else 'the same to the bit'}.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
