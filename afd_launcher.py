"""Console scripts: flags, help and typos are handled before TensorFlow is loaded.

`afd_tf` imports its parts, and with them TensorFlow, unless this module is loaded. It
stands outside of the package so that it can be loaded first. `python -m afd_launcher
train ...` runs a command where no console script is installed.
"""

import importlib
import sys


def _run(command):
    importlib.import_module(f"afd_tf.cli.{command}").run()


def train():
    """Run afd-train."""
    _run("train")


def evaluate():
    """Run afd-evaluate."""
    _run("evaluate")


def export():
    """Run afd-export."""
    _run("export")


def results():
    """Run afd-results."""
    _run("results")


def analyse():
    """Run afd-analyse."""
    _run("analyse")


if __name__ == "__main__":
    # Under its own name, which `afd_tf` looks for.
    importlib.import_module("afd_launcher")
    _run(sys.argv.pop(1))
