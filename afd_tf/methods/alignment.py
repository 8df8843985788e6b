"""Direct alignment: each network pulls its map towards its source's raw map."""

import keras
from keras import ops

from afd_tf import losses
from afd_tf.errors import lookup
from afd_tf.methods.method import FeatureObjective, register
from afd_tf.networks import transfer

DISTANCES = {"l1": losses.l1, "l2": losses.l2, "at": losses.attention}


@keras.saving.register_keras_serializable(package="afd_tf")
class Alignment(FeatureObjective):
    """Mean distance between `T_{k->j}(h_k)` and the constant raw map `h_j`.

    Two trainable transfers that meet in the middle could both shrink to zero; mapping
    onto the raw source map leaves no such solution. Maps of different spatial size meet
    at the smaller one. Attention transfer sums over channels and has no transfers.

    Args:
        distance: "l1", "l2" or "at".
        optimizer: "feature" (default) or "logit": which optimizer minimises it.

    Raises:
        ValueError: if an option has another value (the nearest is suggested).

    Example:
    ```python
    method = afd_tf.methods.get("l1_kd", optimizer="logit")
    model = afd_tf.OnlineDistiller([small, large], method)
    ```
    """

    def __init__(self, distance, optimizer="feature"):
        self.distance = distance
        self.optimizer = optimizer
        self._loss = lookup("distance", distance, DISTANCES)
        self.joins_logit_loss = lookup(
            "optimizer", optimizer, {"feature": False, "logit": True}
        )

    def get_config(self):
        return {"distance": self.distance, "optimizer": self.optimizer}

    def make_transfers(self, map_shapes, sources):
        # One per edge, in the order in which `messages` walks the edges.
        if self.distance == "at":
            return [None for _ in edges(sources)]
        return [
            transfer.alignment_transfer(map_shapes[k], map_shapes[j])
            for k, j in edges(sources)
        ]

    def messages(self, maps, transfers, sources):
        return [
            _through(layer, transfer.match_spatial(maps[k], meet(maps, k, j)))
            for layer, (k, j) in zip(transfers, edges(sources), strict=True)
        ]

    def losses(self, messages, maps, sources, discriminators):
        del discriminators
        remaining = iter(messages)
        result = []
        for k, own_sources in enumerate(sources):
            per_source = [
                self._loss(
                    next(remaining),
                    transfer.match_spatial(maps[j], meet(maps, k, j)),
                )
                for j in own_sources
            ]
            result.append(ops.mean(ops.stack(per_source), axis=0))
        return result


def edges(sources):
    """List who learns from whom, pairs of (network, source)."""
    return [(k, j) for k, own_sources in enumerate(sources) for j in own_sources]


def meet(maps, k, j):
    """Return the height and width at which two maps meet, the smaller of each."""
    return tuple(min(maps[k].shape[axis], maps[j].shape[axis]) for axis in (1, 2))


def _through(layer, tensor):
    return tensor if layer is None else layer(tensor, training=True)


for _name, _what in (
    ("l1", "L1 alignment of maps"),
    ("l2", "L2 alignment of maps"),
    ("at", "attention transfer (AT)"),
):
    _parts = {"feature": Alignment, "fixed": {"distance": _name}}
    register(_name, f"{_what} with cross-entropy, without KL", **_parts)
    register(f"{_name}_kd", f"{_what} with E1", kl=True, **_parts)
