"""The result of a run, the content of `results.json`."""

import hashlib
import platform

import keras
import numpy as np
import tensorflow as tf

from afd_tf._version import __version__
from afd_tf.runs.run_directory import SCHEMA


def make_results(
    metrics,
    distiller,
    *,
    method,
    dataset,
    data,
    seed,
    epoch,
    step,
    command,
    commits=(),
    source=None,
):
    """Put together the content of `results.json`.

    Args:
        metrics: dict of `evaluate(return_dict=True)` after the last epoch.
        distiller: OnlineDistiller.
        method: str.
        dataset: str.
        data: str, see `afd_tf.runs.provenance.data_digest`.
        seed: int.
        epoch: int, epochs done.
        step: int, steps done.
        command: str, what to type to get this again.
        commits: list of str, see `afd_tf.runs.commits.of_run`.
        source: `Source` that the networks learnt from, or None.

    Returns:
        dict; accuracies are fractions, losses nats per example.
    """
    networks = {
        name: {
            "accuracy": float(metrics[f"{name}_accuracy"]),
            "loss": float(metrics[f"{name}_loss"]),
            "parameters": int(network.count_params()),
        }
        for name, network in zip(
            distiller.network_names, distiller.networks, strict=True
        )
    }
    return {
        "schema": SCHEMA,
        "method": method,
        "parts": distiller.method.parts(source is not None),
        "dataset": dataset,
        "seed": int(seed),
        "epoch": int(epoch),
        "step": int(step),
        "networks": networks,
        "mean": {"accuracy": float(metrics["mean_accuracy"])},
        "ensemble": {"accuracy": float(metrics["ensemble_accuracy"])},
        **({"source": source.record} if source else {}),
        "replicas": int(distiller.distribute_strategy.num_replicas_in_sync),
        "data_sha256": data,
        "weights_sha256": weights_digest(distiller.networks),
        "command": command,
        "commit": commits[-1] if commits else None,
        **({"earlier_commits": list(commits[:-1])} if commits[:-1] else {}),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "afd_tf": __version__,
        },
    }


def weights_digest(networks):
    """Return the SHA-256 of networks' weights, moving statistics included, in order.

    Args:
        networks: list of Keras models.

    Returns:
        str of 64 hexadecimal digits; of the type, shape and little-endian bytes of each
        weight, so that it changes with any bit of any weight.
    """
    digest = hashlib.sha256()
    for network in networks:
        for array in network.get_weights():
            array = np.ascontiguousarray(array)
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{array.dtype.name} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
