import hashlib

import numpy as np
import pytest
import small_runs

from afd_tf import OnlineDistiller
from afd_tf.runs import provenance
from afd_tf.training import outcome


def test_a_command_is_written_as_a_shell_takes_it():
    line = provenance.command_line("/venv/bin/afd-train", ["--gin_param=a = 'b'"])
    assert line == """afd-train '--gin_param=a = '"'"'b'"'"''"""


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


def test_a_run_has_the_digest_of_its_last_weights(tmp_path):
    made = []

    def keep(networks, *args, **kwargs):
        made.extend(networks)
        return OnlineDistiller(networks, *args, **kwargs)

    outcome = small_runs.train(tmp_path / "run", epochs=1, distiller=keep)
    assert outcome["weights_sha256"] == outcome.weights_digest(made)


@pytest.mark.parametrize(
    ("every", "evaluated"), [(1, "123"), (2, "23"), (3, "3"), (5, "3")]
)
def test_epochs_that_are_not_evaluated_have_empty_cells(tmp_path, every, evaluated):
    small_runs.train(tmp_path / "run", epochs=3, evaluate_every=every)
    rows = small_runs.rows(tmp_path / "run")
    found = [row["epoch"] for row in rows if row["val_small_accuracy"] != ""]
    assert "".join(found) == evaluated
    assert all(row["small_accuracy"] != "" for row in rows)
