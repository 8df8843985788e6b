"""A method registered here alone: its training, its table, its protocol."""

import dataclasses
import json

import keras
import pytest
from records import results, write_record

from afd_tf import config, methods
from afd_tf.cli import train
from afd_tf.results import tables
from afd_tf.results.comparison import compare

SETTINGS = {
    "train.networks": ["resnet8", "resnet8"],
    "train.epochs": 1,
    "train.batch_size": 1024,
    "train.tensorboard": False,
}
# Of parts that the method has, and of one that it has not.
CHANGED = {
    "OnlineDistiller.temperature": 4.0,
    "compile.feature_weight_decay": 0.0,
    "compile.discriminator_weight_decay": 0.0,
    "train.method_options": {"weight": 3.0},
}
TEMPERATURE = {"OnlineDistiller.temperature": ("4.0", "3.0")}
DECAY = {"compile.feature_weight_decay": ("0.0", "0.1")}
OPTIONS = {"train.method_options": ("{'weight': 3.0}", None)}


@keras.saving.register_keras_serializable(package="test")
@dataclasses.dataclass(frozen=True)
class Weighted(methods.Alignment):
    """Alignment whose distance has a weight."""

    distance: str = "l2"
    weight: float = 2.0

    def losses(self, *arguments):
        return [self.weight * loss for loss in super().losses(*arguments)]


@pytest.fixture
def registered(monkeypatch):
    registry = methods.method._METHODS
    monkeypatch.setattr(methods.method, "_METHODS", dict(registry))
    methods.register("weighted", "E1 and a distance", kl=True, feature=Weighted)


def params(method, **changes):
    settings = {**SETTINGS, "train.method": method, **changes}
    return [f"{name} = {value!r}" for name, value in settings.items()]


@pytest.mark.usefixtures("registered")
def test_a_new_method_needs_its_registration_alone(tmp_path, capsys):
    run = tmp_path / "weighted"
    flags = [f"--gin_param={param}" for param in params("weighted", **CHANGED)]
    assert train.main([*flags, f"--workdir={run}"]) == 0
    assert "ensemble" in capsys.readouterr().out
    content = json.loads((run / "results.json").read_text())
    assert content["parts"] == {
        "kl": True,
        "maps": True,
        "feature_update": True,
        "discriminators": False,
        "source": False,
        "branches": None,
        "objective": "Weighted",
    }

    baselines = ("vanilla", "dml", "l2_kd", "afd", "weighted")
    for method in baselines:
        text = config.load(params=params(method))
        same = {key: content[key] for key in ("dataset", "epoch", "data_sha256")}
        record = results(*content["networks"], method=method, **same)
        write_record(tmp_path / f"other_{method}", record, text)
    config.clear()
    over = [f"other_{method}" for method in baselines]
    comparison = compare([tmp_path], over)
    [(_, rows)] = comparison.tables
    [row, *_] = [row for row in rows if row.configuration == str(run)]
    assert list(row.gains) == over
    differences = {
        name.removeprefix("other_"): difference.settings
        for name, difference in row.differences.items()
    }
    assert differences == {
        "dml": TEMPERATURE,
        "l2_kd": {**TEMPERATURE, **DECAY},
        "afd": {**TEMPERATURE, **DECAY},
        "weighted": {**TEMPERATURE, **DECAY, **OPTIONS},
    }
    said = "weighted differs from other_dml in OnlineDistiller.temperature: 4.0, there"
    assert said in tables.text(comparison)
