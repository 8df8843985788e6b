"""Length of training and learning rates of each step; the progress bar."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf.errors import Mistake


@pytest.mark.parametrize("steps_per_execution", [1, 5])
def test_every_learning_rate_drops_at_its_fractions_of_training(steps_per_execution):
    images, labels = tiny.batch(8)
    model = tiny.pair()
    model.compile(steps_per_execution=steps_per_execution)
    rates = tiny.Rates()
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
    for splits in ([(0, 4)], [(0, 1), (1, 4)]):
        model = tiny.pair()
        model.compile(total_steps=8, run_eagerly=True)
        rates = tiny.Rates()
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


class Driver(keras.callbacks.Callback):
    """Set the logit learning rate as users do."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.5 / (epoch + 1)


@pytest.mark.parametrize(
    "driver",
    [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 / (epoch + 1)),
        Driver(),
    ],
)
def test_without_a_schedule_a_callback_has_the_logit_learning_rate(driver):
    images, labels = tiny.batch(8)
    model = tiny.pair()
    model.compile(run_eagerly=True, logit_schedule=None)
    rates = tiny.Rates()
    model.fit(images, labels, 8, epochs=4, verbose=0, callbacks=[driver, rates])
    np.testing.assert_allclose(
        np.array(rates.rates)[:, 0], [0.5, 0.25, 0.5 / 3, 0.125], rtol=1e-6
    )
    # The schedules of the other optimizers stay in force.
    np.testing.assert_allclose(np.array(rates.rates)[-1, 1:], [2e-7] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    "driver",
    [
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.5),
        keras.callbacks.ReduceLROnPlateau(),
    ],
    ids=lambda driver: type(driver).__name__,
)
@pytest.mark.parametrize(
    "given", [lambda c: [c], lambda c: c, lambda c: keras.callbacks.CallbackList([c])]
)
def test_a_rate_callback_beside_a_schedule_is_refused(driver, given):
    images, labels = tiny.batch(8)
    model = tiny.pair()
    model.compile(run_eagerly=True)
    message = f"{type(driver).__name__} sets.*x0.1 at 0.5, 0.75.*logit_schedule=None"
    with pytest.raises(Mistake, match=message):
        model.fit(images, labels, verbose=0, callbacks=given(driver))
    assert int(model.trained_steps) == 0


def test_a_later_call_of_fit_goes_on_from_its_initial_epoch():
    images, labels = tiny.batch(8)
    model = tiny.pair()
    model.compile(run_eagerly=True)
    model.fit(images, labels, 4, epochs=2, verbose=0)
    assert int(model.total_steps) == 4
    rates = tiny.Rates()
    model.fit(
        images, labels, 4, epochs=4, initial_epoch=2, verbose=0, callbacks=[rates]
    )
    assert (int(model.first_step), int(model.total_steps)) == (0, 8)
    # Steps 4 to 7 of 8.
    expected = [0.01, 0.01, 0.001, 0.001]
    np.testing.assert_allclose(np.array(rates.rates)[:, 0], expected, rtol=1e-5)


def test_each_call_of_fit_from_the_first_epoch_is_a_training_of_its_own():
    images, labels = tiny.batch(8)
    model = tiny.pair()
    model.compile(run_eagerly=True)
    rates = tiny.Rates()
    for epochs in (2, 4):
        model.fit(images, labels, 4, epochs=epochs, verbose=0, callbacks=[rates])
    expected = [0.1, 0.1, 0.01, 0.001] + [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    np.testing.assert_allclose(np.array(rates.rates)[:, 0], expected, rtol=1e-5)


def test_an_optimizer_of_ones_own_keeps_its_learning_rate():
    images, labels = tiny.batch(8)
    model = tiny.pair()
    model.compile(keras.optimizers.SGD(0.3), run_eagerly=True)
    rates = tiny.Rates()
    model.fit(images, labels, batch_size=4, epochs=4, verbose=0, callbacks=[rates])
    np.testing.assert_allclose(np.array(rates.rates)[:, 0], 0.3)


def test_schedules_count_batches_where_the_optimizer_accumulates_gradients():
    images, labels = tiny.batch(8)
    model = tiny.distiller(
        compiled={
            "optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
            "logit_schedule": "step_decay",
            "feature_schedule": "step_decay",
        }
    )
    rates = tiny.Rates()
    model.fit(images, labels, 1, epochs=1, verbose=0, callbacks=[rates])
    # A tenth at a half and three quarters of 8 batches, for both.
    expected = [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    np.testing.assert_allclose(
        np.array(rates.rates)[:, :2], np.stack([expected] * 2, 1), 1e-5
    )


def test_unknown_length_of_training_is_an_error_that_says_what_to_pass():
    images, labels = tiny.batch(8)

    def generator():
        while True:
            yield images, labels

    model = tiny.pair()
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        model.fit(generator(), epochs=2, verbose=0, shuffle=False)
    model.fit(generator(), epochs=2, steps_per_epoch=3, verbose=0, shuffle=False)
    assert int(model.total_steps) == 6


def test_the_progress_bar_shows_accuracies_and_not_every_metric(capsys):
    tiny.named().fit(
        tiny.dataset(20), validation_data=tiny.dataset(20), epochs=2, verbose=2
    )
    shown = capsys.readouterr().out
    for name in ("loss", "val_loss", "a_accuracy", "val_ensemble_accuracy"):
        assert f" {name}: " in shown
    for name in ("a_loss", "a_kl", "b_discriminator_real", "a_gradient_ratio"):
        assert name not in shown
