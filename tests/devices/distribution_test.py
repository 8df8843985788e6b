import functools

import numpy as np
import pytest
import small_runs
import tensorflow as tf

from afd_tf.devices import strategies


def test_one_cpu_needs_no_strategy():
    for name in ("auto", "single"):
        assert strategies.strategy(name).num_replicas_in_sync == 1


def test_an_unknown_strategy_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'mirrored'"):
        strategies.strategy("miror")


def test_a_batch_that_leaves_a_replica_without_a_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"each of 2 replicas.*batch_size=1"):
        small_runs.train(tmp_path / "run", strategy="mirrored", batch_size=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.multi_device
def test_a_strategy_of_ones_own_is_taken(tmp_path):
    own = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    small_runs.train(tmp_path / "run", strategy=own, epochs=1)
    assert int(small_runs.checkpoint_values(tmp_path / "run")["replicas"]) == 2


@pytest.mark.slow
@pytest.mark.multi_device
def test_a_mirrored_run_is_continued_on_one_device(tmp_path, monkeypatch):
    mirrored = strategies.strategy("mirrored")
    assert mirrored.num_replicas_in_sync == len(tf.config.list_logical_devices("CPU"))
    # Moving statistics are per replica, so that a replica's own would not be equal.
    same = {
        "method": "afd",
        "epochs": 1,
        "networks": [
            functools.partial(small_runs.small, normalization=False),
            functools.partial(small_runs.large, normalization=False),
        ],
    }
    results = small_runs.train(tmp_path / "run", strategy="mirrored", **same)
    assert results["step"] == 5
    values = small_runs.checkpoint_values(tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    # Where a run computes is not part of its configuration.
    again = small_runs.train(tmp_path / "run", strategy="single", **same)
    small_runs.assert_same_values(
        values, small_runs.checkpoint_values(tmp_path / "run")
    )
    for name, network in results["networks"].items():
        assert again["networks"][name]["accuracy"] == network["accuracy"]
        np.testing.assert_allclose(
            again["networks"][name]["loss"], network["loss"], rtol=1e-5
        )
