"""Exchanges: layers made from networks, names, and what is refused."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf import OnlineDistiller, methods
from afd_tf.errors import Mistake


def keras_map(channels=4, size=6):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(channels, 7 - size, name="map")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def test_equal_channels_need_no_transfer_layers_and_others_need_one_each():
    same = OnlineDistiller([tiny.network(4), tiny.network(4)])
    assert (len(same.transfers), len(same.discriminators)) == (0, 2)
    other = OnlineDistiller([tiny.network(4), tiny.network(6)])
    assert len(other.transfers) == 2
    assert [d.input_shape[1:] for d in other.discriminators] == [(6, 6, 6)] * 2
    for method in ("vanilla", "dml"):
        model = OnlineDistiller([tiny.network(4), tiny.network(6)], method)
        assert (model.transfers, model.discriminators) == ([], [])


@pytest.mark.parametrize("method", ["afd", "l1_kd"])
@pytest.mark.parametrize("size", [3, 4])
def test_maps_of_different_size_meet(method, size):
    model = OnlineDistiller([keras_map(4, 6), keras_map(6, size)], method)
    model.compile(run_eagerly=True)
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())


def test_equal_names_are_numbered():
    networks = [tiny.network(name="net") for _ in range(3)]
    model = OnlineDistiller(networks)
    assert model.network_names == ["net", "net_2", "net_3"]


def test_a_numbered_name_gives_way_to_one_that_is_taken():
    networks = [tiny.network(name=name) for name in ("net", "net_2", "net")]
    model = OnlineDistiller(networks, "dml")
    assert model.network_names == ["net", "net_2", "net_3"]


def softmax_network():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


def sharing():
    conv = keras.layers.Conv2D(4, 3, name="shared_conv")
    models = []
    for _ in range(2):
        inputs = keras.Input((6, 6, 2))
        x = keras.layers.GlobalAveragePooling2D()(conv(inputs))
        models.append(keras.Model(inputs, keras.layers.Dense(3)(x)))
    return models


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OnlineDistiller([tiny.network()]), "at least 2"),
        (lambda: OnlineDistiller([]), "at least 2"),
        (lambda: OnlineDistiller([tiny.network()] * 2), "same instance"),
        (lambda: OnlineDistiller(sharing()), "shares layer 'shared_conv'"),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network(classes=5)]),
            "numbers of classes",
        ),
        (lambda: OnlineDistiller([tiny.network(), softmax_network()]), "softmax"),
        (lambda: OnlineDistiller([tiny.network(), tiny.network()], tap="mapp"), "map"),
        (lambda: OnlineDistiller([tiny.network(), tiny.network()], tap="pool"), "4-D"),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], "adf"),
            "Did you mean 'afd'",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], topology="ring"),
            "cycle",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], temperature=0),
            "`temperature`",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], forward="new"),
            "`forward`",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], names=["a", "a"]),
            "different names",
        ),
        (
            lambda: OnlineDistiller(
                [tiny.network(), tiny.network()], "dml", discriminators=[]
            ),
            "does not apply",
        ),
        (
            lambda: methods.get("afd", discriminator_batch="separate"),
            "did you mean|Did",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_construction(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("argument", ["tap", "names", "transfers", "discriminators"])
def test_what_is_no_list_is_refused_by_its_name(argument):
    for value in (3, True):
        with pytest.raises(Mistake, match=f"`{argument}`"):
            OnlineDistiller([tiny.network(), tiny.network()], **{argument: value})


@pytest.mark.parametrize("argument", ["transfers", "discriminators"])
def test_what_is_no_layer_is_refused(argument):
    with pytest.raises(Mistake, match=f"`{argument}`.*Keras layers"):
        OnlineDistiller([tiny.network(), tiny.network()], **{argument: [1, 2]})


def test_a_topology_is_one_name():
    for argument in ("topology", "kl_topology"):
        with pytest.raises(Mistake, match=f"`{argument}`"):
            OnlineDistiller(
                [tiny.network(), tiny.network()], **{argument: ["all_pairs"]}
            )


def test_different_input_shapes_are_refused():
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    other = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(ValueError, match="input shapes"):
        OnlineDistiller([tiny.network(), other])


def test_something_that_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"keras\.Model"):
        OnlineDistiller([tiny.network(), "resnet20"])


def test_discriminators_that_do_not_fit_are_refused():
    discriminators = [
        keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Flatten()])
    ] * 2
    with pytest.raises(ValueError, match=r"\(batch, 1\)"):
        OnlineDistiller([tiny.network(), tiny.network()], discriminators=discriminators)
