"""The rules of the house that a machine can check: who may import whom, and sizes."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "afd_tf"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lowest first: a part imports parts of lower levels, never its neighbours on its own.
LEVELS = [
    "_version errors text",
    "files",
    "losses runs",
    "networks results data devices",
    "methods",
    "distillation",
    "distiller",
    "analysis exports",
    "training",
    "config",
    "studies",
    "cli",
]
LEVEL = {part: i for i, parts in enumerate(LEVELS) for part in parts.split()}
LOOSE = {"__init__", "_version", "distiller", "errors", "files", "text"}

# What a part may import from outside, where that is limited.
NUMERIC = {"keras", "numpy", "tensorflow"}
OUTSIDE = {
    "_version": set(),
    "errors": set(),
    "files": set(),
    "text": set(),
    "runs": set(),
    "losses": NUMERIC,
    "results": {"matplotlib", "scipy"},
    "studies": {"numpy", "scipy"},
    "analysis": {*NUMERIC, "matplotlib"},
}


def imports(source):
    """Yield (line, dotted name) of all imports, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module}.{alias.name}"


def violations(module, source):
    """List what `source`, as the module of this dotted name, may not import."""
    part = module.split(".")[1]
    if part not in LEVEL:
        return [f"{module}: belongs to no level, add it to LEVELS"]
    found = []
    for line, name in imports(source):
        where = f"{module}:{line}: {part} imports {name}"
        top, *rest = name.split(".")
        if top == "":
            found.append(f"{where}, which is relative")
        elif top == "afd_tf":
            other = rest[0] if rest else ""
            if other not in LEVEL:
                found.append(f"{where}, which is no part of the package")
            elif other != part and LEVEL[other] >= LEVEL[part]:
                found.append(f"{where}, against the direction of imports")
        elif top == "gin" and part not in {"config", "cli"}:
            found.append(f"{where}; only the configuration and the commands may")
        elif name.startswith("absl.flags") and part != "cli":
            found.append(f"{where}; only the commands may")
        elif part in OUTSIDE and top not in OUTSIDE[part] | sys.stdlib_module_names:
            found.append(f"{where}, more than {part} needs")
    return found


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_imports_go_one_way():
    found = []
    for path in MODULES:
        if path.parent == PACKAGE and path.name == "__init__.py":
            continue  # the public names come from everywhere, on first use
        found += violations(dotted(path), path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


def test_the_package_itself_imports_neither_gin_nor_flags():
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    tops = {name.split(".")[0] for _, name in imports(source)}
    assert tops <= sys.stdlib_module_names | {"afd_tf"}


def test_only_these_modules_stand_loose():
    assert {path.stem for path in PACKAGE.glob("*.py")} <= LOOSE


def test_every_arrow_is_found_when_it_is_reversed():
    arrows = {
        (part, name.split(".")[1])
        for path in MODULES
        for part in [dotted(path).split(".")[1]]
        for _, name in imports(path.read_text(encoding="utf-8"))
        if part in LEVEL and name.startswith("afd_tf.") and name.split(".")[1] != part
    }
    assert len(arrows) > 30
    for upper, lower in arrows:
        assert violations(f"afd_tf.{lower}.x", f"from afd_tf.{upper} import y")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("afd_tf.losses.logits", "from afd_tf import networks"),
        ("afd_tf.losses.logits", "import scipy"),
        ("afd_tf.results.tables", "import tensorflow as tf"),
        ("afd_tf.runs.provenance", "import numpy as np"),
        ("afd_tf.networks.tap", "from afd_tf.data import load"),
        ("afd_tf.distillation.step", "def f():\n    from afd_tf import training"),
        ("afd_tf.data.load", "import gin"),
        ("afd_tf.training.experiment", "from absl import flags"),
        ("afd_tf.training.experiment", "import afd_tf"),
        ("afd_tf.training.loop", "from . import outcome"),
        ("afd_tf.something_new", ""),
    ],
)
def test_a_wrong_import_is_found(module, line):
    assert violations(module, line)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("afd_tf.cli.train", "from absl import flags\nimport gin"),
        ("afd_tf.config.binding", "import gin"),
        ("afd_tf.distiller", "from afd_tf import losses, methods, networks"),
        ("afd_tf.losses.logits", "import math\nfrom keras import ops"),
        ("afd_tf.data.load", "from absl import logging"),
    ],
)
def test_a_right_import_is_not(module, line):
    assert violations(module, line) == []


def test_errors_are_raised_not_asserted():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert not found, f"`assert` in the library: {found}"


def test_files_hold_one_thing():
    tools = sorted((ROOT / "tools").rglob("*.py"))
    long = {
        str(path.relative_to(ROOT)): length
        for path in [*MODULES, *tools]
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > 520
    }
    assert not long, f"more than 520 lines: {long}"


def test_no_file_names_a_place_of_somebodys_machine():
    place = re.compile(r"(?<![\w.~-])/(home|Users|root|work|mnt|scratch)/\w")
    folders = ["afd_tf", "gin", "tools", "tests", "docs", "studies", ".ci"]
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.is_file()]
    files += [p for p in ROOT.glob("*") if p.suffix in {".py", ".md", ".toml", ".cff"}]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if "__pycache__" not in path.parts
        for match in place.finditer(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not found, "\n".join(found)
