"""Outcome of a run: the content of `results.json`."""

import hashlib
import platform

import keras
import numpy as np
import tensorflow as tf

from afd_tf._version import __version__
from afd_tf.runs.data_record import data_digest
from afd_tf.runs.run_directory import SCHEMA


def make_results(metrics, experiment, settings, *, epoch, command, commits=()):
    """Put together the content of `results.json`.

    Args:
        metrics: dict of `evaluate(return_dict=True)` after the last epoch.
        experiment: Experiment.
        settings: Settings.
        epoch: int, epochs done.
        command: str, what to type to get this again.
        commits: list of str, see `afd_tf.runs.provenance.commits_of`.

    Returns:
        dict; accuracies are fractions, losses nats per example.
    """
    distiller, source = experiment.distiller, experiment.source
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
        "method": distiller.method.name,
        "parts": distiller.method.parts(source is not None),
        "dataset": settings.dataset,
        "seed": int(settings.seed),
        "epoch": epoch,
        "step": epoch * experiment.info.steps_per_epoch,
        "networks": networks,
        "mean": {"accuracy": float(metrics["mean_accuracy"])},
        "ensemble": {"accuracy": float(metrics["ensemble_accuracy"])},
        **({"source": source.record} if source else {}),
        "replicas": int(distiller.distribute_strategy.num_replicas_in_sync),
        "data_sha256": data_digest(experiment.info),
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
