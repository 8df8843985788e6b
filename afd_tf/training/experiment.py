"""Experiments: data, networks and the compiled distiller, built from settings."""

import contextlib
import dataclasses
import functools
import inspect
from typing import Any

import keras
import tensorflow as tf

from afd_tf import data, methods
from afd_tf import networks as afd_networks
from afd_tf.devices import strategies
from afd_tf.distiller import OnlineDistiller
from afd_tf.errors import invalid
from afd_tf.runs.data_record import data_digest, read_data
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.text import counted
from afd_tf.training import failures
from afd_tf.training.checkpoints import no_checkpoint, of_run
from afd_tf.training.source import Source, check_same_data, load_source
from afd_tf.training.state import State


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that training needs.

    Attributes:
        distiller: compiled `OnlineDistiller`.
        train: `tf.data.Dataset` of training batches.
        evaluation: `tf.data.Dataset`, the test set or the held-out part of train.
        info: description of the data, see `afd_tf.data.load`.
        epochs: int.
        source: `Source` that the networks learn from, or None.
    """

    distiller: OnlineDistiller
    train: tf.data.Dataset
    evaluation: tf.data.Dataset
    info: Any
    epochs: int
    source: Source | None = None

    def evaluate(self):
        """Return the metrics on the evaluation data: dict of str to float."""
        with failures.readable(failures.KEPT):
            return self.distiller.evaluate(self.evaluation, return_dict=True, verbose=0)

    def describe(self):
        """Return networks, taps, optimizers, schedules, data and steps as text."""
        info, epochs = self.info, self.epochs
        lines = []
        self.distiller.summary(print_fn=lines.append)
        height, width, channels = info.image_shape
        lines.append(
            f"data: {info.name}, {height}x{width}x{channels}, {info.num_classes} "
            f"classes, {info.train_examples:,} images to train on, "
            f"{info.test_examples:,} to evaluate on ({info.evaluated_split})"
        )
        lines.append(
            f"steps: {counted(epochs, 'epoch')} x {info.steps_per_epoch} = "
            f"{epochs * info.steps_per_epoch:,}, of {info.batch_size} images"
        )
        return "\n".join(lines)


@contextlib.contextmanager
def environment(seed=0, deterministic=False, precision="float32"):
    """Set seeds, determinism and dtype policy; the policy is put back at the end.

    TensorFlow's AddN begins with the input whose buffer it can have, which depends on
    what else runs: sums of three or more differ in their last digits. Its arithmetic
    optimizer makes them of the sums of two in a step, so it is off with determinism.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def build(settings, strategy, *, workers=None, trust_source=True):
    """Load the data, build the networks and the distiller, and compile it.

    Args:
        settings: Settings; their strategy does not count.
        strategy: `tf.distribute.Strategy` to build in.
        workers: `Workers` that build together; None for one process.
        trust_source: bool, whether the source may be a SavedModel, see `load_source`.

    Returns:
        Experiment.

    Raises:
        InvalidValue: if a setting is invalid.
    """
    limit = afd_networks.at_most_layers(settings.networks, settings.max_layers)
    with limit, failures.readable():
        return _build(settings, strategy, workers, trust_source)


def _build(settings, strategy, workers, trust_source):
    method = methods.get(settings.method, **(settings.method_options or {}))
    train, evaluation, info = (settings.load_data or data.load)(
        settings.dataset,
        settings.batch_size,
        data_dir=settings.data_dir,
        validation=settings.validation,
        seed=settings.seed,
    )
    if workers is not None and workers.count > 1:
        own = {"data": data_digest(info), "digests": info.digests}
        # Before variables are made, for which TensorFlow waits.
        workers.check_same("data", own)
    strategies.check_replicas(settings.batch_size, strategy)
    with strategy.scope():
        networks = [
            _build_network(network, info.num_classes, tuple(info.image_shape))
            for network in settings.networks
        ]
        # After the networks, whose initial weights are those of a run without it.
        source, options = None, {}
        if settings.source is not None:
            source = load_source(settings.source, settings.source_network, trust_source)
            check_same_data(source, info)
            if workers is not None and workers.count > 1:
                workers.check_same("sources", {"sha256": source.record["sha256"]})
            options["source"] = source.network
        make: Any = settings.distiller or OnlineDistiller
        distiller = make(networks, method, topology=settings.topology, **options)
        # Of known length, schedules do not depend on where a process begins.
        (settings.compile or OnlineDistiller.compile)(
            distiller,
            steps_per_execution=settings.steps_per_execution,
            total_steps=settings.epochs * info.steps_per_epoch,
        )
    return Experiment(distiller, train, evaluation, info, settings.epochs, source)


def _build_network(network, num_classes, input_shape):
    if isinstance(network, str):
        return afd_networks.build(network, num_classes, input_shape)
    return network(num_classes=num_classes, input_shape=input_shape)


def restore(workdir, settings, trust_source=True):
    """Build a run's experiment again, in this process, and load its newest checkpoint.

    Args:
        workdir: path of the run directory.
        settings: Settings of the run.
        trust_source: bool, whether the source may be a SavedModel, see `load_source`.

    Returns:
        Experiment and the `Position` of the checkpoint.

    Raises:
        InvalidValue: if there is no checkpoint, or it does not fit.
    """
    run = RunDirectory(workdir)
    if run.dataset.is_file():
        load_data = _normalised_as_before(run, settings.load_data or data.load)
        settings = dataclasses.replace(settings, load_data=load_data)
    alone = strategies.of_one_process(settings.strategy)
    experiment = build(settings, strategies.strategy(alone), trust_source=trust_source)
    checkpoint = of_run(run).newest()
    if checkpoint is None:
        raise no_checkpoint(workdir)
    _check_classes(run, experiment.info)
    checkpoint.load(State(experiment.distiller).write)
    return experiment, checkpoint.position


def _normalised_as_before(run, load_data):
    """Give data the run's mean and deviation, where the function takes them."""
    record = read_data(run)
    takes = inspect.signature(load_data).parameters
    given = {key: record[key] for key in ("mean", "std") if key in takes}
    return functools.partial(load_data, **given)


def _check_classes(run, info):
    """Check that images and labels are what the networks were trained on."""
    record = read_data(run)
    for key in ("image_shape", "class_names"):
        if list(getattr(info, key)) != record[key]:
            expected = f"data of the {key} that the run in {run.path} was trained on"
            raise invalid("data_dir", expected, received=f"data of other {key}")
