"""One worker of a small run, for tests that start several processes."""

import importlib
import json
import sys


def main(prepare, workdir, changes):
    """Train as this process' arguments say.

    Args:
        prepare: str `module:function`, called first, or None.
        workdir: path.
        changes: dict of arguments of `train`; networks by the names of `small_runs`.
    """
    import small_runs

    from afd_tf import training
    from afd_tf.cli import command

    if prepare:
        module, _, function = prepare.partition(":")
        changes = getattr(importlib.import_module(module), function)(changes) or changes
    try:
        training.train(workdir, **small_runs.arguments(**changes))
    except KeyboardInterrupt as error:
        return 128 + getattr(error, "signal", 2)
    except Exception as error:
        if not command.is_mistake(error):
            raise
        print(f"mistake: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main(*json.loads(sys.argv[1])))
