"""Whole steps against float64 NumPy, written from the equations and derived by hand.

The networks are linear, so that every gradient fits on a line: with x averaged over
positions, the map's mean is `m = x W`, logits are `z = m V + b`, and a discriminator is
`d = sigmoid(m u + c)`.
"""

import numpy as np
import pytest
import tiny
from linear import (
    DECAYS,
    RATES,
    TEMPERATURE,
    compile_options,
    linear_discriminator,
    linear_network,
    sigmoid,
    softmax,
)

from afd_tf import OnlineDistiller


class Reference:
    """K linear networks and discriminators in float64, trained around the cycle."""

    def __init__(self, model):
        def arrays(models):
            return [[np.float64(w).copy() for w in m.get_weights()] for m in models]

        self.networks = arrays(model.networks)
        for weights in self.networks:
            weights[0] = weights[0].reshape(2, 4)
        self.discriminators = arrays(model.discriminators)

    def descend(self, role, weights, gradients):
        for w, g in zip(weights, gradients):
            w -= RATES[role] * (g + DECAYS[role] * w)

    def e1(self, x, labels):
        z = [x @ w @ v + b for w, v, b in self.networks]
        gradients = []
        for k, (w, v, _) in enumerate(self.networks):
            p = softmax(z[k - 1] / TEMPERATURE)
            q = softmax(z[k] / TEMPERATURE)
            # d CE = softmax - y; d T^2 KL = T (q - p); both means over the batch.
            dz = softmax(z[k]) - np.eye(tiny.CLASSES)[labels] + TEMPERATURE * (q - p)
            dz /= len(x)
            gradients.append((x.T @ dz @ v.T, (x @ w).T @ dz, dz.sum(axis=0)))
        return gradients

    def e2(self, m):
        for k, (u, c) in enumerate(self.discriminators):
            real, own = sigmoid(m[k - 1] @ u + c), sigmoid(m[k] @ u + c)
            d_real = -2 * (1 - real) * real * (1 - real) / len(real)
            d_own = 2 * own * own * (1 - own) / len(own)
            du = m[k - 1].T @ d_real + m[k].T @ d_own
            self.descend("discriminator", (u, c), (du, (d_real + d_own).sum(axis=0)))

    def e3(self, x, m):
        gradients = []
        for k, (u, c) in enumerate(self.discriminators):
            own = sigmoid(m[k] @ u + c)
            ds = -2 * (1 - own) * own * (1 - own) / len(own)
            gradients.append(x.T @ (ds @ u.T))
        return gradients

    def step(self, images, labels, forward):
        x = np.float64(images).mean(axis=(1, 2))
        e1 = self.e1(x, labels)
        if forward == "fresh":
            for weights, gradients in zip(self.networks, e1):
                self.descend("logit", weights, gradients)
        m = [x @ w for w, _, _ in self.networks]
        self.e2(m)
        e3 = self.e3(x, m)
        if forward == "shared":
            for weights, gradients in zip(self.networks, e1):
                self.descend("logit", weights, gradients)
        for (w, _, _), gradient in zip(self.networks, e3):
            self.descend("feature", (w,), (gradient,))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("forward", ["shared", "fresh"])
def test_steps_with_coupled_decay_equal_numpy_in_float64(forward, count):
    model = OnlineDistiller(
        [linear_network() for _ in range(count)],
        temperature=TEMPERATURE,
        forward=forward,
        discriminators=[linear_discriminator() for _ in range(count)],
    )
    model.compile(**compile_options(), run_eagerly=True)
    reference = Reference(model)
    for seed in range(4):
        images, labels = tiny.batch(seed=seed)
        images = images + 0.5 * seed  # maps that do not average out
        model.train_on_batch(images, labels)
        reference.step(images, np.array(labels), forward)
    for network, (w, v, b) in zip(model.networks, reference.networks):
        actual = network.get_weights()
        np.testing.assert_allclose(actual[0].reshape(2, 4), w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(actual[1], v, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(actual[2], b, rtol=1e-4, atol=1e-6)
    for discriminator, (u, c) in zip(model.discriminators, reference.discriminators):
        actual = discriminator.get_weights()
        np.testing.assert_allclose(actual[0], u, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(actual[1], c, rtol=1e-4, atol=1e-6)
