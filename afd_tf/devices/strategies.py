"""Strategies of `tf.distribute` by name."""

import functools
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from afd_tf.devices import clusters
from afd_tf.devices.failures import WorkerLostError, one_line
from afd_tf.errors import InvalidValue, invalid, lookup

# How long TensorFlow waits for workers, which have joined already, and for a sign of
# life of one.
START_SECONDS = 60
HEARTBEAT_SECONDS = 20
_GOODBYE_SECONDS = 5


def strategy(name="auto", workers=None, task=None) -> Any:
    """Return the strategy to build and train the networks in.

    Args:
        name: "auto" (mirrored on two or more GPUs, else single), "single" (one
            device), "mirrored" (all GPUs; without any, all logical CPUs),
            "multi_worker" (all GPUs of several processes, or the CPU of each), or a
            `tf.distribute.Strategy`, which is returned.
        workers: addresses of all workers, see `clusters.find`; "multi_worker" only.
        task: int, which of them this process is.

    Returns:
        `tf.distribute.Strategy`.

    Raises:
        InvalidValue: if the name is unknown, the cluster is malformed or contradicts
            the name, this process' address cannot be used, or TensorFlow has been used
            before in this process and "multi_worker" is asked for.
        WorkerLostError: if the other workers do not come.
    """
    if isinstance(name, str) and name == "multi_worker":
        return _multi_worker(clusters.find(workers, task))
    clusters.check_unused(name, workers, task)
    if isinstance(name, tf.distribute.Strategy):
        return name
    return lookup("strategy", name, STRATEGIES)()


def abort_collectives(task):
    """Let collectives, which wait for a worker that is lost, raise an error.

    Args:
        task: int, the worker's number.
    """
    context.context().abort_collective_ops(
        tf.errors.UNAVAILABLE, f"lost /job:worker/replica:0/task:{task}"
    )


def of_one_process(name):
    """Return the name of the strategy for what one process does: show, evaluate."""
    return "auto" if name == "multi_worker" else name


def check_replicas(batch_size, strategy):
    """Check that every replica has a row of each batch.

    Raises:
        InvalidValue: if one has none.
    """
    replicas = strategy.num_replicas_in_sync
    if -(-batch_size // replicas) * (replicas - 1) >= batch_size:
        expected = (
            f"enough images per step for each of {replicas} replicas, best a multiple "
            f"of {replicas}"
        )
        raise invalid("batch_size", expected, batch_size)


def _auto():
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return _mirrored()
    return _single()


def _single():
    return tf.distribute.get_strategy()


@functools.cache
def _mirrored():
    # One for all runs of a process: a second one would count its collectives from the
    # beginning again, and meet those of the first.
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices(
        "CPU"
    )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _multi_worker(cluster):
    own = cluster.workers[cluster.task]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.task,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )
    try:
        _bound_waits(len(cluster.workers))
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise InvalidValue(
            "Several workers must be set up before anything else of TensorFlow runs. "
            "Received: strategy='multi_worker' in a process that has used it. Start a "
            "new process, or make the strategy first."
        ) from error
    except (tf.errors.DeadlineExceededError, tf.errors.UnavailableError) as error:
        raise WorkerLostError(
            f"Not all of {len(cluster.workers)} workers came within {START_SECONDS} s "
            f"of worker {cluster.task}'s start ({one_line(error)}). Look at the output "
            f"of the others; all must be started with the same addresses: "
            f"{', '.join(cluster.workers)}."
        ) from error
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        raise InvalidValue(
            f"Worker {cluster.task} cannot listen at {own!r} ({one_line(error)}). "
            "Expected an address of this machine with a free port."
        ) from error


def _bound_waits(workers):
    """Set TensorFlow's coordination service up with bounded waits.

    The strategy would do it with an hour for the start; there is no public way.
    """
    job = context.coordination_config_pb2.CoordinatedJob(
        name="worker", num_tasks=workers
    )
    context.context().configure_coordination_service(
        "standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=1000 * START_SECONDS,
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_SECONDS,
        shutdown_barrier_timeout_in_ms=1000 * _GOODBYE_SECONDS,
        coordinated_jobs=[job],
    )


STRATEGIES = {
    "auto": _auto,
    "single": _single,
    "mirrored": _mirrored,
    "multi_worker": None,
}
