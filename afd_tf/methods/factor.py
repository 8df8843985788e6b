"""Factor transfer: a network imitates a compressed form of its source's map."""

import keras
from keras import ops

from afd_tf import losses
from afd_tf.errors import lookup
from afd_tf.methods.alignment import edges, meet
from afd_tf.methods.method import PretrainedObjective, register
from afd_tf.networks import paraphraser, transfer

_EPOCHS = 30


@keras.saving.register_keras_serializable(package="afd_tf")
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

    def __init__(self, rate=0.5, paraphraser_epochs=None, optimizer="feature"):
        self.rate = rate
        self.paraphraser_epochs = paraphraser_epochs
        self.optimizer = optimizer
        self.joins_logit_loss = lookup(
            "optimizer", optimizer, {"feature": False, "logit": True}
        )
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise ValueError(
                "Invalid value for option `rate`. Expected a number in (0, 1]. "
                f"Received: rate={rate!r}."
            )
        whole = isinstance(paraphraser_epochs, int) and paraphraser_epochs >= 1
        if paraphraser_epochs is not None and not whole:
            raise ValueError(
                "Invalid value for option `paraphraser_epochs`. Expected an int >= 1. "
                f"Received: paraphraser_epochs={paraphraser_epochs!r}. A paraphraser "
                "that has learnt nothing gives no factors worth imitating."
            )

    @property
    def pretraining_epochs(self):
        return self.paraphraser_epochs or _EPOCHS

    def get_config(self):
        return {
            "rate": self.rate,
            "paraphraser_epochs": self.paraphraser_epochs,
            "optimizer": self.optimizer,
        }

    def make_transfers(self, map_shapes, sources):
        # A translator per edge, then a paraphraser per source.
        frozen = len(map_shapes) > len(sources)
        if self.joins_logit_loss and not frozen:
            raise ValueError(
                "Option `optimizer` does not apply: without a frozen source the "
                "paraphraser trains along with the networks, which diverges at the "
                'logit optimizer\'s learning rate. Received: optimizer="logit". Leave '
                "it out, or give a `source`."
            )
        if self.paraphraser_epochs is not None and not frozen:
            raise ValueError(
                "Option `paraphraser_epochs` does not apply: without a frozen source "
                "the paraphraser trains along with the networks. Received: "
                f"paraphraser_epochs={self.paraphraser_epochs}. Leave it out, or give "
                "a `source`."
            )
        channels = [max(1, round(self.rate * shape[-1])) for shape in map_shapes]
        translators = [
            paraphraser.translator(
                map_shapes[k][-1], channels[j], name=f"translator_{k}_{j}"
            )
            for k, j in edges(sources)
        ]
        paraphrasers = [
            paraphraser.paraphraser(
                map_shapes[j][-1], channels[j], name=f"paraphraser_{j}"
            )
            for j in _distinct(sources)
        ]
        return [*translators, *paraphrasers]

    def messages(self, maps, transfers, sources):
        pairs = edges(sources)
        shown = [
            layer(transfer.match_spatial(maps[k], meet(maps, k, j)), training=True)
            for layer, (k, j) in zip(transfers[: len(pairs)], pairs, strict=True)
        ]
        for layer, j in zip(transfers[len(pairs) :], _distinct(sources), strict=True):
            shown += layer(ops.stop_gradient(maps[j]), training=True)
        return shown

    def losses(self, messages, maps, sources, discriminators):
        del discriminators
        pairs, distinct = edges(sources), _distinct(sources)
        factors = dict(zip(distinct, messages[len(pairs) :: 2], strict=True))
        totals = [0.0] * len(sources)
        for own, (k, j) in zip(messages[: len(pairs)], pairs, strict=True):
            factor = transfer.match_spatial(factors[j], own.shape[1:3])
            totals[k] += losses.factor(own, factor) / len(sources[k])
        for j, copy in zip(distinct, messages[len(pairs) + 1 :: 2], strict=True):
            if j < len(sources):  # the paraphraser of a frozen source is done
                totals[j] += losses.l2(copy, maps[j])
        return totals

    def pretrained(self, transfers, sources):
        paraphrasers = transfers[len(edges(sources)) :]
        return [
            layer
            for layer, j in zip(paraphrasers, _distinct(sources), strict=True)
            if j >= len(sources)
        ]

    def pretraining_loss(self, layer, source_map):
        _, copy = layer(source_map, training=True)
        return losses.l2(copy, source_map)


def _distinct(sources):
    return sorted({j for _, j in edges(sources)})


register("ft", "factor transfer (FT) with cross-entropy, without KL", feature=Factor)
register("ft_kd", "factor transfer (FT) with E1", kl=True, feature=Factor)
