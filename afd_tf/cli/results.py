"""afd-results: one table of any runs."""

from pathlib import Path

from afd_tf.cli import command


def _define(values):
    del values


def _execute(values, arguments, argv):
    del values, argv
    if not arguments:
        raise ValueError("Expected at least one run directory. See afd-results --help.")
    for argument in arguments:
        if not Path(argument).is_dir():
            raise ValueError(f"Expected a run directory. Received: {argument!r}.")
    from afd_tf.training.tables import compare

    table, remarks = compare(arguments)
    if not table:
        raise ValueError(" ".join(["Expected at least one finished run.", *remarks]))
    print(table)
    for remark in remarks:
        print(remark)
    return 0


COMMAND = command.Command(
    name="afd-results",
    usage="DIR...",
    summary="Print one table of runs: accuracy in percent of the last epoch, mean +- "
    "standard deviation over the seeds of one configuration, for every network, their "
    "mean and their ensemble. Runs that are not finished are named.",
    examples=("afd-results runs/*",),
    define=_define,
    execute=_execute,
    takes_arguments=True,
)

main, run = command.entry_points(COMMAND)

if __name__ == "__main__":
    run()
