"""Planned contrasts: effects by least squares, one error for all, Holm's correction."""

import numpy as np
import pytest
from scipy import stats

from afd_tf.studies import contrasts


def runs(**networks):
    """Return the accuracies of a configuration's seeds, with the networks' mean."""
    columns = {**networks, "mean": np.mean(list(networks.values()), axis=0)}
    seeds = range(len(columns["mean"]))
    return {n: {what: float(v[n]) for what, v in columns.items()} for n in seeds}


def test_a_complete_design_has_mean_differences_and_a_pooled_error():
    a, b, c = [0.30, 0.34, 0.32], [0.31, 0.36, 0.35], [0.40, 0.41, 0.45]
    every = {name: runs(net=v) for name, v in zip("abc", (a, b, c), strict=True)}
    [found] = contrasts.estimate(every, [("c", "a")])
    # Two-way layout by hand: residual = value - row mean - column mean + grand mean.
    values = np.array([a, b, c])
    rows, columns = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    residuals = values - rows - columns + values.mean()
    sigma = np.sqrt(np.sum(residuals**2) / 4)  # 9 values, 3 + 2 effects
    error = sigma * np.sqrt(2 / 3)
    reach = stats.t.ppf(0.975, 4) * error
    difference = np.mean(c) - np.mean(a)
    gain = found.gains["mean"]
    np.testing.assert_allclose(
        gain[:4],
        (
            difference,
            difference - reach,
            difference + reach,
            2 * stats.t.sf(difference / error, 4),
        ),
    )
    assert gain.pairs == 3
    assert found.corrected == pytest.approx(gain.p)


def test_seeds_that_one_side_lacks_are_told_apart_from_the_configuration():
    # Seed 1 is worth 0.1; without its effect "b" would seem 0.05 better than it is.
    every = {
        "a": runs(net=[0.3, 0.4]),
        "b": runs(net=[0.35, 0.45]),
        "c": runs(net=[0.5]),
    }
    [found] = contrasts.estimate(every, [("c", "b")])
    assert found.gains["net"].mean == pytest.approx(0.15)


def test_the_error_is_that_of_all_networks_and_of_means_apart():
    small = {
        "a": runs(x=[0.1, 0.2], y=[0.3, 0.3]),
        "b": runs(x=[0.2, 0.2], y=[0.3, 0.5]),
    }
    other = {"c": runs(z=[0.1, 0.5]), "d": runs(z=[0.4, 0.2])}
    found = contrasts.estimate({**small, **other}, [("b", "a"), ("d", "c")])
    # Two by two: four equal residuals of a quarter of the interaction.
    interactions = {"x": -0.1, "y": 0.2, "z": -0.6}
    sigma = np.sqrt(sum(i**2 / 4 for i in interactions.values()) / 3)
    for contrast in found:
        for what, gain in contrast.gains.items():
            if what != "mean":
                # Of three networks, but two runs a seed: t has two degrees of freedom.
                half = stats.t.ppf(0.975, 2) * sigma * np.sqrt(2 / 2)
                assert (gain.high - gain.low) / 2 == pytest.approx(half)
    of_means = np.sqrt((0.05**2 / 4 + 0.6**2 / 4) / 2)
    gain = found[0].gains["mean"]
    half = stats.t.ppf(0.975, 2) * of_means
    assert (gain.high - gain.low) / 2 == pytest.approx(half)


def test_one_seed_gives_no_interval_and_a_missing_run_no_contrast():
    every = {"a": runs(net=[0.3]), "b": runs(net=[0.4])}
    [found] = contrasts.estimate(every, [("b", "a"), ("c", "a")])
    assert found.gains["net"] == (pytest.approx(0.1), None, None, None, 1)
    assert found.corrected is None
    assert contrasts.estimate(every, []) == []
    heading, _, row = contrasts.table([found]).splitlines()
    assert "Holm's p" in heading
    assert row.split() == ["b", "a", "1", "/", "1", "+10.00", "net", "+10.00"]
    assert "Holm" not in contrasts.table([found], corrected=False)


def test_a_contrast_is_of_the_same_networks():
    every = {"a": runs(x=[0.3, 0.4]), "b": runs(y=[0.3, 0.4])}
    with pytest.raises(ValueError, match=r"same networks.*'a' and 'b'"):
        contrasts.estimate(every, [("a", "b")])


def test_p_values_are_corrected_for_their_number():
    # By hand: 3 x 0.01, 2 x 0.04 and 1 x 0.05, which is no less than the one before.
    found = contrasts.holm([0.04, None, 0.01, 0.05], 3)
    assert found == [
        pytest.approx(0.08),
        None,
        pytest.approx(0.03),
        pytest.approx(0.08),
    ]
    assert contrasts.holm([0.9, 0.8], 2) == [1.0, 1.0]
    # One that is still to come counts: 4 x 0.01 and 3 x 0.04.
    assert contrasts.holm([0.04, 0.01], 4) == [
        pytest.approx(0.12),
        pytest.approx(0.04),
    ]


def test_a_contrast_that_is_to_come_counts_in_the_correction():
    every = {"a": runs(net=[0.30, 0.34, 0.32]), "b": runs(net=[0.31, 0.36, 0.35])}
    [found] = contrasts.estimate(every, [("b", "a"), ("c", "a")])
    assert found.corrected == pytest.approx(min(1.0, 2 * found.gains["mean"].p))
