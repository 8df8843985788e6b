"""Networks of a run, built from their record and loaded alone."""

import contextlib
import json
import shutil
from random import Random

import keras
import pytest
import small_runs

from afd_tf.errors import InvalidValue, Mistake
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training.restoring import restore_network


class Undescribed(keras.layers.Layer):
    """Takes what JSON cannot hold and has no `get_config`."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def call(self, x):
        return self._function(x)


def own(num_classes, input_shape):
    network = small_runs.small(num_classes, input_shape)
    logits = Undescribed(lambda x: 2 * x)(network.output)
    return keras.Model(network.input, logits, name="own")


def test_a_network_that_cannot_be_described_is_refused_by_export_alone(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(NotImplementedError):
        keras.saving.serialize_keras_object(own(10, (16, 16, 1)))
    results = small_runs.train(run.path, networks=[small_runs.small, own], epochs=1)
    assert set(results["networks"]) == {"small", "own"}
    described = json.loads(run.networks.read_text())
    assert described["own"] is None
    assert described["small"] is not None

    assert restore_network(run, "small")[1] == "small"
    with pytest.raises(ValueError, match=r"'own'.*without get_config\(\)"):
        restore_network(run, "own")


def changed(value, random):
    """Return JSON with one thing in it, wherever it is, removed or replaced."""
    if isinstance(value, dict | list) and value and random.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = random.choice(keys)
        copy = value.copy()
        if random.random() < 0.2:
            del copy[key]
        else:
            copy[key] = changed(value[key], random)
        return copy
    return random.choice([None, 0, -1, "x", [], {}, [1], {"class_name": "Adam"}])


def test_a_changed_description_is_refused_in_a_line(finished, tmp_path):
    run = RunDirectory(shutil.copytree(finished, tmp_path / "run"))
    described = json.loads(run.networks.read_text())
    random = Random(0)
    for _ in range(40):
        run.networks.write_text(json.dumps(changed(described, random)))
        with contextlib.suppress(InvalidValue):
            restore_network(run)


@pytest.mark.parametrize(
    "damage", [{"class_name": "Nothing"}, {"config": {"layers": [None]}}, {"module": 3}]
)
def test_a_damaged_description_is_named_and_written_anew_at_the_next_start(
    finished, tmp_path, damage
):
    run = RunDirectory(shutil.copytree(finished, tmp_path / "run"))
    described = json.loads(run.networks.read_text())
    described["small"] |= damage
    run.networks.write_text(json.dumps(described))
    with pytest.raises(Mistake, match=r"Network 'small' .* cannot be built"):
        restore_network(run, "small")
    run.networks.write_text("garbage")
    run.results.unlink()
    small_runs.train(run.path, epochs=1)
    assert restore_network(run, "small")[1] == "small"
