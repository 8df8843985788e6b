"""The way of a command through its runs: plan, data, execution, table, contrasts."""

import os
import sys

from afd_tf.errors import Mistake, invalid
from afd_tf.results.comparison import BASELINES, compare
from afd_tf.results.tables import text
from afd_tf.studies import contrasts
from afd_tf.studies.execution import Execution
from afd_tf.studies.runs import seconds_left
from afd_tf.text import as_table, counted, duration


def complete_study(study, jobs=1, plan=False):
    """Tune what a study tunes, do its final runs, print their table and contrasts.

    Args:
        study: Study.
        jobs: int >= 1, runs at a time.
        plan: bool, whether to print the plan only.

    Returns:
        int, the exit status: 1 if a run failed.

    Raises:
        Mistake: before the first run, if settings, data or files are not right.
        Stopped: by a signal, after all processes have ended.
    """
    tuning = study.tuning_runs()
    chosen = study.choose(write=not plan)
    if plan:
        return complete([*tuning, *study.final_runs(chosen)], jobs, plan=True)
    failed = {}
    if len(chosen) < len(study.tuning["cells"]):
        print("Tuning, on held-out images, and what is chosen already:", flush=True)
        failed = _execute([*tuning, *study.final_runs(chosen)], jobs)
        chosen = study.choose()
    for name, choice in chosen.items():
        print(f"{name}: {choice['parameters'][0]} = {choice['value']}")
    for name in study.without_choice(chosen):
        failed[name] = "a run that its value would be chosen by failed"
    if study.tuning["cells"]:
        print("\nFinal runs:", flush=True)
    runs = study.final_runs(chosen)
    status = complete(runs, jobs, failed=failed, over=study.over)
    accuracies = contrasts.accuracies_of(runs)
    for title, pairs in (
        ("Planned contrasts", study.contrasts),
        ("Exploratory contrasts, not corrected", study.exploratory),
    ):
        if estimated := contrasts.estimate(accuracies, pairs):
            corrected = pairs is study.contrasts
            print(f"\n{title}, pooled error:\n{contrasts.table(estimated, corrected)}")
    return status


def complete(runs, jobs=1, *, plan=False, failed=(), over=BASELINES):
    """Print the plan of some runs, do what is left of them, print their table.

    Args:
        runs: list of Run.
        jobs: int >= 1, runs at a time.
        plan: bool, whether to print the plan only.
        failed: dict of name to reason, what failed before.
        over: list of str, see `afd_tf.results.comparison.compare`.

    Returns, Raises: as `complete_study`.
    """
    if plan:
        _print_plan(runs, jobs)
        try:
            _check_data(runs)
        except Mistake as error:
            print(f"\nNot yet: {error}")
        return 0
    failed = {**dict(failed), **_execute(runs, jobs)}
    finished = [run.kept for run in runs if run.finished]
    # A cell that failed is no baseline.
    known = {*BASELINES}
    for cell in (run.cell for run in runs if run.finished):
        known |= {cell.name, cell.setting("method")}
    over = [name for name in over if name in known]
    print(f"\n{text(compare(finished, over)) if finished else 'No run is finished.'}")
    print_failed(failed)
    return 1 if failed else 0


def print_failed(failed):
    """Print what failed to stderr: dict of name to reason."""
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)


def _execute(runs, jobs):
    _print_plan(runs, jobs)
    _check_data(runs)
    return Execution(runs, jobs).execute()


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


def _check_data(runs):
    """Check before the first run that every data set is prepared."""
    names = {run.cell.setting("dataset") for run in runs if not run.finished}
    if not names:
        return
    # With it comes TensorFlow.
    from afd_tf.data.readers.prepared import data_root, find_prepared
    from afd_tf.data.readers.reader import READERS

    root = data_root(None)
    for name in sorted(filter(None, names)):
        own = name in READERS or os.sep in name
        if not own and find_prepared(root, name, None, None) is None:
            raise invalid(
                "data_dir",
                f"the folder in which tensorflow-datasets has prepared {name!r}",
                received=repr(root),
                hint="A first `afd-train` with --gin_param='load_data.download = True' "
                "downloads and prepares what its owner lets it.",
            )
