"""Options of `compile`: defaults, contradictions, losses of one's own."""

import keras
import pytest
import tensorflow as tf
import tiny

from afd_tf.distillation import schedules


def test_defaults_are_the_paper_s():
    model = tiny.pair()
    model.compile()
    logit, feature, discriminator = tiny.optimizers(model)
    assert (float(logit.learning_rate), logit.momentum) == (pytest.approx(0.1), 0.9)
    for adam in (feature, discriminator):
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


def test_arguments_are_in_keras_order():
    model = tiny.pair()
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    with pytest.raises(ValueError, match=r"`loss`.*Received: loss='adam'"):
        model.compile("sgd", "adam")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"optimizer": keras.optimizers.AdamW(0.1)},
            "Weight decay is set twice",
        ),
        ({"weight_decay": "l2"}, "'coupled'"),
        (
            {"feature_weight_decay": -1.0},
            "`feature_weight_decay`.*a finite number >= 0",
        ),
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
    model = tiny.pair()
    with pytest.raises(ValueError, match=message):
        model.compile(**arguments)


def test_one_optimizer_cannot_have_two_roles():
    model = tiny.pair()
    shared = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="different optimizer objects"):
        model.compile(optimizer=shared, feature_optimizer=shared)


@pytest.mark.parametrize(
    ("argument", "scaled"),
    [("optimizer", False), ("feature_optimizer", True), ("discriminator_optimizer", 0)],
)
def test_averages_that_keras_would_write_into_other_networks_are_refused(
    argument, scaled
):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match=f"`{argument}`.*without use_ema"):
        tiny.distiller(compiled={argument: optimizer})


@pytest.mark.parametrize("value", [0, 1.5, True, "4"])
def test_steps_per_execution_is_a_count(value):
    with pytest.raises(ValueError, match=r"`steps_per_execution`.*an int >= 1"):
        tiny.distiller(compiled={"steps_per_execution": value})


def test_jit_compile_is_a_bool_or_auto():
    with pytest.raises(ValueError, match=r"`jit_compile`.*True or False"):
        tiny.distiller(compiled={"jit_compile": "yes"})
    assert tiny.distiller(compiled={"jit_compile": "auto"}).jit_compile is False


def test_compiling_again_with_the_same_optimizers_goes_on_counting():
    images, labels = tiny.batch()
    model = tiny.distiller()
    model.train_on_batch(images, labels)
    model.compile(
        model.optimizer,
        feature_optimizer=model.feature_optimizer,
        discriminator_optimizer=model.discriminator_optimizer,
        weight_decay="none",
    )
    assert int(model.trained_steps) == 1
    model.compile()
    assert int(model.trained_steps) == 0


def test_weights_of_sixteen_bits_are_warned_of():
    keras.config.set_dtype_policy("bfloat16")
    short = [tiny.network(name="a"), tiny.network(name="b")]
    with pytest.warns(UserWarning, match="10 of 18 .*bfloat16.*mixed_bfloat16"):
        tiny.distiller(short)
    keras.config.set_dtype_policy("mixed_bfloat16")
    tiny.distiller()  # a warning is an error


def test_a_loss_of_ones_own_gives_one_value_per_example():
    def per_example(labels, logits):
        return keras.losses.sparse_categorical_crossentropy(labels, logits, True)

    plain, own = (
        tiny.named(run_eagerly=True),
        tiny.named(run_eagerly=True, loss=per_example),
    )
    own.set_weights(plain.get_weights())
    results = [m.test_on_batch(*tiny.batch(), return_dict=True) for m in (plain, own)]
    assert results[1] == pytest.approx(results[0], rel=1e-6)
    mean = tiny.named(
        run_eagerly=True, loss=lambda y, z: tf.reduce_mean(per_example(y, z))
    )
    with pytest.raises(ValueError, match=r"one value per example.*shape \(\)"):
        mean.train_on_batch(*tiny.batch())
