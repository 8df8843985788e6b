import hashlib
import json

import numpy as np
import pytest
import small_runs

from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training import outcome
from afd_tf.training.restoring import restore_network


def test_the_digest_is_that_of_types_shapes_and_bytes_in_order():
    first = small_runs.tiny_network(3, (8, 8, 1), name="first")
    second = small_runs.tiny_network(3, (8, 8, 1), name="second")
    expected = hashlib.sha256()
    for weight in [*first.get_weights(), *second.get_weights()]:
        expected.update(f"float32 {weight.shape}\n".encode() + weight.tobytes())
    digest = outcome.weights_digest([first, second])
    assert digest == expected.hexdigest()
    assert outcome.weights_digest([second, first]) != digest


@pytest.mark.parametrize("which", [0, 2, -1])
def test_the_digest_changes_with_a_single_bit_of_any_weight(which):
    network = small_runs.tiny_network(3, (8, 8, 1))
    before = outcome.weights_digest([network])
    weights = network.get_weights()
    place = weights[which].reshape(-1)
    place[-1] = np.nextafter(place[-1], np.float32(9))
    network.set_weights(weights)
    assert outcome.weights_digest([network]) != before


def test_a_run_has_the_digest_of_its_last_weights(finished):
    results = json.loads((finished / "results.json").read_text())
    run = RunDirectory(finished)
    last = [restore_network(run, name)[0] for name in results["networks"]]
    assert results["weights_sha256"] == outcome.weights_digest(last)
