"""Checkpoints of everything a run needs to go on as if it had not stopped."""

import re

import tensorflow as tf

_COUNTER = re.compile(r"_[0-9]+(?=[/_]|$)")
_OPTIMIZERS = ("optimizer", "feature_optimizer", "discriminator_optimizer")


class Checkpoints:
    """Save and restore a distiller's complete state, epoch by epoch.

    Every variable is stored under the name of its part, its place and its path in it,
    so that a checkpoint that does not fit is found out and is never loaded in part.

    Args:
        directory: path.
        distiller: a compiled `OnlineDistiller`; networks, discriminators, transfer
            layers and optimizers, with slots, learning rates and step counters.
        keep: int >= 1, number of checkpoints kept.
    """

    def __init__(self, directory, distiller, keep=3):
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False, name="epoch")
        self._checkpoint = tf.train.Checkpoint(
            epoch=self.epoch, state=_state(distiller)
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(directory), max_to_keep=keep, checkpoint_name="epoch"
        )

    def save(self, epoch):
        """Save the state at the end of an epoch.

        Args:
            epoch: int, number of epochs finished.
        """
        self.epoch.assign(epoch)
        self._manager.save(checkpoint_number=epoch)

    def restore(self):
        """Load the newest checkpoint.

        Returns:
            int, number of epochs finished; 0 if there is no checkpoint.

        Raises:
            ValueError: if the checkpoint is damaged or is of another model.
        """
        newest = self._manager.latest_checkpoint
        if newest is None:
            return 0
        _restore(self._checkpoint, newest).assert_consumed()
        return int(self.epoch)


def restore_network(directory, name, network):
    """Load one network of a distiller from the newest checkpoint.

    Args:
        directory: path of the checkpoints.
        name: str, what the distiller calls the network.
        network: keras.Model of the same architecture; its variables are set.

    Returns:
        int, number of epochs finished.

    Raises:
        ValueError: if there is no checkpoint, or none of such a network.
    """
    newest = tf.train.latest_checkpoint(str(directory))
    if newest is None:
        raise ValueError(
            "Invalid value for argument `workdir`. Expected a run with at least one "
            f"finished epoch. Received: no checkpoint in {str(directory)!r}."
        )
    epoch = tf.Variable(0, dtype=tf.int64)
    state = {f"network/{name}": _by_place(network.variables)}
    checkpoint = tf.train.Checkpoint(epoch=epoch, state=state)
    _restore(checkpoint, newest).expect_partial()
    return int(epoch)


def _restore(checkpoint, path):
    try:
        status = checkpoint.restore(path)
        # What we hold must all be there; what we do not hold is the caller's concern.
        status.assert_existing_objects_matched()
    except Exception as error:
        # TensorFlow's readers raise whatever the damage leads to.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"Checkpoint {path} cannot be loaded: it is damaged, or of networks other "
            f"than those configured. Nothing was reset. ({reason[:200]})"
        ) from error
    return status


def _state(distiller):
    """Collect a distiller's variables: dict of part, of path, to `tf.Variable`."""
    parts = {
        f"network/{name}": network.variables
        for name, network in zip(
            distiller.network_names, distiller.networks, strict=True
        )
    }
    for kind in ("discriminator", "transfer"):
        for index, layer in enumerate(getattr(distiller, f"{kind}s")):
            parts[f"{kind}/{index}"] = layer.variables if layer is not None else []
    for role in _OPTIMIZERS:
        optimizer = getattr(distiller, role, None)
        parts[role] = optimizer.variables if optimizer is not None else []
    seen = {id(variable) for variables in parts.values() for variable in variables}
    # Metrics start anew with every epoch.
    seen |= {id(variable) for variable in distiller.metrics_variables}
    parts["distiller"] = [v for v in distiller.variables if id(v) not in seen]
    return {part: _by_place(variables) for part, variables in parts.items()}


def _by_place(variables):
    """Name variables by place and path, such as `3/conv/kernel`.

    The numbers that Keras appends to repeated names are left out: they count what was
    built before in the same process.
    """
    return {
        f"{place}/{_COUNTER.sub('', variable.path)}": variable.value
        for place, variable in enumerate(variables)
    }
