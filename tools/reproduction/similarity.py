"""Table 7 of the paper: similarity of the maps of a cell's networks, over its seeds.

`afd-analyse` looks at unfinished runs too, and says what it looked at. Here an analysis
counts if that is what the finished run ended with.
"""

from afd_tf.errors import Mistake
from afd_tf.files import read_json
from afd_tf.results.statistics import mean_and_deviation
from afd_tf.studies import execution
from afd_tf.text import as_table

_MEASURES = ("l1", "l2", "cosine", "cka")
_SHAPE = {"pairs": [{"networks": [str], "maps": {"cka": (float, type(None))}}]}
# What an analysis is of, as results say it.
_ANALYSED = ("epoch", "step", "weights_sha256")


def analyse(runs):
    """Let `afd-analyse` look at finished runs that it has not seen as they ended.

    Args:
        runs: list of Run.

    Returns:
        dict of the name of a run that it failed on to the reason, a str.

    Raises:
        Stopped: by a signal, after `afd-analyse` was ended.
    """
    failed = {}
    for run in (run for run in runs if run.finished and _analysis(run) is None):
        print(f"{run.name}: comparing its networks' maps", flush=True)
        with run.log.open("a", encoding="utf-8") as output:
            command_line = [*execution.program("analyse"), str(run.path)]
            status = execution.call(command_line, output)
        if status:
            failed[run.name] = f"afd-analyse ended with status {status} ({run.log})"
        elif _analysis(run) is None:
            failed[run.name] = (
                f"{_file(run)} is not of the weights that {run.path / 'results.json'} "
                "tells of"
            )
    return failed


def table(runs):
    """Lay out the mean and deviation over seeds of what `afd-analyse` found.

    Args:
        runs: list of Run; those without an analysis of how they ended are left out.

    Returns:
        str: L1, L2 and cosine (means over examples; "-" for maps of different
        channels) and linear CKA of every two networks of a cell.
    """
    measured = {}
    for run in (run for run in runs if run.finished):
        for pair in (_analysis(run) or {"pairs": []})["pairs"]:
            key = (run.cell.name, " and ".join(pair["networks"]))
            measured.setdefault(key, []).append(pair["maps"])
    rows = [["cell", "networks", "seeds", *_MEASURES]]
    for (cell, networks), maps in measured.items():
        values = [_text([each.get(measure) for each in maps]) for measure in _MEASURES]
        rows.append([cell, networks, str(len(maps)), *values])
    return as_table(rows)


def _file(run):
    return run.path / "analysis" / "analysis.json"


def _analysis(run):
    """Return the analysis of a finished run as it ended, None if there is none."""
    try:
        analysis = read_json(_file(run), _SHAPE, "analysis")
    except Mistake:  # damaged or not there: to be made again
        return None
    results = run.results()
    current = all(analysis.get(key) == results[key] for key in _ANALYSED)
    return analysis if current else None


def _text(values):
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    mean, deviation = mean_and_deviation(known)
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} +- {deviation:.4f}"
