"""afd-train: train networks together."""

import signal
import sys
from pathlib import Path

from afd_tf.cli import command, flags

# Flags that are settings, too.
_SETTINGS = (
    flags.DATA_DIR,
    flags.integer("seed", "Initial weights, order of the data. Default: 0."),
    flags.boolean("deterministic", "Same result to the bit; slower."),
    flags.integer("checkpoint_steps", "Save after so many steps, too. Default: off."),
    flags.number(
        "checkpoint_minutes",
        "Save after so many minutes; besides after every epoch. Default: 10.",
    ),
    flags.choice(
        "strategy",
        ["auto", "single", "mirrored", "multi_worker"],
        "One device, several, or several processes: start the command once for each "
        "worker, with --workers and --task, TF_CONFIG, or by srun. Default: auto.",
    ),
    flags.string(
        "workers",
        "host:port of all workers, separated by commas, the same on each. The first "
        "is the chief, which alone writes the run directory; all must see it.",
    ),
    flags.integer("task", "Which of the workers this process is, from 0."),
    flags.number(
        "worker_timeout", "Seconds to wait for all workers to join. Default: 300."
    ),
)


def default_workdir(files, seed, default_pairing):
    """Return `runs/<name of the last gin file>-<seed>`."""
    return Path("runs") / f"{Path((files or [default_pairing])[-1]).stem}-{seed}"


def _execute(values, arguments, argv):
    del arguments
    from afd_tf import config

    names = [define.args[0] for define in _SETTINGS]
    params = [*values.gin_param, *flags.as_params(values, *names)]
    statements = config.read(values.gin_file, params)
    command.import_tensorflow()
    text = config.bind(statements)

    from afd_tf.devices.clusters import is_chief
    from afd_tf.results import tables
    from afd_tf.runs.provenance import Provenance, command_line
    from afd_tf.training import RunDirectory, Settings

    settings = Settings(**config.settings())
    workdir = values.workdir or default_workdir(
        values.gin_file, settings.seed, config.DEFAULT_PAIRING
    )
    run = RunDirectory(workdir)
    chief = is_chief(settings.strategy, settings.workers, settings.task)
    if not chief:
        print(f"{run.path}: the chief writes it; this worker trains.")
    elif values.workdir or not values.dry_run:
        run.check(text)
        if run.results.is_file():
            print(f"{run.path}: finished before.")
    again = command_line("afd-train", argv)
    provenance = Provenance(text, config.operative_text, again)
    try:
        outcome = config.call(
            "train",
            workdir=workdir,
            dry_run=values.dry_run,
            provenance=provenance,
            trust_source=values.trust_source,
        )
    except KeyboardInterrupt as error:
        what = "Continue with" if run.config.exists() else "Nothing is left. Start with"
        number = getattr(error, "signal", signal.SIGINT)
        saved = getattr(error, "position", None)
        where = f" and saved after {saved}" if saved else ""
        print(f"\nafd-train: interrupted{where}. {what}: {again}", file=sys.stderr)
        return 128 + number
    if outcome and chief:
        print(f"\n{tables.run_table(outcome)}")
    return 0


COMMAND = command.Command(
    name="afd-train",
    usage="[--gin_file=FILE] [--workdir=DIR] [flags]",
    summary="Train two or more networks together, by feature-map-level adversarial "
    "distillation unless the configuration says otherwise, and leave the run in a "
    "directory.",
    examples=(
        "afd-train",
        "afd-train --gin_file=pairings/cifar100_resnet20_wrn16_2 --data_dir=tfds "
        "--workdir=runs/a",
        "afd-train --gin_param='train.method = \"dml\"' --workdir=runs/dml",
        "afd-train --gin_file=pairings/cifar100_resnet32x2 --dry_run",
    ),
    flags=(
        flags.GIN_FILE,
        flags.GIN_PARAM,
        flags.string(
            "workdir",
            "Where the run is kept. The same command again continues an interrupted "
            "run. Default: runs/<name of the gin file>-<seed>.",
        ),
        *_SETTINGS,
        flags.boolean(
            "dry_run",
            "Load the data, show what would be trained, train nothing.",
            default=False,
        ),
        flags.TRUST_SOURCE,
    ),
    execute=_execute,
)

main, run = command.entry_points(COMMAND)
