"""afd-evaluate: accuracy of a run's networks, or of an export."""

from afd_tf.cli import command, flags
from afd_tf.errors import InvalidValue
from afd_tf.text import as_table, printable


def _execute(values, arguments, argv):
    del arguments, argv
    if (values.workdir is None) == (values.model is None):
        raise InvalidValue(
            "Expected either --workdir=DIR or --model=DIR. See afd-evaluate --help."
        )
    rows = _run_rows(values) if values.workdir else _model_rows(values)
    print(as_table(rows))
    return 0


def _run_rows(values):
    params = flags.as_params(values, "data_dir")
    with command.opened_run(values.workdir, params) as (run, settings):
        from afd_tf.training import restore

        restored, position = restore(run.path, settings, values.trust_source)
        metrics = restored.evaluate()
    info, distiller = restored.info, restored.distiller
    head = f"{run.path}: {position} on {info.test_examples:,} images of {info.name} "
    print(printable(f"{head}({info.evaluated_split})"))
    rows = [["network", "parameters", "accuracy", "loss"]]
    for name, network in zip(distiller.network_names, distiller.networks, strict=True):
        count = f"{network.count_params():,}"
        rows.append([name, count, *_accuracy_and_loss(metrics, name)])
    rows.append(["mean", "", f"{100 * metrics['mean_accuracy']:.2f}", ""])
    rows.append(["ensemble", "", *_accuracy_and_loss(metrics, "ensemble")])
    return rows


def _accuracy_and_loss(metrics, name):
    return f"{100 * metrics[f'{name}_accuracy']:.2f}", f"{metrics[f'{name}_loss']:.4f}"


def _model_rows(values):
    command.import_tensorflow()
    from afd_tf.exports.evaluation import evaluate_export

    report = evaluate_export(
        values.model,
        dataset=values.dataset,
        data_dir=values.data_dir,
        batch_size=values.batch_size,
    )
    head = f"{values.model} on {report.examples:,} images of {report.dataset} "
    print(printable(f"{head}({report.split})"))
    return [
        ["network", "accuracy", "loss"],
        [report.name, f"{100 * report.accuracy:.2f}", f"{report.loss:.4f}"],
    ]


COMMAND = command.Command(
    name="afd-evaluate",
    usage="--workdir=DIR | --model=DIR [flags]",
    summary="Print the accuracy in percent and the loss in nats per example: of a run "
    "on the images that it evaluates (the test set, or the part held out of the "
    "training set), of an exported network on the test set.",
    examples=(
        "afd-evaluate --workdir=runs/a",
        "afd-evaluate --model=runs/a/export/resnet20 --data_dir=tfds",
    ),
    flags=(
        flags.string("workdir", "A run: all its networks and their ensemble."),
        flags.string("model", "An exported network: its folder or file."),
        flags.string(
            "dataset",
            "With --model, what to evaluate on. Default: what it was trained on.",
        ),
        flags.DATA_DIR,
        flags.integer(
            "batch_size", "With --model, images at a time. Default: 256.", default=256
        ),
        flags.TRUST_SOURCE,
    ),
    execute=_execute,
    is_report=True,
)

main, run = command.entry_points(COMMAND)
