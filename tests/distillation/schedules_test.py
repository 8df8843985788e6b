"""Learning rates around each boundary."""

import math

import keras
import numpy as np
import pytest

from afd_tf.distillation import schedules


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1), (149, 1), (150, 0.1), (224, 0.1), (225, 0.01), (299, 0.01), (300, 0.01)],
)
def test_step_decay_changes_exactly_at_its_boundaries(step, factor):
    np.testing.assert_allclose(schedules.StepDecay()(step, 300), factor, rtol=1e-6)


@pytest.mark.parametrize("total", [7, 10, 300, 117_300])
@pytest.mark.parametrize("boundary", [0.25, 1 / 3, 0.7])
def test_first_decayed_step_is_the_boundary_rounded_up(total, boundary):
    schedule = schedules.StepDecay((boundary,))
    first = math.ceil(round(boundary * total, 9))
    assert float(schedule(first - 1, total)) == 1
    np.testing.assert_allclose(schedule(first, total), 0.1, rtol=1e-6)


def test_cosine_runs_from_one_to_its_end():
    schedule = schedules.Cosine(final=0.2)
    np.testing.assert_allclose(
        [schedule(step, 8) for step in (0, 4, 8)], [1, 0.6, 0.2], rtol=1e-6
    )


def test_unknown_length_counts_as_the_start():
    assert float(schedules.StepDecay()(1000, 0)) == 1


def test_schedules_survive_serialization():
    schedule = schedules.StepDecay((0.3, 0.6), factor=0.2)
    config = keras.saving.serialize_keras_object(schedule)
    assert repr(keras.saving.deserialize_keras_object(config)) == repr(schedule)


def test_bad_boundaries_and_names_are_refused():
    with pytest.raises(ValueError, match="fractions of training"):
        schedules.StepDecay((150, 225))
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        schedules.get("cosin")
