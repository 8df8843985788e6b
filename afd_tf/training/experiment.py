"""One experiment: build it, fit it, write its results."""

import contextlib
import dataclasses
import inspect
from typing import Any

import keras
import tensorflow as tf

from afd_tf import data, methods
from afd_tf import networks as afd_networks
from afd_tf.distiller import OnlineDistiller
from afd_tf.naming import lookup
from afd_tf.training import distribution, errors, loop, results
from afd_tf.training.checkpoints import Checkpoints, no_checkpoint
from afd_tf.training.checks import check_integer
from afd_tf.training.description import describe
from afd_tf.training.exported import record_networks
from afd_tf.training.interruption import Interruption
from afd_tf.training.provenance import Provenance, record_dataset
from afd_tf.training.run_directory import RunDirectory, write_json, write_text
from afd_tf.training.saving import load
from afd_tf.training.source import Source, check_same_data, load_source, record_source
from afd_tf.training.state import State

_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


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


def train(
    workdir,
    *,
    networks,
    dataset="digits",
    method="afd",
    method_options=None,
    topology=None,
    source=None,
    source_network=None,
    epochs=300,
    batch_size=128,
    seed=0,
    deterministic=False,
    data_dir=None,
    validation=0.0,
    precision="float32",
    strategy="auto",
    steps_per_execution=1,
    evaluate_every=1,
    non_finite="stop",
    tensorboard=True,
    keep=3,
    checkpoint_steps=None,
    checkpoint_minutes=10,
    load_data=data.load,
    distiller=OnlineDistiller,
    compile=OnlineDistiller.compile,
    dry_run=False,
    provenance=None,
):
    """Train networks together; leave all of the run in a directory.

    A finished run is not repeated: its results are returned. An interrupted one goes on
    from the step that was saved last, and ends as if it had not been interrupted: to
    the bit if it is deterministic. SIGTERM and SIGINT let it finish its step, save and
    raise `Interrupted`, a `KeyboardInterrupt`.

    Args:
        workdir: path of the run directory.
        networks: list of names (see `afd_tf.networks.names()`) or callables from
            `num_classes` and `input_shape` to a Keras model. At least two; one is
            enough with a `source` and for method "one".
        dataset: str, see `afd_tf.data.load`.
        method: str, one of `afd_tf.methods.names()`.
        method_options: dict of the method's own options, or None.
        topology: str, who learns from whom: "cycle" or "all_pairs". None: "cycle", or
            from the `source` alone.
        source: path of a network that is trained already, from which the others learn:
            a finished run's directory, a `.keras` file or a SavedModel; or None.
        source_network: str, which network of `source`; needed if it has several.
        epochs: int, passes over the training data.
        batch_size: int, images per step over all devices.
        seed: int >= 0, for initial weights, order and augmentation of the data.
        deterministic: bool, same result to the bit on the same machine. Stays on for
            the rest of the process, as TensorFlow has it.
        data_dir: path of the data, or None for the default place.
        validation: float in [0, 1), fraction of train held out and evaluated in place
            of the test set.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        strategy: "auto", "single" or "mirrored".
        steps_per_execution: int, steps per call of the compiled function.
        evaluate_every: int >= 1, epochs between two evaluations; there is one after
            the last epoch in any case.
        non_finite: what to do at a step that makes a loss NaN or infinite: "stop" with
            an error, or "skip", undo it and go on, which costs a few percent of time.
        tensorboard: bool, whether to write `logs/`.
        keep: int >= 1, number of checkpoints kept.
        checkpoint_steps: int >= 1, steps between two checkpoints, or None. There is one
            after every epoch in any case.
        checkpoint_minutes: float > 0, minutes between two checkpoints, or None.
        load_data: callable, `afd_tf.data.load` with or without options of its own.
        distiller: callable that makes an `OnlineDistiller` of networks.
        compile: callable that compiles it, given `steps_per_execution` and
            `total_steps`.
        dry_run: bool, print what would be trained; train and write nothing.
        provenance: `Provenance`, or None for a run from Python.

    Returns:
        dict, the content of `results.json`; `{}` for a dry run.

    Raises:
        ValueError: if an argument is invalid, or `workdir` holds something else; before
            anything is written.
        NonFiniteLossError: if a loss becomes NaN or infinite, and stays so.
        OutOfMemoryError: if a step needs more memory than there is.
        Interrupted: if a signal stopped the run.
    """
    arguments = dict(locals())
    options = loop.Options(
        keep,
        checkpoint_steps,
        checkpoint_minutes,
        non_finite,
        tensorboard,
        evaluate_every,
    )
    run = RunDirectory(workdir)
    provenance = provenance or Provenance.from_arguments(train, arguments)
    if not dry_run:
        run.check(provenance.config)
        if run.results.exists():
            return run.read_results()
    interruption = Interruption()
    with interruption.listening(), environment(seed, deterministic, precision):
        experiment = build(**{name: arguments[name] for name in _BUILD_ARGUMENTS})
        if dry_run:
            print(describe(experiment))
            return {}
        with run.started(provenance.config):
            with run.writing():
                record_dataset(run, experiment.info)
                record_networks(run, experiment.distiller)
                record_source(run, experiment.source)
                write_text(run.operative_config, provenance.operative_config())
            loop.fit(experiment, run, interruption, options)
            outcome = results.make_results(
                loop.evaluate(experiment),
                experiment.distiller,
                method=experiment.distiller.method.name,
                dataset=dataset,
                seed=seed,
                epoch=epochs,
                step=epochs * experiment.info.steps_per_epoch,
                source=experiment.source,
                command=provenance.command,
            )
            with run.writing("Training is finished: the same command writes the rest."):
                write_json(run.results, outcome)
    return outcome


@contextlib.contextmanager
def environment(seed=0, deterministic=False, precision="float32"):
    """Set seeds, determinism and dtype policy; the policy is put back at the end."""
    lookup("precision", precision, dict.fromkeys(_PRECISIONS))
    check_integer("seed", seed, 0)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def build(
    *,
    networks,
    dataset,
    method,
    method_options,
    topology,
    source,
    source_network,
    epochs,
    batch_size,
    seed,
    data_dir,
    validation,
    strategy,
    steps_per_execution,
    load_data,
    distiller,
    compile,
):
    """Load the data, build the networks and the distiller, and compile it.

    The arguments are `train`'s.

    Returns:
        Experiment.

    Raises:
        ValueError: if an argument is invalid.
    """
    for name, value in (
        ("epochs", epochs),
        ("steps_per_execution", steps_per_execution),
    ):
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected an int >= 1. "
                f"Received: {name}={value!r}."
            )
    if not isinstance(networks, list | tuple):
        raise _no_networks(networks)
    method = methods.get(method, **(method_options or {}))
    with errors.readable():
        train_data, evaluation, info = load_data(
            dataset, batch_size, data_dir=data_dir, validation=validation, seed=seed
        )
    with distribution.strategy(strategy).scope():
        built = [build_network(n, info.num_classes, info.image_shape) for n in networks]
        # After the networks, whose initial weights are those of a run without it.
        found = load_source(source, source_network) if source is not None else None
        options = {}
        if found is not None:
            check_same_data(found, info)
            options["source"] = found.network
        model = distiller(built, method, topology=topology, **options)
        # Of known length, schedules do not depend on where a process begins.
        total_steps = epochs * info.steps_per_epoch
        compile(model, steps_per_execution=steps_per_execution, total_steps=total_steps)
    return Experiment(model, train_data, evaluation, info, epochs, found)


_BUILD_ARGUMENTS = tuple(inspect.signature(build).parameters)


def _no_networks(received):
    return TypeError(
        "Invalid value for argument `networks`. Expected a list of names or of "
        "callables, e.g. ['resnet20', 'wrn16_2'] or [@resnet20/resnet, "
        f"@wrn16_2/wide_resnet] without parentheses. Received: {received!r}."
    )


def build_network(network, num_classes, input_shape):
    """Build one of `train`'s `networks` for a number of classes and an image shape."""
    if isinstance(network, str):
        return afd_networks.build(network, num_classes, tuple(input_shape))
    if not callable(network):
        raise _no_networks(network)
    return network(num_classes=num_classes, input_shape=tuple(input_shape))


def restore(workdir, arguments):
    """Build a run's experiment again and load its newest checkpoint.

    Args:
        workdir: path of the run directory.
        arguments: dict, what `train` was given.

    Returns:
        Experiment and the `Position` of the checkpoint.

    Raises:
        ValueError: if there is no checkpoint, or it does not fit.
    """
    run = RunDirectory(workdir)
    experiment = build(**{name: arguments[name] for name in _BUILD_ARGUMENTS})
    found = Checkpoints(run.checkpoints).newest()
    if found is None:
        raise no_checkpoint(workdir)
    load(found, State(experiment.distiller).write)
    return experiment, found.position
