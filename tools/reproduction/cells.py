"""Cells of the paper's tables, and the gin files of each.

A cell is one file, `gin/paper/table<n>_<networks>_<variant>.gin`. `<networks>` is what
it trains: names joined by `_`, `resnet32x2` for two of a kind, `resnet32_from_wrn28_4`
for one that learns from a frozen network. Cells of the same name in several tables are
one and the same run.
"""

import dataclasses
import re
from pathlib import Path

from afd_tf import config
from afd_tf.errors import InvalidValue, invalid, nearest
from afd_tf.results.comparison import BASELINES
from afd_tf.studies.runs import Cell

TABLES = {
    1: "adversarial against direct alignment of maps, offline and online",
    2: "ablation",
    3: "two networks of one architecture",
    4: "two different networks",
    5: "three networks in a cycle",
    6: "ImageNet",
    7: "similarity of the networks' maps",
}
# What gains are over in a table, where not over vanilla and DML alone: offline methods
# are with KD or without, which KD alone tells apart.
OVER = {1: (*BASELINES, "kd")}
# The table that is not one of accuracies.
SIMILARITY = 7
SCALES = ("paper", "reduced")
_FILE = re.compile(r"table(\d+)_(\w+)")
# By how many networks are trained, of how many architectures, and from a frozen one.
_REDUCED = {
    (2, 2, False): "resnet8_wrn10_2",
    (2, 1, False): "resnet8x2",
    (3, 3, False): "resnet8_resnet14_wrn10_2",
    (3, 1, False): "resnet8x3",
    (1, 1, False): "resnet8",
    (1, 1, True): "resnet8_from_wrn10_2",
}


def read_settings(files, params=()):
    """Read gin files and statements: dict of setting to value, unresolved."""
    return {s.key: s.value for s in config.read(files, params)}


def paper_cells(table, scale="paper", names=None, folder=None):
    """List a table's cells, those that others learn from first.

    Args:
        table: int.
        scale: "paper", or "reduced" for the same methods by the reduced protocol on
            small networks.
        names: cells to choose, by the names of their files or runs, or else by a part
            of them; None: all.
        folder: path of the files; default `gin/paper`.

    Returns:
        list of Cell of different names. The cells that the chosen ones learn from are
        among them.

    Raises:
        InvalidValue: for an unknown table or cell.
    """
    if table not in TABLES:
        known = "; ".join(f"{number}: {title}" for number, title in TABLES.items())
        raise invalid("table", f"one of {known}", table)
    if table == 6 and scale == "reduced":
        raise invalid(
            "scale",
            "'paper' for table 6, which is ImageNet: the reduced protocol is of "
            "CIFAR-100, and its cells are those of table 4",
            scale,
        )
    every, stems = {}, {}
    for path in sorted((folder or _folder()).glob(f"table{table}_*.gin")):
        # Of two cells that differ in their networks alone, one is left when reduced.
        own = cell(path, scale)
        every.setdefault(own.name, own)
        stems.setdefault(own.name, [own.name]).append(path.stem)
    chosen = [every[name] for name in _chosen(names, stems)]
    sources = dict.fromkeys(cell.source for cell in chosen if cell.source)
    needed = [every[name] for name in sources if name in every]
    missing = sorted(set(sources) - every.keys())
    if missing:
        raise InvalidValue(
            f"Invalid cell in table {table}. Expected the cell that others learn from "
            f"in the same table. Received: none of the name {missing[0]!r}."
        )
    return list({cell.name: cell for cell in [*needed, *chosen]}.values())


def _folder():
    return config.folders()[0] / "paper"


def _chosen(names, known):
    """List the cells of some names, in their order.

    Args:
        names: list of str, or None for all.
        known: dict of cell to the names that it goes by.
    """
    if names is None:
        return list(known)
    chosen = set()
    for name in names:
        matches = [cell for cell, own in known.items() if name in own]
        # `l1` means `..._l1` and `..._l1_kd`; a whole name means one cell.
        matches = matches or [
            cell for cell, own in known.items() if any(name in each for each in own)
        ]
        if not name or not matches:
            raise invalid(
                "cells",
                f"names of cells, or parts of them, from {', '.join(known)}",
                received=repr(name),
                hint=nearest(name, known).strip(),
            )
        chosen.update(matches)
    return [cell for cell in known if cell in chosen]


def cell(path, scale):
    """Return the cell of a file.

    Args:
        path: path.
        scale: as for `paper_cells`.

    Raises:
        InvalidValue: if it is not named after what it trains, or has no reduced scale.
    """
    settings = read_settings([path])
    # Names, or references such as @resnet20/resnet.
    trained = [getattr(n, "text", n).split("/")[0] for n in settings["train.networks"]]
    source = settings.get("train.source")
    networks = _label(trained, settings.get("train.source_network"))
    match = _FILE.fullmatch(path.stem)
    if match is None or not match[2].startswith(f"{networks}_"):
        raise InvalidValue(
            f"Invalid name of {path}. Expected table<n>_{networks}_<variant>.gin, for "
            f"what it trains. Received: {path.name}."
        )
    file = f"paper/{path.stem}" if path.parent == _folder() else str(path)
    variant = match[2].removeprefix(f"{networks}_")
    source = Path(source).parent.name if source else None
    if scale == "paper":
        return Cell(match[2], (file,), read_settings, source=source)
    kind = (len(trained), len(set(trained)), source is not None)
    if kind not in _REDUCED:
        raise InvalidValue(
            f"Invalid networks in {path}. Expected as many as a file in "
            "gin/protocols/reduced/ has, named in tools/reproduction/cells.py. "
            f"Received: {networks}."
        )
    reduced = _REDUCED[kind]
    if source:
        # The frozen network is one of a pair that learned alone.
        source = f"{_REDUCED[2, 2, False]}_{source.rpartition('_')[2]}"
    files = (file, f"protocols/reduced/{reduced}")
    return Cell(f"{reduced}_{variant}", files, read_settings, source=source)


def varied(cell, files=(), params=()):
    """Return a cell with files and statements after its own.

    With files it is another cell of another name; what it learns from is varied alike.

    Args:
        cell: Cell.
        files: list of str.
        params: list of str.
    """
    ending = "".join(f"_{Path(file).name.removesuffix('.gin')}" for file in files)
    return dataclasses.replace(
        cell,
        name=f"{cell.name}{ending}",
        files=(*cell.files, *files),
        params=(*cell.params, *params),
        source=cell.source and f"{cell.source}{ending}",
    )


def _label(trained, source_network):
    if source_network:
        return f"{'_'.join(trained)}_from_{source_network}"
    if len(trained) > 1 and len(set(trained)) == 1:
        return f"{trained[0]}x{len(trained)}"
    # The networks of one family say so once: imagenet_resnet18_resnet34.
    family = "imagenet_" if all(n.startswith("imagenet_") for n in trained) else ""
    return family + "_".join(name.removeprefix(family) for name in trained)
