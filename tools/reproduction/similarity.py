"""The paper's table 7: how alike the maps of a cell's networks are, over its seeds."""

import signal

from afd_tf.files import read_json
from afd_tf.training.formatting import layout
from afd_tf.training.statistics import mean_and_deviation
from reproduction import execution

_MEASURES = ("l1", "l2", "cosine", "cka")
_SHAPE = {"pairs": [{"networks": [str], "maps": {"cka": (float, type(None))}}]}


def analyse(runs):
    """Let `afd-analyse` look at finished runs that it has not seen.

    Args:
        runs: list of Run.

    Returns:
        dict of the name of a run that it failed on to the reason, a str.

    Raises:
        Stopped: by a Ctrl-C.
    """
    failed = {}
    for run in (run for run in runs if run.finished and not _file(run).is_file()):
        print(f"{run.name}: comparing its networks' maps", flush=True)
        with run.log.open("a", encoding="utf-8") as output:
            process = execution.start([str(run.path)], output, "analyse")
            try:
                status = process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise execution.Stopped(signal.SIGINT) from None
        if status:
            failed[run.name] = f"afd-analyse ended with status {status} ({run.log})"
    return failed


def table(runs):
    """Lay out the mean and deviation over seeds of what `afd-analyse` found.

    Args:
        runs: list of Run; those without an analysis are left out.

    Returns:
        str: L1, L2 and cosine (means over examples; "-" for maps of different
        channels) and linear CKA of every two networks of a cell.
    """
    found = {}
    for run in runs:
        if _file(run).is_file():
            analysis = read_json(_file(run), _SHAPE, "analysis")
            for pair in analysis["pairs"]:
                key = (run.cell.name, " and ".join(pair["networks"]))
                found.setdefault(key, []).append(pair["maps"])
    rows = [["cell", "networks", "seeds", *_MEASURES]]
    for (cell, networks), maps in found.items():
        values = [_text([each.get(measure) for each in maps]) for measure in _MEASURES]
        rows.append([cell, networks, str(len(maps)), *values])
    return layout(rows)


def _file(run):
    return run.path / "analysis" / "analysis.json"


def _text(values):
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    mean, deviation = mean_and_deviation(known)
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} +- {deviation:.4f}"
