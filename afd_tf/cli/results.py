"""afd-results: one table of any runs."""

import contextlib
import errno
import os
import sys
import tempfile
from pathlib import Path

from afd_tf.cli import command, flags
from afd_tf.errors import InvalidValue, invalid
from afd_tf.files import write_text


def _execute(values, arguments, argv):
    del argv
    if not arguments:
        raise InvalidValue(
            "Expected at least one run directory. See afd-results --help."
        )
    for argument in arguments:
        if not Path(argument).is_dir():
            raise InvalidValue(f"Expected a run directory. Received: {argument!r}.")
    from afd_tf.results import chart, tables
    from afd_tf.results.comparison import compare

    if values.chart:
        chart.check_path(values.chart)
    for flag in ("chart", "output"):
        _check_file(flag, values[flag].value)
    comparison = compare(arguments, values.over)
    if not comparison.tables:
        raise InvalidValue(
            " ".join(["Expected at least one finished run.", *comparison.remarks])
        )
    table = tables.FORMATS[values.format](comparison)
    if values.chart:
        with _writing("chart", values.chart):
            chart.draw(comparison, values.chart)
        print(f"Chart: {values.chart}", file=sys.stderr)
    if values.output:
        with _writing("output", values.output):
            write_text(values.output, f"{table}\n")
    else:
        print(table)
    return 0


def _check_file(flag, path):
    """Check that a file can be written where a flag says, while nothing is done yet."""
    if not path:
        return
    with _writing(flag, path):
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=Path(path).parent):
            pass


@contextlib.contextmanager
def _writing(flag, path):
    try:
        yield
    except OSError as error:
        received = f"--{flag}={path} ({error.strerror})"
        expected = "a file in a folder that can be written"
        raise invalid(flag, expected, received=received) from error


COMMAND = command.Command(
    name="afd-results",
    usage="DIR... [flags]",
    summary="Print a table of runs: accuracy in percent of the last epoch, mean +- "
    "standard deviation over the seeds of one configuration, for every network, their "
    "mean and their ensemble; the gain over vanilla and over DML, or what --over says, "
    "by the seeds in common, with the 95% confidence interval and p of the paired "
    "t-test; and what the paper reports, where it is known. A folder stands for all "
    "runs in it. Runs of different protocols (data, epochs, batch, ...) are in tables "
    "of their own; other settings in which a configuration differs from its baseline "
    "are named. Runs that are not finished are named.",
    examples=(
        "afd-results runs/*",
        "afd-results runs/vanilla runs/afd --format=markdown --chart=results.png",
        "afd-results studies/cifar100_reduced --over=vanilla,dml,l1_kd",
    ),
    flags=(
        flags.choice(
            "format",
            ["text", "markdown", "csv"],
            "How to write the table. Default: text.",
            default="text",
        ),
        flags.strings(
            "over",
            "What gains are over: configurations (names of their folders) or methods. "
            "A baseline itself has gains over those before it.",
            default=["vanilla", "dml"],
        ),
        flags.string("output", "Write the table to this file."),
        flags.string(
            "chart",
            "Draw the table to this file, e.g. results.png; runs of one protocol.",
        ),
    ),
    execute=_execute,
    is_report=True,
    takes_arguments=True,
)

main, run = command.entry_points(COMMAND)
