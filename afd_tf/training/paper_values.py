"""What the paper reports for a configuration, as far as it is known."""

import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

_FILE = Path(__file__).with_name("paper_values.json")
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


def find(results, protocol):
    """Return what is known for the networks of a run.

    Args:
        results: dict, the content of `results.json`.
        protocol: dict of setting to text, what the run differs from another in that
            cannot be compared with it; see `afd_tf.training.comparison`.

    Returns:
        dict of network to PaperValue; empty unless data set, method, networks and
        protocol are the paper's.
    """
    if any(protocol.get(f"load_data.{key}") for key in ("per_class", "test_split")):
        return {}
    if float(protocol.get("train.validation", 0)):
        return {}
    plain = {
        name: _architecture(name, results["networks"]) for name in results["networks"]
    }
    for entry in table()["values"]:
        wanted = {key: entry.get(key) for key in ("dataset", "method")}
        given = {key: results[key] for key in wanted}
        same = all(
            str(entry[key]) == protocol.get(f"train.{key}")
            for key in ("epochs", "batch_size")
            if key in entry
        )
        if wanted == given and same and entry["networks"] == list(plain.values()):
            return {
                name: PaperValue(entry["percent"][architecture], entry["mark"])
                for name, architecture in plain.items()
            }
    return {}


def _architecture(name, names):
    """Return `resnet32` for the `resnet32_2` beside it, and without its family."""
    original = _COPY.sub("", name)
    name = original if original in names else name
    return name.removeprefix("imagenet_")
