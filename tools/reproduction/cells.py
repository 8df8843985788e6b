"""Cells of the paper's tables: which gin files a run of each is made of.

A cell is one file, `gin/paper/table<n>_<networks>_<variant>.gin`. `<networks>` is what
it trains: names joined by `_`, `resnet32x2` for two of a kind, `resnet32_from_wrn28_4`
for one that learns from a frozen network. Cells of the same name in several tables are
one and the same run.
"""

import dataclasses
import re
from pathlib import Path

from afd_tf import config
from afd_tf.errors import nearest
from afd_tf.results.comparison import BASELINES

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


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a run is made of, but for its seed.

    Attributes:
        name: str, the name of its directory.
        files: tuple of gin files, later ones winning.
        params: tuple of gin statements, which win over the files.
        source: name of the cell whose run of the same seed it learns from, or None.
    """

    name: str
    files: tuple
    params: tuple = ()
    source: str | None = None

    def setting(self, name):
        """Return what the files and statements say of `train.<name>`, or None."""
        return settings(self.files, self.params).get(name)

    def changed(self, *params):
        """Return this cell with statements added."""
        return dataclasses.replace(self, params=(*self.params, *params))

    def varied(self, files):
        """Return this cell with gin files after its own: another, with another name.

        What it learns from is varied alike.

        Args:
            files: list of str.
        """
        ending = "".join(f"_{Path(file).name.removesuffix('.gin')}" for file in files)
        return dataclasses.replace(
            self,
            name=f"{self.name}{ending}",
            files=(*self.files, *files),
            source=self.source and f"{self.source}{ending}",
        )


def settings(files, params=()):
    """Read what gin files say of `train`: dict of parameter to value, unresolved."""
    statements = config.read(files, params)
    return {s.parameter: s.value for s in statements if s.name == "train"}


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
        ValueError: for an unknown table or cell.
    """
    if table not in TABLES:
        known = "; ".join(f"{number}: {what}" for number, what in TABLES.items())
        raise ValueError(
            f"Invalid value for argument `table`. Expected one of {known}. "
            f"Received: table={table!r}."
        )
    if table == 6 and scale == "reduced":
        raise ValueError(
            "Invalid value for argument `scale`. Expected 'paper' for table 6, which "
            "is ImageNet: the reduced protocol is of CIFAR-100, and its cells are "
            "those of table 4. Received: scale='reduced'."
        )
    every, stems = {}, {}
    for path in sorted((folder or _folder()).glob(f"table{table}_*.gin")):
        # Of two cells that differ in their networks alone, one is left when reduced.
        found = cell(path, scale)
        every.setdefault(found.name, found)
        stems.setdefault(found.name, [found.name]).append(path.stem)
    chosen = [every[name] for name in _chosen(names, stems)]
    sources = dict.fromkeys(cell.source for cell in chosen if cell.source)
    needed = [every[name] for name in sources if name in every]
    missing = sorted(set(sources) - every.keys())
    if missing:
        raise ValueError(
            f"Invalid cell in table {table}. Expected the cell that others learn from "
            f"in the same table. Received: none of the name {missing[0]!r}."
        )
    return list({cell.name: cell for cell in [*needed, *chosen]}.values())


def _folder():
    return config.folders()[0] / "paper"


def _chosen(names, known):
    """List the cells that are meant, in their order.

    Args:
        names: list of str, or None for all.
        known: dict of cell to the names that it goes by.
    """
    if names is None:
        return list(known)
    meant = set()
    for name in names:
        found = [cell for cell, own in known.items() if name in own]
        # `l1` means `..._l1` and `..._l1_kd`; a whole name means one cell.
        found = found or [c for c, own in known.items() if any(name in n for n in own)]
        if not name or not found:
            raise ValueError(
                "Invalid value for argument `cells`. Expected names of cells, or parts "
                f"of them, from {', '.join(known)}. Received: {name!r}."
                f"{nearest(name, known)}"
            )
        meant.update(found)
    return [cell for cell in known if cell in meant]


def cell(path, scale):
    """Return the cell of a file.

    Args:
        path: path.
        scale: as for `paper_cells`.

    Raises:
        ValueError: if it is not named after what it trains, or has no reduced scale.
    """
    train = settings([path])
    # Names, or references such as @resnet20/resnet.
    trained = [getattr(n, "text", n).split("/")[0] for n in train["networks"]]
    source = train.get("source")
    networks = _label(trained, train.get("source_network"))
    match = _FILE.fullmatch(path.stem)
    if match is None or not match[2].startswith(f"{networks}_"):
        raise ValueError(
            f"Invalid name of {path}. Expected table<n>_{networks}_<variant>.gin, for "
            f"what it trains. Received: {path.name}."
        )
    file = f"paper/{path.stem}" if path.parent == _folder() else str(path)
    variant = match[2].removeprefix(f"{networks}_")
    source = Path(source).parent.name if source else None
    if scale == "paper":
        return Cell(match[2], (file,), source=source)
    kind = (len(trained), len(set(trained)), source is not None)
    if kind not in _REDUCED:
        raise ValueError(
            f"Invalid networks in {path}. Expected as many as a file in "
            "gin/protocols/reduced/ has, named in tools/reproduction/cells.py. "
            f"Received: {networks}."
        )
    reduced = _REDUCED[kind]
    if source:
        # The frozen network is one of a pair that learned alone.
        source = f"{_REDUCED[2, 2, False]}_{source.rpartition('_')[2]}"
    return Cell(
        f"{reduced}_{variant}", (file, f"protocols/reduced/{reduced}"), source=source
    )


def _label(trained, source_network):
    if source_network:
        return f"{'_'.join(trained)}_from_{source_network}"
    if len(trained) > 1 and len(set(trained)) == 1:
        return f"{trained[0]}x{len(trained)}"
    # The networks of one family say so once: imagenet_resnet18_resnet34.
    family = "imagenet_" if all(n.startswith("imagenet_") for n in trained) else ""
    return family + "_".join(name.removeprefix(family) for name in trained)
