import dataclasses
import inspect

import pytest

from afd_tf.errors import Mistake
from afd_tf.training import Settings, train

BESIDE = {"workdir", "callbacks", "dry_run", "provenance", "trust_source"}


def test_train_takes_every_setting_with_its_default_and_hands_it_on(
    tmp_path, monkeypatch
):
    parameters = inspect.signature(train).parameters
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert list(fields) == [name for name in parameters if name not in BESIDE]
    given = {name: parameters[name].default for name in fields}
    assert fields.pop("networks") is dataclasses.MISSING
    assert given.pop("networks") is inspect.Parameter.empty
    assert given == fields

    # A value that no other setting has, where only its name is looked at.
    values = {name: object() for name in given}
    taken = {}

    def settings(**kwargs):
        taken.update(kwargs)
        raise KeyError

    monkeypatch.setattr(inspect.getmodule(train), "Settings", settings)
    with pytest.raises(KeyError):
        train(tmp_path, networks=["resnet8"], **values)
    assert taken == {"networks": ["resnet8"], **values}


@pytest.mark.parametrize(
    "wrong",
    [
        {"networks": "resnet8"},
        {"networks": ["resnet8", 3]},
        {"method_options": [1]},
        {"epochs": 0},
        {"epochs": True},
        {"seed": -1},
        {"seed": 1.5},
        {"keep": 0},
        {"evaluate_every": 0},
        {"steps_per_execution": 0},
        {"checkpoint_steps": 0},
        {"checkpoint_steps": 1.5},
        {"checkpoint_minutes": 0},
        {"worker_timeout": 0},
        {"checkpoint_minutes": "10"},
        {"precision": "bfloat16"},
        {"non_finite": "go on"},
        {"deterministic": "False"},
        {"load_data": "digits"},
    ],
    ids=str,
)
def test_wrong_settings_are_named(wrong):
    [name] = wrong
    with pytest.raises(Mistake, match=f"argument `{name}`"):
        Settings(**{"networks": ["resnet8"], **wrong})
