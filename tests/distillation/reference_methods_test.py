"""Whole steps of every method against float64 NumPy, gradients derived by hand.

Networks are linear: maps `h = x W` at every position, `m` their mean, logits `m V + b`.
Translators `h A`, paraphrasers `h P` with reconstruction `h P Q` and discriminators
`sigmoid(m u + c)` are linear too.
"""

import keras
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

from afd_tf import OnlineDistiller, methods

WEIGHT = 40.0


def linear(inputs, outputs):
    maps = keras.Input((None, None, inputs))
    layer = keras.layers.Conv2D(outputs, 1, use_bias=False)
    return keras.Model(maps, layer(maps))


def linear_paraphraser():
    maps = keras.Input((None, None, 4))
    factor = keras.layers.Conv2D(3, 1, use_bias=False)(maps)
    copy = keras.layers.Conv2D(4, 1, use_bias=False)(factor)
    return keras.Model(maps, [factor, copy])


def arrays(model):
    weights = [np.float64(w).copy() for w in model.get_weights()]
    return [w.reshape(w.shape[-2:]) if w.ndim == 4 else w for w in weights]


def through_unit(x, gradient):
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    u = x / norm
    return (gradient - u * np.sum(u * gradient, axis=-1, keepdims=True)) / norm


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def times(left, right):
    """Sum over examples and positions of `left^T right`."""
    return np.tensordot(left, right, axes=([0, 1], [0, 1]))


def of_attention(h, source):
    q, target = np.sum(h**2, axis=-1), unit(np.sum(source**2, axis=-1))
    by_q = through_unit(q, 2 * (unit(q) - target) / q.size)
    return 2 * h * by_q[..., None]


def of_factor(f, source):
    flat, target = f.reshape(len(f), -1), unit(source.reshape(len(f), -1))
    return through_unit(flat, np.sign(unit(flat) - target) / f.size).reshape(f.shape)


ALIGNMENT = {
    "l1": lambda h, source: np.sign(h - source) / h.size,
    "l2": lambda h, source: 2 * (h - source) / h.size,
    "at": of_attention,
}


class Reference:
    """Linear networks in float64; `peers[k]` is whom network k learns from."""

    def __init__(self, model, kind, kl):
        self.kind, self.kl = kind, kl
        self.networks = [arrays(n) for n in model.networks]
        count = len(self.networks)
        self.known = list(self.networks)
        self.peers = [(k - 1) % count for k in range(count)]
        if model.source is not None:
            self.known.append(arrays(model.source))
            self.peers = [count] * count
        self.discriminators = [arrays(d) for d in model.discriminators]
        layers = [arrays(layer) for layer in model.transfers]
        self.translators, self.paraphrasers = layers[:count], layers[count:]

    def step(self, images, labels):
        x = np.float64(images).reshape(len(images), 36, 2)
        h = [x @ w for w, _, _ in self.known]
        updates = [*self.logit(x.mean(axis=1), labels), *self.feature(x, h)]
        for role, weights, gradient in updates:
            weights -= RATES[role] * (gradient + DECAYS[role] * weights)

    def logit(self, x, labels):
        z = [x @ w @ v + b for w, v, b in self.known]
        for k, (w, v, b) in enumerate(self.networks):
            dz = softmax(z[k]) - np.eye(tiny.CLASSES)[labels]
            if self.kl:
                p, q = (softmax(z[i] / TEMPERATURE) for i in (self.peers[k], k))
                dz = dz + TEMPERATURE * (q - p)
            dz = dz / len(x)
            yield "logit", w, x.T @ dz @ v.T
            yield "logit", v, (x @ w).T @ dz
            yield "logit", b, dz.sum(axis=0)

    def feature(self, x, h):
        if self.kind == "factor":
            yield from self.factor(x, h)
            return
        for k, (w, _, _) in enumerate(self.networks):
            source = h[self.peers[k]]
            if self.kind == "adversarial":
                yield "feature", w, WEIGHT * self.adversarial(k, x, h[k], source)
            elif self.kind:
                by_map = ALIGNMENT[self.kind](h[k], source)
                yield "feature", w, WEIGHT * times(x, by_map)

    def adversarial(self, k, x, own, source):
        (u, c), own, source = (
            self.discriminators[k],
            own.mean(axis=1),
            source.mean(axis=1),
        )
        real, fake = sigmoid(source @ u + c), sigmoid(own @ u + c)
        by_real = -2 * (1 - real) ** 2 * real / len(x)
        by_fake = 2 * fake**2 * (1 - fake) / len(x)
        for weights, gradient in (
            (u, source.T @ by_real + own.T @ by_fake),
            (c, (by_real + by_fake).sum(axis=0)),
        ):
            step = gradient + DECAYS["discriminator"] * weights
            weights -= RATES["discriminator"] * step
        fake = sigmoid(own @ u + c)
        by_fake = -2 * (1 - fake) ** 2 * fake / len(x)
        return x.mean(axis=1).T @ (by_fake @ u.T)

    def factor(self, x, h):
        frozen = len(self.known) > len(self.networks)
        for k, (w, _, _) in enumerate(self.networks):
            j, (a,) = self.peers[k], self.translators[k]
            p, _ = self.paraphrasers[0 if frozen else j]
            by_factor = WEIGHT * of_factor(h[k] @ a, h[j] @ p)
            yield "feature", a, times(h[k], by_factor)
            yield "feature", w, times(x, by_factor @ a.T)
        for j, (p, q) in enumerate([] if frozen else self.paraphrasers):
            by_copy = WEIGHT * 2 * (h[j] @ p @ q - h[j]) / h[j].size
            yield "feature", q, times(h[j] @ p, by_copy)
            yield "feature", p, times(h[j], by_copy @ q.T)


KINDS = {
    "vanilla": None,
    "dml": None,
    "kd": None,
    "adversarial": "adversarial",
    "afd": "adversarial",
    "ft": "factor",
    "ft_kd": "factor",
    **{f"{name}{kd}": name for name in ALIGNMENT for kd in ("", "_kd")},
}
ONLINE = sorted({*methods.names()} - {"kd", "one"})
OFFLINE = sorted({*methods.names()} - {"vanilla", "dml", "one"})


def build(method, source):
    count = 2
    if method not in KINDS:
        pytest.fail(
            f"Method {method!r} has no reference. Write one: a distance's gradient in "
            "ALIGNMENT; else a kind in KINDS and its gradients in Reference."
        )
    kind = KINDS[method]
    given = {}
    if kind == "adversarial":
        given["discriminators"] = [linear_discriminator() for _ in range(count)]
    if kind == "factor":
        paraphrasers = [linear_paraphraser() for _ in range(1 if source else count)]
        translators = [linear(4, 3) for _ in range(count)]
        given["transfers"] = translators + paraphrasers
    return OnlineDistiller(
        [linear_network() for _ in range(count)],
        method,
        source=linear_network() if source else None,
        temperature=TEMPERATURE,
        feature_weight=WEIGHT,
        **given,
    )


@pytest.mark.parametrize(
    ("method", "source"),
    [*((m, False) for m in ONLINE), *((m, True) for m in OFFLINE)],
)
def test_steps_of_every_method_equal_numpy_in_float64(method, source):
    model = build(method, source)
    model.compile(**compile_options(), run_eagerly=True)
    if model.needs_pretraining:
        model.pretrain(tiny.dataset(), epochs=1, verbose=0)
    before = tiny.values(model.trainable_variables)
    reference = Reference(model, KINDS[method], model.method.kl)
    for seed in range(3):
        images, labels = tiny.batch(seed=seed)
        images = images + 0.5 * seed  # maps that do not average out
        model.train_on_batch(images, labels)
        reference.step(images, np.array(labels))
    expected = [w for part in reference.known for w in part]
    actual = [w for n in model.networks for w in arrays(n)]
    if source:
        actual += arrays(model.source)
    expected += [w for part in reference.discriminators for w in part]
    actual += [
        w for discriminator in model.discriminators for w in arrays(discriminator)
    ]
    layers = reference.translators + reference.paraphrasers
    expected += [w for part in layers for w in part]
    actual += [w for layer in model.transfers for w in arrays(layer)]
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)
    after = tiny.values(model.trainable_variables)
    assert not any(np.array_equal(b, a) for b, a in zip(before, after, strict=True))


# ONE ----------------------------------------------------------------------------------


def staged_linear_network():
    """Return `z = mean(x) W V U + b`, whose last stage is V, U and b."""
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 1, use_bias=False)(inputs)
    x = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.Conv2D(4, 1, use_bias=False)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(tiny.CLASSES)(x))


class One:
    """A linear trunk, branches and their gate in float64."""

    def __init__(self, model):
        parts = [arrays(n) for n in model.networks]
        self.trunk = parts[0][0]
        self.branches = [part[1:] for part in parts]
        self.gate = arrays(model.branched.get_layer("gate"))

    def step(self, images, labels):
        x, y = np.float64(images).mean(axis=(1, 2)), np.eye(tiny.CLASSES)[labels]
        s, (g, c) = x @ self.trunk, self.gate
        z = [s @ v @ u + b for v, u, b in self.branches]
        active = s @ g + c > 0
        w = softmax(np.maximum(s @ g + c, 0))
        gated = sum(w[:, k : k + 1] * zk for k, zk in enumerate(z))
        by_gated = (softmax(gated) - y) / len(x)
        by_w = np.stack([(by_gated * zk).sum(axis=-1) for zk in z], axis=-1)
        by_gate = w * (by_w - (w * by_w).sum(axis=-1, keepdims=True)) * active
        by_s = by_gate @ g.T
        updates = [(g, s.T @ by_gate), (c, by_gate.sum(axis=0))]
        target = softmax(gated / TEMPERATURE)
        for k, (v, u, b) in enumerate(self.branches):
            dz = (
                softmax(z[k]) - y + TEMPERATURE * (softmax(z[k] / TEMPERATURE) - target)
            )
            dz = dz / len(x) + w[:, k : k + 1] * by_gated
            updates += [(v, s.T @ dz @ u.T), (u, (s @ v).T @ dz), (b, dz.sum(axis=0))]
            by_s = by_s + dz @ u.T @ v.T
        updates.append((self.trunk, x.T @ by_s))
        for weights, gradient in updates:
            weights -= RATES["logit"] * (gradient + DECAYS["logit"] * weights)


def test_steps_of_branches_and_their_gate_equal_numpy_in_float64():
    model = OnlineDistiller(
        [staged_linear_network()], "one", temperature=TEMPERATURE, names=list("abc")
    )
    model.compile(
        tiny.sgd(RATES["logit"]), logit_weight_decay=DECAYS["logit"], run_eagerly=True
    )
    reference = One(model)
    for seed in range(4):
        images, labels = tiny.batch(seed=seed)
        images = images + 0.5 * seed
        model.train_on_batch(images, labels)
        reference.step(images, np.array(labels))
    for network, branch in zip(model.networks, reference.branches, strict=True):
        for one, other in zip(arrays(network), [reference.trunk, *branch], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    gate = arrays(model.branched.get_layer("gate"))
    for one, other in zip(gate, reference.gate, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
