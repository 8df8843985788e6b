"""Training in recomputed segments against training that keeps every map."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from keras import layers

from afd_tf import OnlineDistiller, networks
from afd_tf.networks import graph
from afd_tf.networks.rematerialization import cut

SHAPE = (8, 8, 3)


def small_resnet(**options):
    return networks.resnet(8, 3, SHAPE, **options)


def small_wide_resnet(**options):
    return networks.wide_resnet(10, 2, 3, SHAPE, **options)


def images(batch=4, shape=SHAPE, dtype="float32"):
    x = np.random.default_rng(0).normal(size=(batch, *shape))
    return tf.constant(x, dtype)


def passes(network, checkpointing, x, layer=None, compiled=False):
    """Forward pass, then the gradients of two losses, one of the map, one of all."""
    tapped = networks.tap(network, layer, checkpointing=checkpointing)

    def run():
        with tf.GradientTape(persistent=True) as tape:
            feature_map, logits = tapped.forward(x, training=True)
            whole = tf.add_n(
                [tf.reduce_sum(logits**2)]
                + [tf.cast(loss, logits.dtype) for loss in network.losses]
            )
            part = tf.reduce_sum(tf.cast(feature_map, logits.dtype) ** 3)
        return (
            [feature_map, logits, whole],
            tape.gradient(whole, network.trainable_variables),
            tape.gradient(part, tapped.extractor_variables),
        )

    results = (tf.function(run) if compiled else run)()
    state = [tf.convert_to_tensor(v.value) for v in network.non_trainable_variables]
    return [np.asarray(tf.cast(t, "float64")) for t in tf.nest.flatten(results)] + [
        np.asarray(tf.cast(t, "float64")) for t in state
    ]


def with_and_without(network, x, checkpointing=True, **options):
    """Both ways from the same weights, statistics and seeds."""
    start = tiny.values(network.variables)
    results = []
    for option in (False, checkpointing):
        for variable, value in zip(network.variables, start, strict=True):
            variable.assign(value)
        results.append(passes(network, option, x, **options))
    return results


def assert_equal_passes(network, x, rtol=1e-5, **options):
    for expected, received in zip(
        *with_and_without(network, x, **options), strict=True
    ):
        scale = np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(received / scale, expected / scale, atol=rtol)


@pytest.mark.parametrize(
    ("make", "compiled"), [(small_resnet, True), (small_wide_resnet, False)]
)
def test_maps_gradients_and_statistics_are_those_of_an_ordinary_pass(make, compiled):
    assert_equal_passes(make(), images(), compiled=compiled)


@pytest.mark.parametrize("make", [small_resnet, small_wide_resnet])
def test_in_double_precision_they_agree_to_rounding(make):
    keras.config.set_dtype_policy("float64")
    assert_equal_passes(make(), images(dtype="float64"), rtol=1e-13)


@pytest.mark.parametrize("segments", [2, 3, 1000])
def test_any_number_of_segments_gives_the_same(segments):
    assert_equal_passes(small_resnet(), images(), checkpointing=segments)


def test_recomputed_dropout_draws_the_mask_of_the_forward_pass():
    network = small_wide_resnet(dropout=0.5)
    assert_equal_passes(network, images(), compiled=True)
    seeds = [v for v in network.variables if "seed_generator" in v.path]
    assert len(seeds) == 3
    for seed in seeds:  # moved once a pass, not again in two backward passes
        assert np.array(seed)[1] == 1


def test_half_precision_computes_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = small_resnet()
    tapped = networks.tap(network, checkpointing=True)
    assert tapped.forward(images(), training=True)[0].dtype == tf.bfloat16
    assert_equal_passes(network, images(), rtol=1e-2)


class GlobalNoise(layers.Layer):
    """Noise from Keras' global generator, which belongs to no layer."""

    def call(self, x, training=False):
        noise = keras.random.normal(keras.ops.shape(x)) if training else 0.0
        return x * (1.0 + 0.5 * noise)

    def compute_output_shape(self, input_shape):
        return input_shape


class Block(layers.Layer):
    """Has no `training` argument to hand on to the layers in it."""

    def __init__(self):
        super().__init__()
        self.parts = [layers.BatchNormalization(), layers.Dropout(0.5)]

    def build(self, shape):
        for layer in self.parts:
            layer.build(shape)

    def call(self, x):
        for layer in self.parts:
            x = layer(x)
        return x


def difficult():
    """Return a network of layers with losses, inner layers and state of all kinds."""
    inputs = keras.Input((6, 6, 2))
    rectify = layers.ReLU(name="shared", activity_regularizer=keras.regularizers.L2(2))
    x = rectify(layers.Conv2D(4, 3, padding="same")(inputs))
    x = rectify(layers.BatchNormalization()(x))
    y = GlobalNoise()(Block()(x))
    y = layers.Conv2D(4, 3, padding="same", name="inside")(y)
    x = layers.Add()([x, y])
    frozen = layers.Conv2D(4, 3, padding="same", trainable=False)
    x = rectify(frozen(x))
    x = layers.SpectralNormalization(layers.Conv2D(4, 1))(x)
    x = layers.Conv2D(5, 3, kernel_regularizer="l2", name="map")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize(
    ("layer", "checkpointing", "compiled"),
    [
        ("map", True, True),
        ("map", 1000, False),
        ("inside", True, False),
        ("inside", 1000, True),
    ],
)
def test_losses_shared_layers_and_state_of_any_kind(layer, checkpointing, compiled):
    network = difficult()
    generator = keras.src.random.seed_generator.global_seed_generator()
    network.global_generator = generator  # so that both ways start from its seed
    assert_equal_passes(
        network,
        images(shape=(6, 6, 2)),
        checkpointing=checkpointing,
        layer=layer,
        compiled=compiled,
    )


def test_losses_are_those_of_the_last_pass():
    network = difficult()
    tapped = networks.tap(network, "map", checkpointing=True)
    x = images(shape=(6, 6, 2))
    for _ in range(2):
        tapped.forward(x, training=True)
        assert len(network.losses) == 4  # three calls of a layer, one kernel


def test_sequential_networks_are_cut_too():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Dropout(0.5),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    assert_equal_passes(network, images(shape=(6, 6, 2)))


def test_cuts_balance_what_is_kept_against_what_is_recomputed():
    x = inputs = keras.Input((4, 4, 1))
    for i in range(16):
        x = layers.Activation("tanh", name=f"step{i + 1}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    nodes = graph.sorted_nodes([layers.Dense(2)(x)])
    tapped = nodes[16]

    def names(segments):
        return [node.operation.name for node in cut(nodes, tapped, segments)]

    # Equal maps: m borders and an inside of 16 / m are least at m = 4.
    assert names(True) == ["step4", "step8", "step12", "step16"]
    assert names(2) == ["step16"]
    assert names(3) == ["step8", "step16"]
    assert names(1000) == [f"step{i + 1}" for i in range(16)]
    assert inputs.shape == (None, 4, 4, 1)


def test_borders_are_where_all_paths_meet_and_at_the_tap():
    network = small_resnet()
    nodes = graph.sorted_nodes(network.outputs)
    chain = {id(node) for node in graph.bottlenecks(nodes)}
    for name in ("feature_map", "stage2_block1_add"):
        tapped = next(n for n in nodes if n.operation.name == name)
        for segments in (True, 2, 3, 5, 1000):
            borders = cut(nodes, tapped, segments)
            assert tapped in borders
            assert all(id(node) in chain for node in borders)
            assert segments is True or len(borders) < segments


def kept_bytes(checkpointing):
    """Size of the maps that the backward passes take from the forward pass."""
    tapped = networks.tap(
        networks.resnet(20, 3, (16, 16, 3)), checkpointing=checkpointing
    )
    sizes = []

    @tf.function
    def step(x):
        with tf.GradientTape(persistent=True) as tape:
            feature_map, logits = tapped.forward(x, training=True)
            losses = tf.reduce_sum(logits**2), tf.reduce_sum(feature_map**2)
        forward = x.graph.get_operations()
        variables = tapped.extractor_variables
        gradients = [tape.gradient(loss, variables) for loss in losses]
        kept = {
            tensor.name: np.prod(tensor.shape) * tensor.dtype.size
            for operation in x.graph.get_operations()[len(forward) :]
            for tensor in map(original, operation.inputs)
            if tensor.op in forward and tensor.shape[:1] == [8]  # a map, no kernel
        }
        sizes.append(sum(kept.values()))
        return gradients

    step.get_concrete_function(tf.TensorSpec((8, 16, 16, 3)))
    return sizes[0]


def original(tensor):
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def test_backward_passes_take_fewer_bytes_from_the_forward_pass():
    assert kept_bytes(True) < 0.3 * kept_bytes(False)


def peak_bytes(checkpointing):
    """How much memory two backward passes need at the most, measured."""
    tapped = networks.tap(networks.resnet(32, 3), checkpointing=checkpointing)

    @tf.function
    def step(x):
        with tf.GradientTape(persistent=True) as tape:
            feature_map, logits = tapped.forward(x, training=True)
            losses = tf.reduce_sum(logits**2), tf.reduce_sum(feature_map**2)
        return [tape.gradient(loss, tapped.extractor_variables) for loss in losses]

    x = images(32, (32, 32, 3))
    step(x)
    tf.config.experimental.reset_memory_stats("CPU:0")
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    for _ in range(3):
        step(x)
    return tf.config.experimental.get_memory_info("CPU:0")["peak"] - before


@pytest.mark.slow
def test_the_peak_of_memory_falls():
    assert peak_bytes(True) < 0.6 * peak_bytes(False)


def train(checkpointing, make=None, steps=3, compiled=None, **options):
    keras.utils.set_random_seed(3)
    make = make or (lambda: [small_resnet(), small_wide_resnet(dropout=0.3)])
    model = OnlineDistiller(make(), tiny.afd(), checkpointing=checkpointing, **options)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        feature_optimizer=keras.optimizers.SGD(0.1),
        discriminator_optimizer=keras.optimizers.SGD(0.1),
        gradient_ratio_every=1,
        **(compiled or {}),
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * steps, *SHAPE)).astype("float32")
    y = rng.integers(0, 3, 8 * steps)
    history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
    return model, {name: values[-1] for name, values in history.items()}


def assert_same_training(expected, received, tolerance=1e-4):
    (one, logs), (other, other_logs) = expected, received
    assert logs.keys() == other_logs.keys()
    for name, value in logs.items():
        np.testing.assert_allclose(
            other_logs[name], value, rtol=10 * tolerance, err_msg=name
        )
    for a, b in zip(tiny.values(one.variables), tiny.values(other.variables)):
        scale = np.abs(a).max() + 1e-6
        np.testing.assert_allclose(b / scale, a / scale, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("forward", ["shared", "fresh"])
@pytest.mark.parametrize("eager", [True, False])
def test_steps_of_afd_give_the_same_weights_state_and_logs(forward, eager):
    options = {"forward": forward, "compiled": {"run_eagerly": eager}}
    model, logs = train(True, **options)
    assert_same_training(train(False, **options), (model, logs))


def test_one_step_moves_the_statistics_once():
    networks_ = [tiny.network(4, normalization=True) for _ in range(2)]
    model = tiny.distiller(networks_, rates=(0, 0, 0), checkpointing=True)
    x, y = tiny.batch()
    before = networks_[0].get_layer("conv")(x)
    model.train_on_batch(x, y)
    expected = 0.1 * np.mean(before, axis=(0, 1, 2))
    moving = networks_[0].get_layer("bn").moving_mean
    np.testing.assert_allclose(np.array(moving), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.multi_device
@pytest.mark.parametrize("normalization", ["batch", "sync"])
def test_two_devices_train_the_same_with_and_without(normalization):
    def make():
        return [small_resnet(normalization=normalization) for _ in range(2)]

    with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
        assert_same_training(train(False, make), train(True, make))


def test_evaluation_runs_in_no_segments_and_changes_nothing():
    network = small_wide_resnet(dropout=0.5)
    plain = networks.tap(network).forward(images())
    before = tiny.values(network.variables)
    received = networks.tap(network, checkpointing=True).forward(images())
    for a, b in zip(received, plain):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(network.variables, before):
        np.testing.assert_array_equal(a, b)


def test_a_saved_model_keeps_the_option_and_has_no_variables_for_it(tmp_path):
    model = tiny.distiller([tiny.network(4), tiny.network(5)], checkpointing=3)
    model.train_on_batch(*tiny.batch())
    model.save(tmp_path / "pair.keras")
    loaded = keras.models.load_model(tmp_path / "pair.keras")
    assert loaded.checkpointing == 3
    assert [len(tap.segments) for tap in loaded.taps] == [3, 3]
    plain = tiny.distiller([tiny.network(4), tiny.network(5)])
    assert len(plain.variables) == len(model.variables)
    for m in (model, loaded):
        m.train_on_batch(*tiny.batch(seed=1))
    for a, b in zip(model.variables, loaded.variables):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_summary_says_how_many_segments():
    lines = []
    options = {"names": ["a", "b"]}
    tiny.distiller(checkpointing=3, **options).summary(print_fn=lines.append)
    assert "checkpointing: a in 3 segments, b in 3 segments" in lines[0]
    tiny.distiller(**options).summary(print_fn=lines.append)
    assert "checkpointing" not in lines[1]


@pytest.mark.parametrize("value", [0, 1, -2, 2.5, "yes", None])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match=r"`checkpointing`.*checkpointing="):
        tiny.distiller(checkpointing=value)
