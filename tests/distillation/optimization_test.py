"""Whose optimizer moves what, by how much, with which decay and learning rate."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf import OnlineDistiller
from afd_tf.distillation import schedules
from afd_tf.distillation.phases import Phase, WeightDecay

ROLES = ("optimizer", "feature_optimizer", "discriminator_optimizer")


def optimizers(model):
    return [model.optimizer, model.feature_optimizer, model.discriminator_optimizer]


def weight(value):
    return keras.Variable(np.array(value, "float32"), name="kernel")


def phase(optimizer, decay, variables, schedule=None):
    return Phase("logit", optimizer, schedule, decay, variables, scale_losses=False)


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
    optimizer, v = keras.optimizers.SGD(0.1), weight([2.0])
    for expected in (1.9, 1.9 * 0.95):
        p = phase(optimizer, WeightDecay("decoupled", 0.5), [v])
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


def test_defaults_are_the_paper_s():
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile()
    logit, feature, judge = optimizers(model)
    assert (float(logit.learning_rate), logit.momentum) == (pytest.approx(0.1), 0.9)
    for adam in (feature, judge):
        assert isinstance(adam, keras.optimizers.Adam)
        assert float(adam.learning_rate) == pytest.approx(2e-5)
    decays = [p.decay.amount for p in model.phases]
    assert decays == [1e-4, 0.1, 0.1]
    assert {p.decay.kind for p in model.phases} == {"coupled"}
    assert [repr(p.schedule) for p in model.phases] == [
        "x0.1 at 0.5, 0.75",
        "x0.1 at 0.25, 0.5",
        "x0.1 at 0.25, 0.5",
    ]


def test_no_optimizer_state_is_shared_and_each_counts_every_step_once():
    images, labels = tiny.batch()
    model = OnlineDistiller([tiny.network(), tiny.network(6)], tiny.afd())
    model.compile(run_eagerly=True)
    for _ in range(3):
        model.train_on_batch(images, labels)
    assert [int(o.iterations) for o in optimizers(model)] == [3, 3, 3]
    ids = [id(v) for o in optimizers(model) for v in o.variables]
    assert len(ids) == len(set(ids))


class Rates(keras.callbacks.Callback):
    """Record the learning rates in force at each step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append([float(o.learning_rate) for o in optimizers(self.model)])


@pytest.mark.parametrize("steps_per_execution", [1, 5])
def test_every_learning_rate_drops_at_its_fractions_of_training(steps_per_execution):
    images, labels = tiny.batch(8)
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile(steps_per_execution=steps_per_execution)
    rates = Rates()
    # 10 epochs of 2 steps: logit at steps 10 and 15, the others at 5 and 10.
    model.fit(images, labels, batch_size=4, epochs=10, verbose=0, callbacks=[rates])
    expected = [
        [
            0.1 * 0.1 ** (int(s >= 10) + int(s >= 15)),
            2e-5 * 0.1 ** (int(s >= 5) + int(s >= 10)),
            2e-5 * 0.1 ** (int(s >= 5) + int(s >= 10)),
        ]
        for s in range(20)
    ]
    if steps_per_execution > 1:  # an epoch of 2 steps is one execution
        expected = expected[1::2]
    np.testing.assert_allclose(rates.rates, expected, rtol=1e-5)


def test_training_in_two_calls_of_fit_has_the_rates_of_one():
    images, labels = tiny.batch(8)
    recorded = []
    for splits in ([(0, 8)], [(0, 3), (3, 8)]):
        model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
        model.compile(total_steps=16)
        rates = Rates()
        for first, last in splits:
            model.fit(
                images,
                labels,
                batch_size=4,
                initial_epoch=first,
                epochs=last,
                verbose=0,
                callbacks=[rates],
            )
        recorded.append(rates.rates)
    np.testing.assert_allclose(recorded[0], recorded[1])


def test_keras_learning_rate_callbacks_take_over_the_logit_schedule():
    images, labels = tiny.batch(8)
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile(run_eagerly=True)
    rates = Rates()
    driver = keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: 0.5 / (epoch + 1)
    )
    model.fit(images, labels, 8, epochs=4, verbose=0, callbacks=[driver, rates])
    np.testing.assert_allclose(
        np.array(rates.rates)[:, 0], [0.5, 0.25, 0.5 / 3, 0.125], rtol=1e-6
    )
    np.testing.assert_allclose(np.array(rates.rates)[-1, 1], 2e-7, rtol=1e-5)


def test_a_later_call_of_fit_goes_on_from_its_initial_epoch():
    images, labels = tiny.batch(8)
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile(run_eagerly=True)
    driver = keras.callbacks.LearningRateScheduler(lambda epoch: 0.7)
    model.fit(images, labels, 4, epochs=2, verbose=0, callbacks=[driver])
    assert int(model.total_steps) == 4
    rates = Rates()
    model.fit(
        images, labels, 4, epochs=4, initial_epoch=2, verbose=0, callbacks=[rates]
    )
    assert (int(model.first_step), int(model.total_steps)) == (0, 8)
    # The schedule is back: steps 4 to 7 of 8.
    expected = [0.01, 0.01, 0.001, 0.001]
    np.testing.assert_allclose(np.array(rates.rates)[:, 0], expected, rtol=1e-5)


def test_each_call_of_fit_from_the_first_epoch_is_a_training_of_its_own():
    images, labels = tiny.batch(8)
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile()
    rates = Rates()
    for epochs in (2, 4):
        model.fit(images, labels, 4, epochs=epochs, verbose=0, callbacks=[rates])
    expected = [0.1, 0.1, 0.01, 0.001] + [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    np.testing.assert_allclose(np.array(rates.rates)[:, 0], expected, rtol=1e-5)


def test_keras_name_of_the_optimizer_is_understood():
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile(
        optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    with pytest.raises(ValueError, match="two names of one thing"):
        model.compile("sgd", optimizer="adam")


class Driver(keras.callbacks.Callback):
    """Set the logit learning rate as users do."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.5 / (epoch + 1)


def test_a_callback_of_ones_own_is_told_that_a_schedule_overrules_it():
    images, labels = tiny.batch(8)
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile(run_eagerly=True)
    with pytest.warns(UserWarning, match="logit_schedule=None"):
        model.fit(images, labels, 8, epochs=1, verbose=0, callbacks=[Driver()])
    model.compile(run_eagerly=True, logit_schedule=None)
    rates = Rates()
    model.fit(images, labels, 8, epochs=2, verbose=0, callbacks=[Driver(), rates])
    np.testing.assert_allclose(np.array(rates.rates)[:, 0], [0.5, 0.25], rtol=1e-6)


def test_an_optimizer_of_ones_own_keeps_its_learning_rate():
    images, labels = tiny.batch(8)
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile(keras.optimizers.SGD(0.3))
    rates = Rates()
    model.fit(images, labels, batch_size=4, epochs=4, verbose=0, callbacks=[rates])
    np.testing.assert_allclose(np.array(rates.rates)[:, 0], 0.3)


def test_unknown_length_of_training_is_an_error_that_says_what_to_pass():
    images, labels = tiny.batch(8)

    def generator():
        while True:
            yield images, labels

    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        model.fit(generator(), epochs=2, verbose=0, shuffle=False)
    model.fit(generator(), epochs=2, steps_per_epoch=3, verbose=0, shuffle=False)
    assert int(model.total_steps) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"optimizer": keras.optimizers.AdamW(0.1)},
            "Weight decay is set twice",
        ),
        ({"weight_decay": "l2"}, "'coupled'"),
        ({"feature_weight_decay": -1.0}, "finite float >= 0"),
        ({"logit_schedule": "cosin"}, "Did you mean 'cosine'"),
        (
            {
                "optimizer": keras.optimizers.SGD(
                    keras.optimizers.schedules.CosineDecay(0.1, 10)
                ),
                "logit_schedule": schedules.Cosine(),
            },
            "schedule of its own",
        ),
        ({"gradient_ratio_every": 0}, "int >= 1"),
        ({"feature_every": 1.5}, "int >= 1"),
        ({"label_smoothing": 1.5}, r"\[0, 1\)"),
        ({"loss": keras.losses.SparseCategoricalCrossentropy()}, "from_logits=True"),
        (
            {"loss": keras.losses.sparse_categorical_crossentropy},
            "sparse_categorical_crossentropy, which takes probabilities",
        ),
        ({"loss": keras.losses.KLDivergence()}, "KLDivergence, which takes prob"),
        ({"metrics": [keras.metrics.Mean("loss")]}, "accuracies are always reported"),
        (
            {
                "optimizer": keras.optimizers.LossScaleOptimizer(
                    keras.optimizers.AdamW(0.1)
                )
            },
            "Weight decay is set twice",
        ),
    ],
)
def test_contradictions_in_compile_are_refused(arguments, message):
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    with pytest.raises(ValueError, match=message):
        model.compile(**arguments)


def test_one_optimizer_cannot_have_two_roles():
    model = OnlineDistiller([tiny.network(), tiny.network()], tiny.afd())
    shared = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="different optimizer objects"):
        model.compile(optimizer=shared, feature_optimizer=shared)
