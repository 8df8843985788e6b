"""Paraphraser and translator of factor transfer (Kim, Park and Kwak 2018)."""

import keras

from afd_tf.networks.architectures.blocks import leaky_relu

_SLOPE = 0.1


def paraphraser(channels, factor_channels, name="paraphraser"):
    """Build the auto-encoder of a source's feature map.

    Three 3x3 convolutions to the factor and three transposed ones back, each followed
    by LeakyReLU 0.1, without normalisation, as in the authors' code.

    Args:
        channels: int, channels of the map.
        factor_channels: int, channels of the factor.
        name: str.

    Returns:
        keras.Model from maps `(batch, h, w, channels)` of any height and width to a
        list: the factor `(batch, h, w, factor_channels)` and the map's reconstruction.
    """
    feature_map, factor = _encoder(channels, factor_channels)
    x = factor
    for i, filters in enumerate((factor_channels, channels, channels)):
        layer = keras.layers.Conv2DTranspose(
            filters, 3, padding="same", name=f"decoder_{i}"
        )
        x = leaky_relu(layer(x), _SLOPE)
    return keras.Model(feature_map, [factor, x], name=name)


def translator(channels, factor_channels, name="translator"):
    """Build the encoder from a network's own map to a factor.

    Args:
        channels: int, channels of the network's own map.
        factor_channels: int, channels of the factor that it imitates.
        name: str.

    Returns:
        keras.Model from maps `(batch, h, w, channels)` of any height and width to
        factors `(batch, h, w, factor_channels)`.
    """
    return keras.Model(*_encoder(channels, factor_channels), name=name)


def _encoder(channels, factor_channels):
    feature_map = x = keras.Input((None, None, channels), name="feature_map")
    for i, filters in enumerate((channels, factor_channels, factor_channels)):
        x = keras.layers.Conv2D(filters, 3, padding="same", name=f"encoder_{i}")(x)
        x = leaky_relu(x, _SLOPE)
    return feature_map, x
