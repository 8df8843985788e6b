"""Console scripts: flags, help and typos are handled before TensorFlow is loaded.

`afd_tf` imports its parts, and with them TensorFlow, unless this module is loaded. It
stands outside of the package so that it can be loaded first. `python -m afd_launcher
train ...` runs a command where no console script is installed.
"""

import functools
import importlib
import sys


def _run(command):
    importlib.import_module(f"afd_tf.cli.{command}").run()


train = functools.partial(_run, "train")
evaluate = functools.partial(_run, "evaluate")
export = functools.partial(_run, "export")
results = functools.partial(_run, "results")
analyse = functools.partial(_run, "analyse")

COMMANDS = ("train", "evaluate", "export", "results", "analyse")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        usage = f"usage: python -m afd_launcher {'|'.join(COMMANDS)} [flags]"
        print(usage, file=sys.stderr)
        sys.exit(2)
    # Under its own name, which `afd_tf` looks for.
    importlib.import_module("afd_launcher")
    _run(sys.argv.pop(1))
