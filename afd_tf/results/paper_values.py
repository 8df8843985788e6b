"""Accuracies that the paper reports, for runs of its configurations."""

import ast
import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

_FILE = Path(__file__).with_name("paper_values.json")
# Told by the results, or without an effect on a network's accuracy.
_FREE = (
    "train.dataset",
    "train.method",
    "train.networks",
    "OnlineDistiller.ensemble",
)
_COPY = re.compile(r"_([2-9])$")


class PaperValue(NamedTuple):
    """An accuracy in percent, and the mark of where it is known from."""

    percent: float
    mark: str

    def __str__(self):
        return f"{self.percent:.2f} [{self.mark}]"


@functools.cache
def table():
    """Return the content of `paper_values.json`, the one place of these numbers."""
    return json.loads(_FILE.read_text(encoding="utf-8"))


def find(results, settings):
    """Return what is known for the networks of a run.

    Only for a run of the paper's configuration, as gin/paper has it, known values and
    our choices alike. A setting of the run must be one of `_FREE`, or have the value
    that `paper_values.json` has of it; one that is not there shows that something else
    was done. What the file has under "protocols" must be set, the rest may be absent.

    Args:
        results: dict, the content of `results.json`.
        settings: dict of setting to text, without those that are None or that change no
            result; see `afd_tf.results.finished_runs`.

    Returns:
        dict of network to PaperValue; empty unless data set, method, networks and all
        settings are the paper's.
    """
    if not _is_papers(results["dataset"], settings):
        return {}
    plain = {
        name: _architecture(name, results["networks"]) for name in results["networks"]
    }
    for entry in table()["values"]:
        wanted = {key: entry[key] for key in ("dataset", "method")}
        given = {key: results[key] for key in wanted}
        if wanted == given and entry["networks"] == list(plain.values()):
            return {
                name: PaperValue(entry["percent"][architecture], entry["mark"])
                for name, architecture in plain.items()
            }
    return {}


def _is_papers(dataset, settings):
    protocol = table()["protocols"].get(dataset)
    if protocol is None or not protocol.keys() <= settings.keys():
        return False
    every = table()["settings"]
    papers = {**every["all"], **every[dataset], **protocol}
    return all(
        key in papers and _value(text) == papers[key]
        for key, text in settings.items()
        if key not in _FREE
    )


def _value(text):
    """Return a setting's value as JSON has it; a reference to a configurable as is."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value


def _architecture(name, names):
    """Return `resnet32` for the `resnet32_2` beside it, and without its family."""
    original = _COPY.sub("", name)
    name = original if original in names else name
    return name.removeprefix("imagenet_")
