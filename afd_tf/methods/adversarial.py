"""The adversarial objective: discriminators and networks play E2 against E3."""

from itertools import zip_longest

import keras
from keras import ops

from afd_tf import losses
from afd_tf.errors import lookup
from afd_tf.methods.method import FeatureObjective, register
from afd_tf.networks import transfer
from afd_tf.networks.discriminator import discriminator


@keras.saving.register_keras_serializable(package="afd_tf")
class Adversarial(FeatureObjective):
    """One discriminator per network tells the source's map (real) from its own (fake).

    Args:
        discriminator_channels: int per convolution block of D. Default (64, 128, 256).
        discriminator_normalization: "batch" (default), "sync" or "none".
        discriminator_batches: "separate" (default): D sees real and own maps as two
            batches, each with its own batch statistics. "concatenated": as one batch,
            in the D update and in the E3 pass alike.
        transfer_normalization: bool, adds BN and LeakyReLU to the transfer layers.

    Raises:
        ValueError: if an option has another value (the nearest is suggested).

    Example:
    ```python
    method = afd_tf.methods.get("afd", discriminator_batches="concatenated")
    model = afd_tf.OnlineDistiller([small, large], method)
    ```
    """

    adversarial = True

    def __init__(
        self,
        discriminator_channels=(64, 128, 256),
        discriminator_normalization="batch",
        discriminator_batches="separate",
        transfer_normalization=False,
    ):
        self.discriminator_channels = tuple(discriminator_channels)
        self.discriminator_normalization = discriminator_normalization
        self.discriminator_batches = discriminator_batches
        self.transfer_normalization = transfer_normalization
        self._concatenate = lookup(
            "discriminator_batches",
            discriminator_batches,
            {"separate": False, "concatenated": True},
        )

    def get_config(self):
        return {
            "discriminator_channels": self.discriminator_channels,
            "discriminator_normalization": self.discriminator_normalization,
            "discriminator_batches": self.discriminator_batches,
            "transfer_normalization": self.transfer_normalization,
        }

    def make_transfers(self, map_shapes, sources):
        if len(map_shapes) > len(sources):
            # Nothing would train a transfer of the frozen source's map: it stays raw.
            *own, (_, _, channels) = map_shapes
            return [
                None
                if shape[-1] == channels
                else transfer.pointwise(
                    shape[-1], channels, self.transfer_normalization, f"transfer_{k}"
                )
                for k, shape in enumerate(own, start=1)
            ]
        return transfer.transfer_layers(
            map_shapes, normalization=self.transfer_normalization
        )

    def messages(self, maps, transfers, sources):
        del sources
        # All messages of a step have one shape, so that any D can judge any of them.
        meet = tuple(min(m.shape[axis] for m in maps) for axis in (1, 2))
        matched = [transfer.match_spatial(m, meet) for m in maps]
        return [
            m if layer is None else layer(m, training=True)
            for m, layer in zip_longest(matched, transfers)
        ]

    def make_discriminators(self, message_shapes):
        return [
            discriminator(
                shape,
                channels=self.discriminator_channels,
                normalization=self.discriminator_normalization,
                name=f"discriminator_{k}",
            )
            for k, shape in enumerate(message_shapes)
        ]

    def judge(self, messages, sources, discriminators):
        """Judge every network's sources and own map, all as constants.

        Returns:
            List per network of `(real, own)`; `real` is a list with a tensor
            `(batch, 1)` per source, `own` a list with as many tensors: the judgements
            of the own map in the same batches.
        """
        messages = [ops.stop_gradient(m) for m in messages]
        verdicts = []
        for k, (judge, own_sources) in enumerate(
            zip(discriminators, sources, strict=True)
        ):
            real = [messages[j] for j in own_sources]
            verdicts.append(self._verdict(judge, real, messages[k]))
        return verdicts

    def losses(self, messages, maps, sources, discriminators):
        """E3 per network, through the discriminators as they stand."""
        del maps
        result = []
        for k, judge in enumerate(discriminators):
            real = [ops.stop_gradient(messages[j]) for j in sources[k]]
            if self._concatenate:
                _, own = self._verdict(judge, real, messages[k])
            else:
                own = [judge(messages[k], training=True)]
            per_pass = [losses.generator_loss(verdict) for verdict in own]
            result.append(ops.mean(ops.stack(per_pass), axis=0))
        return result

    def _verdict(self, judge, real, own):
        if not self._concatenate:
            own_verdict = judge(own, training=True)
            return [judge(r, training=True) for r in real], [own_verdict] * len(real)
        both = [judge(ops.concatenate([r, own], axis=0), training=True) for r in real]
        halves = [ops.split(verdict, 2, axis=0) for verdict in both]
        return [half[0] for half in halves], [half[1] for half in halves]


register("afd", "E1, E2 and E3: the paper's method", kl=True, feature=Adversarial)
register("adversarial", "E2 and E3 with cross-entropy, without KL", feature=Adversarial)
