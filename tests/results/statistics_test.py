"""Statistics against cases worked out by hand."""

import pytest

from afd_tf.results.statistics import Gain, gain, mean_and_deviation


def test_deviation_is_that_of_a_sample():
    assert mean_and_deviation([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.1))
    assert mean_and_deviation([0.5]) == (0.5, None)


def test_gain_is_paired_by_seed():
    # Differences 1, 2, 3: mean 2, s = 1, standard error 1 / sqrt(3) = 0.57735.
    # t(0.975, 2) = 4.302653, so 2 +- 2.484138; t = 3.464102.
    # Of two degrees of freedom p = 1 - t / sqrt(2 + t^2) = 1 - 3.464102 / 3.741657.
    found = gain({0: 11.0, 1: 4.0, 2: 8.0}, {2: 5.0, 0: 10.0, 1: 2.0})
    assert found.mean == pytest.approx(2.0)
    assert found.low == pytest.approx(-0.484138, abs=1e-6)
    assert found.high == pytest.approx(4.484138, abs=1e-6)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)
    assert found.pairs == 3


def test_two_pairs_have_the_interval_of_one_degree_of_freedom():
    # Differences 1 and 3: mean 2, standard error 1, t(0.975, 1) = 12.706205.
    # Cauchy: p = 1 - 2 / pi * atan(2).
    found = gain({1: 1.0, 2: 3.0}, {1: 0.0, 2: 0.0})
    assert (found.low, found.high) == pytest.approx((-10.706205, 14.706205), abs=1e-6)
    assert found.p == pytest.approx(0.2951672, abs=1e-6)


def test_seeds_that_only_one_has_do_not_count():
    found = gain({0: 1.0, 1: 2.0, 7: 100.0}, {0: 0.0, 1: 0.0, 8: -100.0})
    assert (found.mean, found.pairs) == (1.5, 2)
    assert gain({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("values", [{0: 0.4}, {0: 0.4, 1: 0.5, 2: 0.6}])
def test_differences_that_do_not_vary_have_no_interval(values):
    baseline = {seed: value - 0.1 for seed, value in values.items()}
    found = gain(values, baseline)
    assert found == Gain(pytest.approx(0.1), None, None, None, len(values))
