"""Convolution of maps so small that a matrix product does it with less work."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="afd_tf")
class SmallMapConvolution(keras.layers.Conv2D):
    """A `keras.layers.Conv2D` of stride 1, for maps of a few positions.

    On a 2x2 map, a 3x3 kernel with "same" padding multiplies more zeros than values.
    As a matrix product of the whole map, `(batch, h * w * c)` times
    `(h * w * c, h * w * filters)`, it skips them: 4 instead of 9 products per output,
    in a faster operation. The matrix is gathered from the kernel at each call. Weights,
    outputs and gradients are those of the stock layer.

    Args:
        filters: int, channels of the output.
        kernel_size: odd int or pair of such.
        **kwargs: as `keras.layers.Conv2D`; strides, dilation and groups stay 1, padding
            "same".
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(filters, kernel_size, **{**kwargs, "padding": "same"})
        plain = self.strides == self.dilation_rate == (1, 1) and self.groups == 1
        if not plain or not all(size % 2 for size in self.kernel_size):
            raise ValueError(
                "Invalid arguments of SmallMapConvolution. Expected an odd "
                "`kernel_size`, and strides, dilation and groups of 1. Received: "
                f"kernel_size={self.kernel_size}, strides={self.strides}, "
                f"dilation_rate={self.dilation_rate}, groups={self.groups}. Use "
                "keras.layers.Conv2D."
            )

    def call(self, inputs):
        """Convolve a map.

        Args:
            inputs: float tensor `(batch, h, w, c)`; h, w and c must be known.

        Returns:
            Tensor `(batch, h, w, filters)` of the layer's compute dtype.
        """
        height, width, channels = inputs.shape[1:]
        positions = height * width
        taps = ops.reshape(self.kernel, (-1, channels, self.filters))
        table = _taps((height, width), self.kernel_size)
        if np.any(table == taps.shape[0]):
            taps = ops.concatenate([taps, ops.zeros_like(taps[:1])], axis=0)
        # (position in, position out, c, filters)
        matrix = ops.transpose(ops.take(taps, table, axis=0), (0, 2, 1, 3))
        matrix = ops.reshape(matrix, (positions * channels, positions * self.filters))
        outputs = ops.matmul(ops.reshape(inputs, (-1, positions * channels)), matrix)
        outputs = ops.reshape(outputs, (-1, height, width, self.filters))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def _taps(size, kernel_size):
    """Return which tap of the kernel leads from each position to each other one.

    Args:
        size: (height, width) of the map.
        kernel_size: (height, width) of the kernel.

    Returns:
        int array `(height * width, height * width)`, from input to output position;
        the number of taps where there is none.
    """
    rows, columns = (
        np.arange(n)[:, None] - np.arange(n)[None] + k // 2
        for n, k in zip(size, kernel_size, strict=True)
    )
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    high, wide = kernel_size
    inside = (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)
    taps = np.where(inside, rows * wide + columns, high * wide)
    return taps.reshape(size[0] * size[1], -1)
