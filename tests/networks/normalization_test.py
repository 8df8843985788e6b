"""Fused batch normalisation against NumPy in float64 and against the stock layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from afd_tf.networks.layers.batch_statistics import (
    BatchStatisticsNormalization,
    make_batch_statistics_normalization,
)
from afd_tf.networks.layers.normalization import (
    FusedBatchNormalization,
    make_normalization,
    with_stock_normalization,
)

SHAPE = (4, 5, 6, 7)


def data(shape=SHAPE, seed=0, mean=2.0, std=3.0):
    return np.random.default_rng(seed).normal(mean, std, shape)


def stock(**options):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)


def prepare(layer, channels=7):
    layer.build((None, None, None, channels))
    layer.gamma.assign(np.linspace(0.5, 2, channels))
    layer.beta.assign(np.linspace(-1, 1, channels))
    if hasattr(layer, "moving_mean"):
        layer.moving_mean.assign(np.linspace(0, 1, channels))
        layer.moving_variance.assign(np.linspace(0.3, 1, channels))
    return layer


def outputs_and_gradients(layer, x, cotangent, training):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, "float32") * tf.cast(cotangent, "float32"))
    gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
    return [np.asarray(tf.cast(t, "float64")) for t in (y, *gradients)]


def numpy_normalization(x, g, gamma, beta, mean=None, variance=None, epsilon=1e-5):
    """y and the gradients of sum(g * y), in float64, from the definition."""
    axes = (0, 1, 2)
    batch = mean is None
    if batch:
        mean, variance = x.mean(axes), x.var(axes)
    scale = 1 / np.sqrt(variance + epsilon)
    normal = (x - mean) * scale
    dx = g * gamma * scale
    if batch:
        dx = dx - dx.mean(axes) - normal * (dx * normal).mean(axes)
    return [gamma * normal + beta, dx, (g * normal).sum(axes), g.sum(axes)]


@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_follow_the_definition(training):
    layer = prepare(FusedBatchNormalization())
    x, g = data(), data(seed=1, mean=0, std=1)
    statistics = (
        {}
        if training
        else {"mean": np.linspace(0, 1, 7), "variance": np.linspace(0.3, 1, 7)}
    )
    expected = numpy_normalization(
        x, g, np.linspace(0.5, 2, 7), np.linspace(-1, 1, 7), **statistics
    )
    received = outputs_and_gradients(
        layer, x.astype("float32"), g.astype("float32"), training
    )
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 2**-7)]
)
def test_equal_to_the_stock_layer(training, policy, tolerance):
    x = data().astype("float32")
    g = data(seed=1, mean=0, std=1).astype("float32")
    pair = [prepare(make(dtype=policy)) for make in (FusedBatchNormalization, stock)]
    fused, reference = (outputs_and_gradients(m, x, g, training) for m in pair)
    for a, b in zip(fused, reference, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=5e-5)
    np.testing.assert_allclose(pair[0].moving_mean, pair[1].moving_mean, rtol=1e-6)
    assert [v.dtype for v in pair[0].variables] == ["float32"] * 4


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_bfloat16"])
def test_moving_statistics_after_one_step(unbiased, policy):
    layer = FusedBatchNormalization(momentum=0.7, unbiased=unbiased, dtype=policy)
    x = data()
    if policy == "mixed_bfloat16":
        x = np.asarray(tf.cast(tf.cast(x, "bfloat16"), "float64"))
    layer(
        tf.constant(x, "float64" if policy == "float64" else "float32"), training=True
    )
    variance = x.var((0, 1, 2), ddof=1 if unbiased else 0)
    np.testing.assert_allclose(layer.moving_mean, 0.3 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.7 + 0.3 * variance, rtol=1e-5)


def test_float64_outputs_equal_the_stock_layer():
    x, g = data(), data(seed=1)
    for training in (True, False):
        fused, reference = (
            outputs_and_gradients(prepare(make(dtype="float64")), x, g, training)
            for make in (FusedBatchNormalization, stock)
        )
        for a, b in zip(fused, reference, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_one_value_per_channel_leaves_everything_finite():
    layer = FusedBatchNormalization()
    y = layer(np.full((1, 1, 1, 3), 5.0, "float32"), training=True)
    np.testing.assert_array_equal(y, np.zeros((1, 1, 1, 3)))
    np.testing.assert_allclose(layer.moving_variance, [0.9] * 3)
    np.testing.assert_allclose(layer.moving_mean, [0.5] * 3)


def test_frozen_layer_runs_in_inference_mode():
    layer = prepare(FusedBatchNormalization())
    layer.trainable = False
    x = data().astype("float32")
    before = [v.numpy().copy() for v in layer.variables]
    y = layer(x, training=True)
    np.testing.assert_array_equal(y, layer(x, training=False))
    for a, b in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_swap_with_the_stock_layer():
    fused, reference = FusedBatchNormalization(), prepare(stock())
    fused.build((None, 2, 2, 7))
    assert [v.name for v in fused.weights] == [v.name for v in reference.weights]
    fused.set_weights(reference.get_weights())
    x = data().astype("float32")
    np.testing.assert_allclose(fused(x), reference(x), rtol=1e-5, atol=1e-5)


def test_graph_and_eager_agree():
    x = data().astype("float32")
    eager, graph = (prepare(FusedBatchNormalization()) for _ in range(2))
    y = eager(x, training=True)
    traced = tf.function(lambda t: graph(t, training=True))(x)
    np.testing.assert_allclose(y, traced, rtol=1e-6)
    np.testing.assert_array_equal(eager.moving_variance, graph.moving_variance)


def test_stateless_scope_holds_the_updates_back():
    layer = prepare(FusedBatchNormalization())
    x = data().astype("float32")
    before = layer.get_weights()

    @tf.function
    def second_pass(t):
        with keras.StatelessScope() as scope:
            y = layer(t, training=True)
        return y, scope.get_current_value(layer.moving_mean)

    y, moved = second_pass(x)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(y, layer(x, training=True), rtol=1e-6)
    np.testing.assert_allclose(moved, layer.moving_mean, rtol=1e-6)


def on_two_replicas(strategy, layer, x):
    """Return the layer's outputs in training, each replica given half of `x`."""

    @tf.function
    def step():
        def replica():
            i = tf.distribute.get_replica_context().replica_id_in_sync_group
            return layer(tf.gather(tf.split(tf.constant(x), 2), i), training=True)

        return strategy.run(replica)

    return strategy.experimental_local_results(step())


@pytest.mark.multi_device
def test_replicas_keep_their_own_statistics():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = FusedBatchNormalization()
        layer.build((None, None, None, 7))
    x = data().astype("float32")

    values = on_two_replicas(strategy, layer, x)
    for half, y in zip(np.split(x, 2), values, strict=True):
        alone = FusedBatchNormalization()
        np.testing.assert_allclose(y, alone(half, training=True), atol=1e-5)
    np.testing.assert_allclose(
        layer.moving_mean, 0.1 * x[:2].mean((0, 1, 2)), rtol=1e-5
    )


@pytest.mark.multi_device
@pytest.mark.parametrize(
    "make", [make_normalization, make_batch_statistics_normalization]
)
def test_synchronised_replicas_equal_one_device(make):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = make("sync")
        layer.build((None, None, None, 7))
    x = data().astype("float32")

    y = np.concatenate(on_two_replicas(strategy, layer, x))
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("synchronized", [True, False])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
def test_batch_statistics_ignore_training_and_keep_nothing(synchronized, policy):
    layer = prepare(BatchStatisticsNormalization(synchronized, dtype=policy))
    dtype = "float64" if policy == "float64" else "float32"
    x, g = data().astype(dtype), data(seed=1).astype(dtype)
    expected = numpy_normalization(
        x.astype("float64"), g, np.linspace(0.5, 2, 7), np.linspace(-1, 1, 7)
    )
    tolerance = 2e-2 if policy == "mixed_bfloat16" else 1e-4
    received = [outputs_and_gradients(layer, x, g, t) for t in (True, False)]
    for a, b, e in zip(*received, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=10 * tolerance)
    assert [v.name for v in layer.variables] == ["gamma", "beta"]


def small_network(normalization):
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(images)
    x = normalization(name="norm1")(x)
    x = layers.Dropout(0.2)(layers.ReLU()(x))
    x = keras.ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, 2)))
    x = normalization(name="norm2")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(3)(x), name="small")


def trained(model):
    for i in range(3):
        model(data((16, 8, 8, 3), seed=i).astype("float32"), training=True)
    return model


def test_stock_copy_has_equal_outputs_and_no_layer_of_ours(tmp_path):
    model = trained(small_network(FusedBatchNormalization))
    copy = with_stock_normalization(model)
    x = data((5, 8, 8, 3), seed=9).astype("float32")
    np.testing.assert_allclose(copy(x), model(x), rtol=1e-5, atol=1e-5)
    assert not any("afd_tf" in type(layer).__module__ for layer in copy.layers)
    assert [v.path for v in copy.weights] == [v.path for v in model.weights]
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert copy.count_params() == model.count_params()
    copy.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded(x), copy(x))


def test_stock_copy_of_nested_sequential():
    inner = small_network(FusedBatchNormalization)
    model = keras.Sequential([keras.Input((8, 8, 3)), inner])
    trained(model)
    x = data((5, 8, 8, 3), seed=9).astype("float32")
    copy = with_stock_normalization(model)
    np.testing.assert_allclose(copy(x), model(x), rtol=1e-5, atol=1e-5)
    assert isinstance(copy.layers[0].get_layer("norm1"), layers.BatchNormalization)


def test_keras_file_and_saved_model_round_trip(tmp_path):
    model = trained(small_network(FusedBatchNormalization))
    x = data((5, 8, 8, 3), seed=9).astype("float32")
    model.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    config = loaded.get_layer("norm1").get_config()
    assert (config["momentum"], config["epsilon"], config["unbiased"]) == (
        0.9,
        1e-5,
        True,
    )
    model.export(str(tmp_path / "saved"), verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(
        saved.serve(tf.constant(x)), model(x), rtol=1e-5, atol=1e-6
    )


def test_two_networks_train_alike_with_either_layer():
    models = [small_network(FusedBatchNormalization), small_network(stock)]
    models[1].set_weights(models[0].get_weights())
    x = data((32, 8, 8, 3)).astype("float32")
    y = np.arange(32) % 3
    for model in models:
        model.layers[4].rate = 0.0
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(
        models[0].trainable_variables, models[1].trainable_variables, strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_kinds():
    assert isinstance(make_normalization("batch"), FusedBatchNormalization)
    assert make_normalization("sync").synchronized
    assert make_normalization("sync").epsilon == 1e-5
    assert make_normalization("none") is None
    assert make_batch_statistics_normalization("none") is None
    with pytest.raises(ValueError, match=r"`normalization`.*Did you mean 'batch'\?"):
        make_normalization("bath")


@pytest.mark.parametrize("shape", [(None, 4), (None, 4, 4), (2, 3, 4, None)])
def test_other_ranks_are_refused(shape):
    with pytest.raises(ValueError, match=r"keras\.layers\.BatchNormalization"):
        FusedBatchNormalization().build(shape)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`momentum`.*Received: momentum=1\.5"):
        FusedBatchNormalization(momentum=1.5)
    with pytest.raises(ValueError, match=r"`epsilon`.*Received: epsilon=0"):
        FusedBatchNormalization(epsilon=0)
