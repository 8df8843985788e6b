"""Images, labels and weights as users give them."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf.distillation import inputs


def test_sample_weights_in_a_column_weigh_examples_not_pairs():
    images, labels = tiny.batch()
    weight = np.arange(8, dtype="float32")
    rows, columns = tiny.named(run_eagerly=True), tiny.named(run_eagerly=True)
    columns.set_weights(rows.get_weights())
    for step in ("test_on_batch", "train_on_batch"):
        expected, got = (
            getattr(model, step)(images, labels, sample_weight=w, return_dict=True)
            for model, w in ((rows, weight), (columns, weight[:, None]))
        )
        assert got == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"one per example. Received: \(8, 2\)"):
        rows.train_on_batch(images, labels, np.ones((8, 2), "float32"))


@pytest.mark.parametrize(
    ("labels", "where"),
    [([0, 1, 3], "fit"), ([0, -1, 2], "evaluate"), ([0, 1, 9], "train_on_batch")],
)
def test_a_label_out_of_range_is_named(labels, where):
    model = tiny.named()
    images, _ = tiny.batch(3)
    wrong = next(label for label in labels if not 0 <= label < 3)
    with pytest.raises(ValueError, match=rf"\[0, 3\).*{wrong}"):
        getattr(model, where)(images, np.array(labels))


def test_images_of_another_shape_are_refused():
    model = tiny.named()
    with pytest.raises(ValueError, match=r"shape \(6, 6, 2\).*Received.*6, 6, 3"):
        model.fit(np.zeros((8, 6, 6, 3), "float32"), np.zeros(8), verbose=0)


def test_images_whose_shape_the_pipeline_does_not_know_are_taken_if_they_fit():
    model = tiny.named()
    hidden = tf.data.Dataset.from_generator(
        lambda: zip(*tiny.batch(8), strict=True),
        output_signature=(
            tf.TensorSpec(None, "float32"),
            tf.TensorSpec((), "int32"),
        ),
    )
    hidden = hidden.batch(4).apply(tf.data.experimental.assert_cardinality(2))
    expected = model.evaluate(*tiny.batch(8), verbose=0)
    np.testing.assert_allclose(model.evaluate(hidden, verbose=0), expected, rtol=1e-5)


def test_integer_images_are_warned_of_unless_a_network_rescales_them():
    images, labels = tiny.batch()
    images = np.uint8(np.clip(images, 0, 1) * 255)
    with pytest.warns(UserWarning, match="Images are integers"):
        tiny.distiller(method="vanilla").train_on_batch(images, labels)
    pixels = keras.Input((6, 6, 2))
    outputs = tiny.network()(keras.layers.Rescaling(1 / 255)(pixels))
    scaling = keras.Model(pixels, outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs.warn_of_raw_pixels(tf.constant(images), [scaling])
