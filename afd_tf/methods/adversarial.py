"""The adversarial objective: E2 against E3, a discriminator per network."""

import dataclasses
from itertools import zip_longest

import keras
from keras import ops

from afd_tf import losses
from afd_tf.errors import boolean, choice
from afd_tf.methods.method import FeatureObjective, register
from afd_tf.networks import transfer
from afd_tf.networks.discriminator import discriminator


@keras.saving.register_keras_serializable(package="afd_tf")
@dataclasses.dataclass(frozen=True)
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

    discriminator_channels: tuple = (64, 128, 256)
    discriminator_normalization: str = "batch"
    discriminator_batches: str = "separate"
    transfer_normalization: bool = False

    adversarial = True

    def __post_init__(self):
        object.__setattr__(
            self, "discriminator_channels", tuple(self.discriminator_channels)
        )
        choice(
            "discriminator_batches",
            self.discriminator_batches,
            ("separate", "concatenated"),
        )
        boolean("transfer_normalization", self.transfer_normalization)

    def make_transfers(self, map_shapes, peers):
        if len(map_shapes) > len(peers):
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

    def transfer(self, maps, transfers, peers):
        del peers
        # All transferred maps have one shape, so that any D can look at any of them.
        size = tuple(min(m.shape[axis] for m in maps) for axis in (1, 2))
        matched = [transfer.match_spatial(m, size) for m in maps]
        return [
            m if layer is None else layer(m, training=True)
            for m, layer in zip_longest(matched, transfers)
        ]

    def make_discriminators(self, map_shapes):
        return [
            discriminator(
                shape,
                channels=self.discriminator_channels,
                normalization=self.discriminator_normalization,
                name=f"discriminator_{k}",
            )
            for k, shape in enumerate(map_shapes)
        ]

    def discriminate(self, transferred, peers, discriminators):
        """Show every D_k its peers' maps and its own network's, all as constants.

        Returns:
            List per network of `(real, own)`; `real` is a list with a tensor
            `(batch, 1)` per peer, `own` a list with as many tensors: the outputs for
            the own map in the same batches.
        """
        transferred = [ops.stop_gradient(m) for m in transferred]
        return [
            self._outputs(d_k, [transferred[j] for j in own_peers], transferred[k])
            for k, (d_k, own_peers) in enumerate(
                zip(discriminators, peers, strict=True)
            )
        ]

    def losses(self, transferred, maps, peers, discriminators):
        """E3 per network, through the discriminators as they stand."""
        del maps
        result = []
        for k, d_k in enumerate(discriminators):
            if self.discriminator_batches == "concatenated":
                real = [ops.stop_gradient(transferred[j]) for j in peers[k]]
                _, own = self._outputs(d_k, real, transferred[k])
            else:
                own = [d_k(transferred[k], training=True)]
            per_pass = [losses.generator_loss(output) for output in own]
            result.append(ops.mean(ops.stack(per_pass), axis=0))
        return result

    def _outputs(self, d_k, real, own):
        if self.discriminator_batches == "separate":
            own_output = d_k(own, training=True)
            return [d_k(r, training=True) for r in real], [own_output] * len(real)
        both = [d_k(ops.concatenate([r, own], axis=0), training=True) for r in real]
        halves = [ops.split(output, 2, axis=0) for output in both]
        return [half[0] for half in halves], [half[1] for half in halves]


register("afd", "E1, E2 and E3: the paper's method", kl=True, feature=Adversarial)
register("adversarial", "E2 and E3 with cross-entropy, without KL", feature=Adversarial)
