"""afd-export: take one network of a run home."""

import dataclasses
import sys
from pathlib import Path

from afd_tf.cli import command, flags
from afd_tf.errors import InvalidValue
from afd_tf.exports.formats import FORMATS
from afd_tf.text import counted, printable


def _execute(values, arguments, argv):
    del arguments, argv
    if values.workdir is None:
        raise InvalidValue("Expected --workdir=DIR. See afd-export --help.")
    with command.opened_run(values.workdir) as (run, settings):
        from afd_tf.exports import export, suffix
        from afd_tf.training import restoring

        network, name, position = restoring.restore_network(run, values.network)
        output = values.output or run.export / (name + suffix(values.format))
        report = export(
            network,
            Path(output),
            format=values.format,
            preprocessing=restoring.preprocessing(
                run, settings.dataset, name, position.epoch
            ),
        )
    # What the run calls it: networks of one kind have one name in Keras.
    report = dataclasses.replace(report, network=name)
    print(printable(f"exported {position} of {report}"))
    if not run.results.is_file():
        print(
            f"The run is not finished: it has {counted(settings.epochs, 'epoch')}.",
            file=sys.stderr,
        )
    return 0


COMMAND = command.Command(
    name="afd-export",
    usage="--workdir=DIR [--network=NAME] [flags]",
    summary="Write one network of a run, and nothing else of its training, as a file "
    "that runs without this package. What is written is read back and compared.",
    examples=(
        "afd-export --workdir=runs/a --network=resnet20",
        "afd-export --workdir=runs/a --network=resnet20 --format=keras "
        "--output=resnet20.keras",
    ),
    flags=(
        flags.string("workdir", "The run."),
        flags.string(
            "network", "Which network, as the run names it. Default: the smallest."
        ),
        flags.string(
            "format",
            f"One of {', '.join(FORMATS)}. Default: saved_model.",
            default="saved_model",
        ),
        flags.string(
            "output",
            "Where to; must not exist yet. Default: <workdir>/export/<network>.",
        ),
    ),
    execute=_execute,
)

main, run = command.entry_points(COMMAND)
