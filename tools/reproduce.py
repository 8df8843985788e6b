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
from afd_tf.errors import Mistake, invalid
from afd_tf.results.comparison import BASELINES
from afd_tf.studies.execution import Stopped, stopping
from afd_tf.studies.runs import Run
from afd_tf.studies.study import Study
from afd_tf.studies.verification import find_run, is_deterministic, verify
from afd_tf.studies.workflow import complete, complete_study, print_failed
from reproduction import similarity
from reproduction.cells import (
    OVER,
    SCALES,
    SIMILARITY,
    paper_cells,
    read_settings,
    varied,
)

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "cifar100_reduced"


def main(argv=None):
    """Run the tool; return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    _check_flags(parser, options)
    command.import_tensorflow()  # before what imports it with its start-up notes
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in path:  # runs are processes of this checkout
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, path)])
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
    except (Mistake, OSError) as error:  # OSError: a disk that is full or not ours
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        arguments = sys.argv[1:] if argv is None else argv
        again = shlex.join(["tools/reproduce", *arguments])
        advice = "Nothing is kept. Begin" if options.verify else "Continue"
        print(f"\nStopped. {advice} with: {again}", file=sys.stderr)
        return 128 + stop.signal


def _parser():
    parser = argparse.ArgumentParser(
        prog="tools/reproduce",
        description=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--table", type=int, help="number of a table of the paper")
    mode.add_argument(
        "--study",
        nargs="?",
        const=str(STUDY),
        type=_path,
        help="a study's folder; default: studies/cifar100_reduced",
    )
    mode.add_argument(
        "--verify",
        metavar="RUN",
        type=_path,
        help="a finished run or its cell: run it again",
    )
    parser.add_argument(
        "--cells", help="with --table, names or parts of names, separated by commas"
    )
    parser.add_argument(
        "--gin_file",
        action="append",
        type=_path,
        help="with --table, a file after those of each cell, which makes other cells "
        "of them, e.g. protocols/decay_5e-4; may be repeated",
    )
    parser.add_argument(
        "--seeds", type=_positive, help="with --table, how many; default: 5"
    )
    parser.add_argument("--scale", choices=SCALES, help="with --table; default: paper")
    parser.add_argument("--jobs", type=_positive, help="runs at a time; default: 1")
    parser.add_argument(
        "--data_dir", type=_path, help="where the data sets are prepared"
    )
    parser.add_argument(
        "--output",
        type=_path,
        help="folder of the runs; default: runs/paper, runs/reduced or runs/<study>",
    )
    parser.add_argument(
        "--epochs", type=_positive, help="instead of the protocol's, to try things out"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan only")
    return parser


def _check_flags(parser, options):
    """Refuse flags that have no effect, then set what --table's are by default."""
    table = ("cells", "gin_file", "seeds", "scale")
    without_effect = {
        "table": (),
        "study": table,
        "verify": (*table, "jobs", "epochs", "plan"),
    }
    [mode] = [name for name in without_effect if getattr(options, name) is not None]
    for name in without_effect[mode]:
        if getattr(options, name) not in (None, False):
            parser.error(f"--{name} has no meaning with --{mode}: leave it out")
    options.seeds = options.seeds or 5
    options.scale = options.scale or "paper"
    options.jobs = options.jobs or 1


def _path(text):
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
        raise invalid(
            "output",
            "a folder, or one to make",
            received=f"output={str(output)!r}, where {nearest} is no folder",
        )
    return output


def _table(options):
    names = None if options.cells is None else options.cells.split(",")
    cells = paper_cells(options.table, options.scale, names)
    params = [f"train.epochs = {options.epochs}"] if options.epochs else []
    cells = [varied(cell, options.gin_file or [], params) for cell in cells]
    for cell in cells:
        cell.setting("method")  # reads the files, so that a plan is of what exists
    output = _folder(options, options.scale)
    runs = [Run(cell, s, output) for s in range(options.seeds) for cell in cells]
    over = OVER.get(options.table, BASELINES)
    status = complete(runs, options.jobs, plan=options.plan, over=over)
    if options.table == SIMILARITY and not options.plan:
        failed = similarity.analyse(runs)
        print(f"\nSimilarity of maps:\n\n{similarity.table(runs)}")
        print_failed(failed)
        return 1 if failed else status
    return status


def _study(options):
    output = _folder(options, Path(options.study).resolve().name)
    study = Study(options.study, output, read_settings, options.epochs)
    return complete_study(study, options.jobs, options.plan)


def _verify(options):
    studies = [STUDY, *sorted(STUDY.parent.glob("*/"))]
    folders = [*studies, _output(options, "reduced"), _output(options, "paper")]
    run = find_run(options.verify, folders)
    print(f"Running {run} again.", flush=True)
    if not is_deterministic(run, read_settings):
        print(
            "It was not deterministic (train.deterministic = False): expect last "
            "digits to differ, and accuracies as between two seeds.",
            flush=True,
        )
    differences = verify(run, read_settings)
    for difference in differences:
        print(difference)
    print(f"{run}: {'differs' if differences else 'the same to the bit'}.")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
