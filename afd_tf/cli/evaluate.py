"""afd-evaluate: accuracy of a run's networks, or of an export."""

from absl import flags

from afd_tf.cli import command
from afd_tf.cli.train import flag_params


def _define(values):
    flags.DEFINE_string(
        "workdir",
        None,
        "A run: all its networks and their ensemble.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "model", None, "An exported network: its folder or file.", flag_values=values
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "With --model, what to evaluate on. Default: what it was trained on.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of prepared data sets, or of images. Default: AFD_TFDS_DIR, for images "
        "AFD_IMAGE_FOLDER; see README.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        256,
        "With --model, images at a time. Default: 256.",
        flag_values=values,
    )


def _execute(values, arguments, argv):
    del arguments, argv
    if (values.workdir is None) == (values.model is None):
        raise ValueError(
            "Expected either --workdir=DIR or --model=DIR. See afd-evaluate --help."
        )
    command.import_tensorflow()
    rows = _run_rows(values) if values.workdir else _model_rows(values)
    from afd_tf.text import as_table

    print(as_table(rows))
    return 0


def _run_rows(values):
    from afd_tf import config
    from afd_tf.runs.run_directory import RunDirectory

    run = RunDirectory(values.workdir)
    run.require()
    config.load([run.config], flag_params(values, ["data_dir"]))

    from afd_tf.training import construction, experiment, loop

    settings = config.settings()
    with construction.environment(precision=settings["precision"]):
        restored, position = experiment.restore(values.workdir, settings)
        metrics = loop.evaluate(restored)
    info, distiller = restored.info, restored.distiller
    print(
        f"{run.path}: {position} on {info.test_examples:,} images of {info.name} "
        f"({info.evaluated_split})"
    )
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
    from afd_tf.training.restoring import evaluate_export

    report = evaluate_export(
        values.model,
        dataset=values.dataset,
        data_dir=values.data_dir,
        batch_size=values.batch_size,
    )
    print(
        f"{values.model} on {report.examples:,} images of {report.dataset} "
        f"({report.split})"
    )
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
    define=_define,
    execute=_execute,
)

main, run = command.entry_points(COMMAND)

if __name__ == "__main__":
    run()
