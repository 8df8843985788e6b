"""The result of a run, the content of `results.json`."""

import hashlib
import platform
import subprocess
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from afd_tf._version import __version__

SCHEMA = 1
# What of a checkout a run depends on; its other files change no result.
_CODE = ("afd_tf", "gin")


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
    source=None,
):
    """Put together the content of `results.json`.

    Args:
        metrics: dict of `evaluate(return_dict=True)` after the last epoch.
        distiller: OnlineDistiller.
        method: str.
        dataset: str.
        data: str, see `afd_tf.training.provenance.data_digest`.
        seed: int.
        epoch: int, epochs done.
        step: int, steps done.
        command: str, what to type to get this again.
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
        "dataset": dataset,
        "seed": int(seed),
        "epoch": int(epoch),
        "step": int(step),
        "networks": networks,
        "mean": {"accuracy": float(metrics["mean_accuracy"])},
        "ensemble": {"accuracy": float(metrics["ensemble_accuracy"])},
        **({"source": source.record} if source else {}),
        "data_sha256": data,
        "weights_sha256": weights_digest(distiller.networks),
        "command": command,
        "commit": commit(),
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


def commit():
    """Return the commit of the checkout we run from, as it is at this moment.

    Returns:
        str of 40 hexadecimal digits, with `-dirty` if anything in `afd_tf` or `gin` is
        not as in that commit, new files included: documentation, tests, tools and the
        records that a study adds to its own checkout do not count. None without git,
        or if the package is installed.
    """
    root = Path(__file__).resolve().parents[2]
    try:
        top, head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--show-toplevel"],
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=normal", "--", *_CODE],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # An installed package may lie inside somebody else's repository.
    if Path(top).resolve() != root:
        return None
    return f"{head}-dirty" if changes else head
