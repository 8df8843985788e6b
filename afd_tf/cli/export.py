"""afd-export: take one network of a run home."""

import dataclasses
import sys
from pathlib import Path

from absl import flags

from afd_tf.cli import command
from afd_tf.exports.formats import FORMATS


def _define(values):
    flags.DEFINE_string("workdir", None, "The run.", flag_values=values)
    flags.DEFINE_string(
        "network",
        None,
        "Which network, as the run names it. Default: the smallest.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "format",
        "saved_model",
        f"One of {', '.join(FORMATS)}. Default: saved_model.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "Where to; must not exist yet. Default: <workdir>/export/<network>.",
        flag_values=values,
    )


def _execute(values, arguments, argv):
    del arguments, argv
    if values.workdir is None:
        raise ValueError("Expected --workdir=DIR. See afd-export --help.")
    from afd_tf import config
    from afd_tf.runs.run_directory import RunDirectory

    run = RunDirectory(values.workdir)
    run.require()
    command.import_tensorflow()
    config.load([run.config])

    from afd_tf.exports import export, suffix
    from afd_tf.text import counted
    from afd_tf.training import construction, restoring

    settings = config.settings()
    with construction.environment(precision=settings["precision"]):
        network, name, position = restoring.restore_network(run, values.network)
        output = values.output or run.export / (name + suffix(values.format))
        report = export(
            network,
            Path(output),
            format=values.format,
            preprocessing=restoring.preprocessing(
                run, settings["dataset"], name, position.epoch
            ),
        )
    # What the run calls it: networks of one kind have one name in Keras.
    print(f"exported {position} of {dataclasses.replace(report, network=name)}")
    if not run.results.is_file():
        print(
            f"The run is not finished: it has {counted(settings['epochs'], 'epoch')}.",
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
    define=_define,
    execute=_execute,
)

main, run = command.entry_points(COMMAND)

if __name__ == "__main__":
    run()
