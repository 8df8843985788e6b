"""Direct alignment of each network's map with the raw maps of its peers."""

import dataclasses

import keras
from keras import ops

from afd_tf import losses
from afd_tf.errors import choice
from afd_tf.methods.method import FeatureObjective, register
from afd_tf.networks import transfer

DISTANCES = {"l1": losses.l1, "l2": losses.l2, "at": losses.attention}


@keras.saving.register_keras_serializable(package="afd_tf")
@dataclasses.dataclass(frozen=True)
class Alignment(FeatureObjective):
    """Mean distance between `T_{k->j}(h_k)` and the constant raw map `h_j`.

    Two trainable transfers that meet in the middle could both shrink to zero; mapping
    onto the raw peer's map leaves no such solution. Maps of different spatial size meet
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

    distance: str
    optimizer: str = "feature"

    def __post_init__(self):
        choice("distance", self.distance, DISTANCES)
        choice("optimizer", self.optimizer, ("feature", "logit"))

    @property
    def joins_logit_loss(self):
        return self.optimizer == "logit"

    def make_transfers(self, map_shapes, peers):
        # One per edge, in the order in which `transfer` walks the edges.
        if self.distance == "at":
            return [None for _ in edges(peers)]
        return [
            transfer.alignment_transfer(map_shapes[k], map_shapes[j])
            for k, j in edges(peers)
        ]

    def transfer(self, maps, transfers, peers):
        return [
            _through(layer, transfer.match_spatial(maps[k], common_size(maps, k, j)))
            for layer, (k, j) in zip(transfers, edges(peers), strict=True)
        ]

    def losses(self, transferred, maps, peers, discriminators):
        del discriminators
        remaining = iter(transferred)
        result = []
        for k, own_peers in enumerate(peers):
            per_peer = [
                DISTANCES[self.distance](
                    next(remaining),
                    transfer.match_spatial(maps[j], common_size(maps, k, j)),
                )
                for j in own_peers
            ]
            result.append(ops.mean(ops.stack(per_peer), axis=0))
        return result


def edges(peers):
    """List who learns from whom, pairs of (network, peer)."""
    return [(k, j) for k, own_peers in enumerate(peers) for j in own_peers]


def common_size(maps, k, j):
    """Return the smaller height and the smaller width of two maps."""
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
