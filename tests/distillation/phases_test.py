"""Phases: an optimizer's own variables, with their decay."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf import OnlineDistiller
from afd_tf.distillation.phases import Phase, WeightDecay


def weight(value):
    return keras.Variable(np.array(value, "float32"), name="kernel")


def phase(optimizer, decay, variables, before=None):
    return Phase("logit", optimizer, None, decay, variables, False, before)


def test_coupled_decay_enters_the_moments():
    # One Adam step is lr * g / |g|: with a gradient of zero, the sign of the weight.
    v = weight([2.0, -0.5])
    p = phase(keras.optimizers.Adam(0.01), WeightDecay("coupled", 0.1), [v])
    p.apply([np.zeros(2, "float32")])
    np.testing.assert_allclose(v, [1.99, -0.49], rtol=1e-5)


def test_decoupled_decay_shrinks_weights_by_the_learning_rate_times_the_amount():
    v = weight([2.0, -0.5])
    p = phase(keras.optimizers.Adam(0.01), WeightDecay("decoupled", 0.1), [v])
    p.apply([np.zeros(2, "float32")])
    np.testing.assert_allclose(v, [2.0 * 0.999, -0.5 * 0.999], rtol=1e-6)


def test_coupled_decay_with_momentum_equals_l2_by_hand():
    v, w, velocity = weight([1.0]), 1.0, 0.0
    p = phase(keras.optimizers.SGD(0.1, momentum=0.9), WeightDecay("coupled", 0.5), [v])
    for gradient in (0.3, -0.2, 0.1):
        p.apply([np.array([gradient], "float32")])
        velocity = 0.9 * velocity - 0.1 * (gradient + 0.5 * w)
        w += velocity
    np.testing.assert_allclose(v, [w], rtol=1e-5)


@pytest.mark.parametrize("kind", ["coupled", "decoupled"])
def test_biases_and_normalisation_can_be_exempt(kind):
    images, labels = tiny.batch()
    networks = [tiny.network(normalization=True) for _ in range(2)]
    model = tiny.distiller(
        networks,
        "vanilla",
        compiled={
            "weight_decay": kind,
            "logit_weight_decay": 0.5,
            "decay_bias": False,
            "decay_normalization": False,
        },
    )
    bn, head = networks[0].get_layer("bn"), networks[0].get_layer("logits")
    for layer in (bn, head):
        for v in layer.trainable_variables:
            v.assign(np.full(v.shape, 2.0))
    # No example counts: only decay can move a weight.
    model.train_on_batch(images, labels, sample_weight=np.zeros(8, "float32"))
    np.testing.assert_array_equal(bn.gamma, np.full(4, 2.0))
    np.testing.assert_array_equal(bn.beta, np.full(4, 2.0))
    np.testing.assert_array_equal(head.bias, np.full(3, 2.0))
    np.testing.assert_allclose(head.kernel, np.full((4, 3), 1.9), rtol=1e-5)


def test_decoupled_decay_reaches_an_optimizer_that_scales_losses():
    v = weight([2.0, -0.5])
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    p = phase(scaled, WeightDecay("decoupled", 0.5), [v])
    p.apply([np.zeros(2, "float32")])
    np.testing.assert_allclose(v, [1.9, -0.475], rtol=1e-6)
    saved = keras.optimizers.deserialize(p.serialized_optimizer())
    assert isinstance(saved, keras.optimizers.LossScaleOptimizer)
    assert saved.inner_optimizer.weight_decay is None


def test_compiling_again_with_the_same_optimizer_decays_once():
    optimizer, v, p = keras.optimizers.SGD(0.1), weight([2.0]), None
    for expected in (1.9, 1.9 * 0.95, 1.9 * 0.95**2):
        p = phase(optimizer, WeightDecay("decoupled", 0.5), [v], before=p)
        p.apply([np.zeros(1, "float32")])
        np.testing.assert_allclose(v, [expected], rtol=1e-6)
    with pytest.raises(ValueError, match="set twice"):
        phase(optimizer, WeightDecay("coupled", 0.5), [v])
    trained = keras.optimizers.SGD(0.1)
    phase(trained, WeightDecay("coupled", 0.5), [v])
    with pytest.raises(ValueError, match="too late for decoupled"):
        phase(trained, WeightDecay("decoupled", 0.5), [v])


def test_an_optimizer_of_another_model_is_refused():
    optimizer = keras.optimizers.SGD(0.1)
    phase(optimizer, WeightDecay("none", 0.0), [weight([1.0])])
    with pytest.raises(ValueError, match=r"another model.*new optimizer"):
        phase(optimizer, WeightDecay("none", 0.0), [weight([1.0])])


def test_no_optimizer_state_is_shared_and_each_counts_every_step_once():
    images, labels = tiny.batch()
    model = OnlineDistiller([tiny.network(), tiny.network(6)], tiny.afd())
    model.compile(run_eagerly=True)
    for _ in range(3):
        model.train_on_batch(images, labels)
    assert [int(o.iterations) for o in tiny.optimizers(model)] == [3, 3, 3]
    ids = [id(v) for o in tiny.optimizers(model) for v in o.variables]
    assert len(ids) == len(set(ids))


def test_an_optimizer_that_accumulates_gradients_counts_steps():
    images, labels = tiny.batch()
    model = tiny.distiller(
        compiled={
            "optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
            "run_eagerly": False,
        }
    )
    before = tiny.values(model.networks[0].trainable_variables)
    model.fit(images, labels, 2, verbose=0)
    after = tiny.values(model.networks[0].trainable_variables)
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert int(model.optimizer.iterations) == 2
    assert int(model.discriminator_optimizer.iterations) == 4


def test_two_networks_that_share_a_discriminator_are_refused_at_compile():
    discriminator = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model = OnlineDistiller(
        [tiny.network(), tiny.network()], discriminators=[discriminator] * 2
    )
    with pytest.raises(ValueError, match="two owners"):
        model.compile()


@pytest.mark.parametrize(("frozen", "what"), [(True, "unfrozen"), (False, "frozen")])
def test_layers_that_thaw_after_compile_are_named(frozen, what):
    networks = [tiny.network(name="a"), tiny.network(name="b")]
    layer = networks[0].get_layer("conv")
    layer.trainable = not frozen
    model = tiny.distiller(networks)
    layer.trainable = frozen
    message = f"were {what} after compile.*: 'conv/kernel', 'conv/bias'. Compile"
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(*tiny.batch())
    tiny.distiller(networks).train_on_batch(*tiny.batch())
