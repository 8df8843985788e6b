"""What would be trained, as text."""

from afd_tf.text import counted


def describe(experiment):
    """Describe networks, taps, discriminators, optimizers, schedules, data and steps.

    Args:
        experiment: Experiment.

    Returns:
        str of several lines.
    """
    info, epochs = experiment.info, experiment.epochs
    lines = []
    experiment.distiller.summary(print_fn=lines.append)
    height, width, channels = info.image_shape
    lines.append(
        f"data: {info.name}, {height}x{width}x{channels}, {info.num_classes} classes, "
        f"{info.train_examples:,} images to train on, {info.test_examples:,} to "
        f"evaluate on ({info.evaluated_split})"
    )
    lines.append(
        f"steps: {counted(epochs, 'epoch')} x {info.steps_per_epoch} = "
        f"{epochs * info.steps_per_epoch:,}, of {info.batch_size} images"
    )
    return "\n".join(lines)
