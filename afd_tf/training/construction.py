"""What an experiment is made of: data, networks and the distiller, compiled."""

import contextlib
import dataclasses
import inspect
from typing import Any

import keras
import tensorflow as tf

from afd_tf import methods
from afd_tf import networks as afd_networks
from afd_tf.devices import strategies
from afd_tf.distiller import OnlineDistiller
from afd_tf.errors import integer, lookup
from afd_tf.training import failures
from afd_tf.training.source import Source, check_same_data, load_source

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


@contextlib.contextmanager
def environment(seed=0, deterministic=False, precision="float32"):
    """Set seeds, determinism and dtype policy; the policy is put back at the end.

    TensorFlow's AddN begins with the input whose buffer it can have, which depends on
    what else runs: sums of three or more differ in their last digits. Its arithmetic
    optimizer makes them of the sums of two in a step, so it is off with determinism.
    """
    lookup("precision", precision, dict.fromkeys(_PRECISIONS))
    integer("seed", seed, 0)
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

    The arguments are `train`'s; `strategy` is "multi_worker" in `train` only, which
    makes the strategy before anything else.

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
    for name, value in (
        ("load_data", load_data),
        ("distiller", distiller),
        ("compile", compile),
    ):
        if not callable(value):
            raise TypeError(
                f"Invalid value for argument `{name}`. Expected a callable, in a file "
                f"@name without parentheses. Received: {name}={value!r}."
            )
    if not isinstance(method_options, dict | None):
        raise TypeError(
            "Invalid value for argument `method_options`. Expected a dict of options, "
            f"or None. Received: method_options={method_options!r}."
        )
    method = methods.get(method, **(method_options or {}))
    with failures.readable():
        train_data, evaluation, info = load_data(
            dataset, batch_size, data_dir=data_dir, validation=validation, seed=seed
        )
    placement = strategies.strategy(strategy)
    strategies.check_replicas(batch_size, placement)
    with placement.scope():
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


# What `build` takes of what `train` was given.
ARGUMENTS = tuple(inspect.signature(build).parameters)


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
