"""Networks of a run: their architectures written down, and read back with weights."""

import json
import math
import os
from typing import Any

import keras

from afd_tf import data
from afd_tf.devices.failures import one_line
from afd_tf.errors import InvalidValue, lookup
from afd_tf.files import write_json
from afd_tf.runs.data_record import read_data
from afd_tf.training.checkpoints import no_checkpoint, of_run
from afd_tf.training.state import NETWORK, by_place, write_all


def record_networks(run, distiller):
    """Write down the networks' architectures: export needs nothing else to build them.

    At every start: what an earlier one wrote may be damaged since.

    Args:
        run: RunDirectory.
        distiller: OnlineDistiller.
    """
    pairs = zip(distiller.network_names, distiller.networks, strict=True)
    write_json(run.networks, {name: _architecture(network) for name, network in pairs})


def _architecture(network):
    try:
        config = keras.saving.serialize_keras_object(network)
        json.dumps(config)
    except (NotImplementedError, TypeError, ValueError):
        # Keras raises these for a layer of the user's own without `get_config`, or with
        # one that JSON cannot hold; export of such a run says what to do.
        return None
    return config


def restore_network(run, wanted=None):
    """Build one network of a run and load its newest weights; needs no data.

    Args:
        run: RunDirectory.
        wanted: str, the network's name; None: the one with the fewest parameters.

    Returns:
        keras.Model, its name in the run, and the `Position` of the checkpoint.

    Raises:
        InvalidValue: if there is no such network (the nearest is suggested), no
            checkpoint, or the network cannot be built from its description.
    """
    described = run.read_record(run.networks, {str: (dict, type(None))})
    if not described:
        raise InvalidValue(f"Damaged record {str(run.networks)!r}: it has no network.")
    if wanted is not None:
        described = {wanted: lookup("network", wanted, described)}
    built: dict[str, Any] = {n: _build(run, n, c) for n, c in described.items()}
    if wanted is None:
        wanted = min(built, key=lambda name: _size(built[name]))
    return built[wanted], wanted, load_network(run, wanted, built[wanted])


def _size(network):
    return sum(math.prod(variable.shape) for variable in network.variables)


def _build(run, name, config):
    try:
        if config is None:
            raise TypeError("it has a layer without get_config()")
        network = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if not isinstance(network, keras.Model):
            raise TypeError("it is no model")
        return network
    except Exception as error:  # whatever a damaged description leads to
        raise InvalidValue(
            f"Network '{name}' of {run.path} cannot be built from what Keras wrote down"
            f" of it: {one_line(error)}. Import what defines its layers, "
            "registered by keras.saving.register_keras_serializable()."
        ) from error


def load_network(run, name, network):
    """Load one network of a run from the newest checkpoint.

    Args:
        run: RunDirectory.
        name: str, what the run calls the network.
        network: keras.Model of the same architecture; its variables are set.

    Returns:
        Position of the checkpoint.

    Raises:
        InvalidValue: if there is no checkpoint, or none of such a network.
    """
    part = f"{NETWORK}/{name}/"
    checkpoint = of_run(run).newest(part)
    if checkpoint is None:
        raise no_checkpoint(run.path)
    variables = {part + k: v for k, v in by_place(network.variables).items()}
    checkpoint.load(lambda values: write_all(values, variables))
    return checkpoint.position


def preprocessing(run, dataset, name, epoch):
    """Describe what an exported network must be fed and what it answers.

    Args:
        run: RunDirectory.
        dataset: str, the run's data set; a path is not handed on.
        name: str, the network's name in the run.
        epoch: int, epochs finished.

    Returns:
        dict that JSON can hold, see `afd_tf.data.DataInfo.preprocessing`.
    """
    try:
        info = data.DataInfo(**read_data(run))
    except TypeError as error:
        raise InvalidValue(
            f"Damaged record of the data {str(run.dataset)!r}: {error}."
        ) from error
    known_as = {} if os.sep in dataset else {"dataset": dataset}
    return {"network": name, "epoch": epoch} | info.preprocessing() | known_as
