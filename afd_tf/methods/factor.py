"""Factor transfer: imitation of a compressed form of a peer's map."""

import dataclasses

import keras
from keras import ops

from afd_tf import losses
from afd_tf.errors import choice, fraction, inapplicable, positive_int
from afd_tf.methods.alignment import common_size, edges
from afd_tf.methods.method import PretrainedObjective, register
from afd_tf.networks import paraphraser, transfer

_EPOCHS = 30


@keras.saving.register_keras_serializable(package="afd_tf")
@dataclasses.dataclass(frozen=True)
class Factor(PretrainedObjective):
    """Distance between the translated own map and the source's paraphrased map.

    A paraphraser, an auto-encoder of the source's map, gives the factor that the
    translator of each network which learns from that source imitates (Kim et al. 2018).
    With a frozen source the paraphraser is trained beforehand, then constant, as there.
    With sources that learn themselves there is no beforehand: the paraphraser trains
    along, its reconstruction loss added to that of the source's network. This online
    version is our extension.

    Args:
        rate: float in (0, 1], channels of the factor as a fraction of the source
            map's. Default 0.5.
        paraphraser_epochs: int >= 1, epochs of training beforehand. Default 30; only
            with a frozen source.
        optimizer: "feature" (default) or "logit": which optimizer minimises it. "logit"
            only with a frozen source: at the logit optimizer's rate a paraphraser that
            trains along diverges.

    Raises:
        ValueError: if an option has another value, or one does not apply to sources
            that learn themselves.

    Example:
    ```python
    model = afd_tf.OnlineDistiller([small], "ft", source=teacher)
    model.pretrain(train)
    ```
    """

    rate: float = 0.5
    paraphraser_epochs: int | None = None
    optimizer: str = "feature"

    def __post_init__(self):
        fraction("rate", self.rate, zero=False, one=True)
        choice("optimizer", self.optimizer, ("feature", "logit"))
        if self.paraphraser_epochs is not None:
            # A paraphraser that has learnt nothing gives no factors worth imitating.
            positive_int("paraphraser_epochs", self.paraphraser_epochs)

    @property
    def joins_logit_loss(self):
        return self.optimizer == "logit"

    @property
    def pretraining_epochs(self):
        return self.paraphraser_epochs or _EPOCHS

    def make_transfers(self, map_shapes, peers):
        # A translator per edge, then a paraphraser per source.
        frozen = len(map_shapes) > len(peers)
        if self.joins_logit_loss and not frozen:
            raise inapplicable(
                "optimizer",
                self.optimizer,
                "without a frozen source the paraphraser trains along with the "
                "networks, which diverges at the logit optimizer's learning rate",
                "Leave it out, or give a `source`.",
            )
        if self.paraphraser_epochs is not None and not frozen:
            raise inapplicable(
                "paraphraser_epochs",
                self.paraphraser_epochs,
                "without a frozen source the paraphraser trains along with the "
                "networks",
                "Leave it out, or give a `source`.",
            )
        channels = [max(1, round(self.rate * shape[-1])) for shape in map_shapes]
        translators = [
            paraphraser.translator(
                map_shapes[k][-1], channels[j], name=f"translator_{k}_{j}"
            )
            for k, j in edges(peers)
        ]
        paraphrasers = [
            paraphraser.paraphraser(
                map_shapes[j][-1], channels[j], name=f"paraphraser_{j}"
            )
            for j in _distinct(peers)
        ]
        return [*translators, *paraphrasers]

    def transfer(self, maps, transfers, peers):
        pairs = edges(peers)
        result = [
            layer(
                transfer.match_spatial(maps[k], common_size(maps, k, j)), training=True
            )
            for layer, (k, j) in zip(transfers[: len(pairs)], pairs, strict=True)
        ]
        for layer, j in zip(transfers[len(pairs) :], _distinct(peers), strict=True):
            result += layer(ops.stop_gradient(maps[j]), training=True)
        return result

    def losses(self, transferred, maps, peers, discriminators):
        del discriminators
        pairs, distinct = edges(peers), _distinct(peers)
        factors = dict(zip(distinct, transferred[len(pairs) :: 2], strict=True))
        totals = [0.0] * len(peers)
        for own, (k, j) in zip(transferred[: len(pairs)], pairs, strict=True):
            factor = transfer.match_spatial(factors[j], own.shape[1:3])
            totals[k] += losses.factor(own, factor) / len(peers[k])
        for j, copy in zip(distinct, transferred[len(pairs) + 1 :: 2], strict=True):
            if j < len(peers):  # the paraphraser of a frozen source is done
                totals[j] += losses.l2(copy, maps[j])
        return totals

    def pretrained(self, transfers, peers):
        paraphrasers = transfers[len(edges(peers)) :]
        return [
            layer
            for layer, j in zip(paraphrasers, _distinct(peers), strict=True)
            if j >= len(peers)
        ]

    def pretraining_loss(self, layer, source_map):
        _, copy = layer(source_map, training=True)
        return losses.l2(copy, source_map)


def _distinct(peers):
    return sorted({j for _, j in edges(peers)})


register("ft", "factor transfer (FT) with cross-entropy, without KL", feature=Factor)
register("ft_kd", "factor transfer (FT) with E1", kl=True, feature=Factor)
