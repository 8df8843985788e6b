"""Layers of a network in float64 NumPy, from their definitions."""

import numpy as np


def windows(x, kernel, stride, fill=0.0):
    """Return `(batch, rows, columns, kernel, kernel, channels)` with "same" padding.

    There are ceil(size / stride) windows each way; what they lack is put half before
    and half behind, the odd one behind.
    """
    pads, counts = [(0, 0)], []
    for size in x.shape[1:3]:
        count = -(-size // stride)
        lacking = max((count - 1) * stride + kernel - size, 0)
        pads.append((lacking // 2, lacking - lacking // 2))
        counts.append(count)
    x = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    rows, columns = counts
    taps = [
        [
            x[:, i : i + rows * stride : stride, j : j + columns * stride : stride][
                :, :rows, :columns
            ]
            for j in range(kernel)
        ]
        for i in range(kernel)
    ]
    return np.stack([np.stack(row, axis=3) for row in taps], axis=3)


class Layers:
    """The layers of a Keras model by name, computed by NumPy with its weights."""

    def __init__(self, model):
        self._model = model
        self.used = set()

    def _weights(self, name):
        self.used.add(name)
        return [np.asarray(w, np.float64) for w in self._model.get_layer(name).weights]

    def conv(self, x, name, stride=1):
        (kernel,) = self._weights(name)
        return np.einsum(
            "brckli,klio->brco", windows(x, len(kernel), stride), kernel, optimize=True
        )

    def depthwise(self, x, name, stride=1):
        (kernel,) = self._weights(name)
        return np.einsum(
            "brckli,kli->brci", windows(x, len(kernel), stride), kernel[..., 0]
        )

    def norm(self, x, name):
        gamma, beta, mean, variance = self._weights(name)
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    def unit(self, x, name, stride=1, limit=np.inf):
        x = self.norm(self.conv(x, f"{name}_conv", stride), f"{name}_norm")
        return np.clip(x, 0, limit)

    def head(self, x):
        kernel, bias = self._weights("logits")
        return x.mean(axis=(1, 2)) @ kernel + bias


def max_pool(x, kernel, stride):
    return windows(x, kernel, stride, fill=-np.inf).max(axis=(3, 4))


def randomize(model, seed=0):
    """Give all weights random values that keep activations of about unit size."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if len(shape) > 1:
            inputs = np.prod(shape[:-1]) if shape[-1] > 1 else np.prod(shape[:2])
            value = rng.normal(size=shape) * np.sqrt(2 / inputs)
        elif "gamma" in weight.path or "variance" in weight.path:
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(size=shape) * 0.2
        weight.assign(value)
