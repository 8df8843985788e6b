import inspect
import sys
from pathlib import Path

import gin
import keras
import pytest
import tiny

from afd_tf import OnlineDistiller, config
from afd_tf.config import bindings, configurables, gin_files
from afd_tf.distillation.phases import DEFAULTS

COMPLETE = "train.networks = ['resnet8', 'resnet14']"


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    config.clear()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Files


def test_a_file_is_found_by_path_and_by_name_with_and_without_ending(tmp_path):
    own = write(tmp_path / "own.gin", COMPLETE)
    assert config.find(own) == own
    assert config.find(tmp_path / "own") == own
    for name in ("datasets/digits", "datasets/digits.gin"):
        assert config.find(name).name == "digits.gin"


def test_an_installed_package_finds_its_configs(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "afd_tf"
    installed = write(package / "configs" / "pairings" / "x.gin", "")
    write(package / "configs" / "afd.gin", "")
    # The gin package lies beside ours there and holds no files of ours.
    write(tmp_path / "site-packages" / "gin" / "config.py", "")
    monkeypatch.setattr(gin_files, "_PACKAGE", package)
    assert config.folders() == [package / "configs"]
    assert config.find("pairings/x") == installed


def test_a_missing_file_names_the_places_searched_and_the_nearest():
    with pytest.raises(ValueError, match="cifar10_resnet20_wrn16_2") as caught:
        config.read(["pairings/cifar10_resnet20_wrn16_3.gin"])
    message = str(caught.value)
    for root in (".", *config.folders()):
        assert str(Path(root).resolve()) in message
    assert "Did you mean pairings/cifar10_resnet20_wrn16_2.gin" in message


def test_a_missing_include_says_who_included_it(tmp_path):
    path = write(tmp_path / "a.gin", '\ninclude "datasets/digts.gin"\n')
    with pytest.raises(ValueError, match=rf"digits\.gin.*Included by {path}:2\."):
        config.read([path])


def test_include_finds_names_of_ours_and_files_beside_and_reads_each_once(tmp_path):
    write(tmp_path / "b.gin", "train.epochs = 2")
    path = write(
        tmp_path / "a.gin",
        'include "b.gin"\ninclude "datasets/digits"\ntrain.epochs = 3\ninclude "b"\n',
    )
    text = config.load([path], [COMPLETE])
    assert "train.epochs = 3" in text
    assert "load_data.flip = False" in text


def test_files_that_include_each_other_end(tmp_path):
    write(tmp_path / "b.gin", 'include "a.gin"\ntrain.epochs = 2')
    path = write(tmp_path / "a.gin", f'include "b.gin"\n{COMPLETE}')
    assert "train.epochs = 2" in config.load([path])


def test_later_files_and_parameters_win(tmp_path):
    first = write(tmp_path / "a.gin", f"{COMPLETE}\ntrain.epochs = 2\ntrain.seed = 2")
    second = write(tmp_path / "b.gin", "train.epochs = 3\ntrain.seed = 3")
    config.load([first, second], ["train.seed = 4"])
    assert config.settings()["epochs"] == 3
    assert config.settings()["seed"] == 4


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "a.gin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.gin.*not UTF-8"):
        config.read([path])


# Safety


@pytest.mark.parametrize(
    "statement",
    [
        "import trap_module",
        "from trap_package import trap_module",
        "import trap_module as t",
        "from __gin__ import dynamic_registration",
    ],
)
@pytest.mark.parametrize("place", ["file", "include", "param"])
def test_an_import_is_refused_and_not_executed(tmp_path, monkeypatch, statement, place):
    write(tmp_path / "trap_module.py", "raise SystemExit('executed')")
    write(tmp_path / "trap_package" / "trap_module.py", "raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    files, params = [], []
    if place == "param":
        params = [f"train.epochs = 1\n{statement}"]
    else:
        files = [write(tmp_path / "a.gin", f"train.epochs = 1\n{statement}\n")]
    if place == "include":
        files = [write(tmp_path / "b.gin", 'include "a.gin"')]
    with pytest.raises(ValueError, match="no import statement"):
        config.load(files, params)
    assert not any(name.startswith("trap_") for name in sys.modules)


def test_what_others_registered_with_gin_cannot_be_called():
    gin.external_configurable(print, name="stranger", module="elsewhere")
    with pytest.raises(ValueError, match=r"a known name.*@stranger"):
        config.load([], ["train.method = @stranger()"])
    with pytest.raises(ValueError, match=r"a known name.*@gin\.singleton"):
        config.load([], ["train.method = @gin.singleton()"])


# Names


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("trian.epochs = 1", r"trian\. Did you mean 'train'\?"),
        ("train.epoch = 1", r"train\.epoch\. Did you mean 'epochs'\?"),
        ("train.workdir = 'x'", r"a parameter of `train`"),
        ("train.networks = [@resnt20/resnt]", r"@resnt\. Did you mean 'resnet'\?"),
        ("train.epochs = %EPOCHS", "a macro that a file defines"),
        ("epochs = 3", r"Did you mean 'train\.epochs'\?"),
        ("compile.epochs = 3", r"Did you mean 'train\.epochs'\?"),
        (
            "compile.steps_per_execution = 4",
            r"Did you mean 'train\.steps_per_execution'\?",
        ),
        ("logitt/SGD.momentum = 0.5", r"Did you mean 'logit'\?"),
        ("logit/SGD.lerning_rate = 0.5", r"Did you mean 'learning_rate'\?"),
        ("resnet8/resnet.num_classes = 3", "a parameter of `resnet`"),
        ("train:\n  epoch = 3\n", r"Did you mean 'epochs'\?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(param, message):
    with pytest.raises(ValueError, match=message):
        config.load([], [param])


def test_an_unknown_name_is_reported_with_file_and_line(tmp_path):
    path = write(tmp_path / "a.gin", f"# A comment.\n{COMPLETE}\ntrain.epoch = 3\n")
    with pytest.raises(ValueError, match=rf"Invalid configuration in {path}:3\. "):
        config.load([path])


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("train.dataset = cifar100", "strings in quotes"),
        ("train.epochs", "name.parameter = value"),
        ("train.epochs = ", "name.parameter = value"),
        ("train.networks = [@resnet8/resnet", "name.parameter = value"),
        ("train.epochs = 1 2", "name.parameter = value"),
        ("train.epochs = __import__('os')", "name.parameter = value"),
        ("= 3", "name.parameter = value"),
    ],
)
def test_bad_syntax_is_one_clear_error(param, message):
    with pytest.raises(ValueError, match=message) as caught:
        config.load([], [param])
    assert "--gin_param" in str(caught.value)


def test_bad_syntax_in_a_file_is_reported_with_its_line(tmp_path):
    path = write(tmp_path / "a.gin", "train.epochs = 3\n\ntrain.dataset = cifar100\n")
    with pytest.raises(ValueError, match=rf"{path}:3\. .*strings in quotes"):
        config.load([path])


def test_a_required_value_that_nobody_gives_is_named():
    with pytest.raises(ValueError, match=r"`train\.networks` has no value") as caught:
        config.load(["datasets/image_folder"])
    assert "afd.gin" not in str(caught.value)
    # Both ways that the message names give a complete configuration.
    example = 'train.networks = ["resnet8", "resnet20"]'
    pairing = "pairings/digits_resnet8_resnet20"
    assert f"--gin_param='{example}'" in str(caught.value)
    assert f"--gin_file={pairing}," in str(caught.value)
    config.load(["datasets/image_folder"], [example])
    config.load([pairing, "datasets/image_folder"])
    assert config.settings()["dataset"] == "image_folder"


def test_a_value_that_keras_refuses_is_a_configuration_error():
    config.load([], ["logit/SGD.momentum = 3.0"])
    with pytest.raises(ValueError, match="Invalid configuration of `SGD`"):
        config.call("SGD", momentum=3.0)


# State


def test_the_text_can_be_loaded_again_and_gives_the_same_text(tmp_path):
    text = config.load([], ["train.epochs = 3", "logit/SGD.learning_rate = 0.025"])
    path = write(tmp_path / "config.gin", text)
    assert config.load([path]) == text


def test_what_a_later_statement_replaces_leaves_no_trace(tmp_path):
    text = config.load([], [COMPLETE])
    assert "resnet20/resnet" not in text
    path = write(tmp_path / "config.gin", text)
    assert config.load([path]) == text


def test_loading_twice_keeps_nothing_of_the_first():
    config.load([], ["train.epochs = 3"])
    config.load([])
    assert config.settings()["epochs"] != 3
    config.clear()
    assert gin.config_str() == ""


def test_bindings_do_not_reach_library_users():
    config.load([], ["OnlineDistiller.temperature = 7.0"])
    networks = [tiny.network(name="a"), tiny.network(name="b")]
    assert OnlineDistiller(networks).temperature == 3.0
    networks = [tiny.network(name="a"), tiny.network(name="b")]
    configured = config.settings()["distiller"](networks)
    assert configured.temperature == 7.0
    assert type(configured) is OnlineDistiller


def test_objects_made_by_a_configuration_are_of_the_original_classes():
    config.load([], ["SGD.momentum = 0.5"])
    optimizer = config.call("SGD")
    assert type(optimizer) is keras.optimizers.SGD
    assert optimizer.momentum == 0.5
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()


# afd.gin


def values_of_afd_gin():
    config.load([], [], complete=False)
    bound = {}
    for statement in config.read(["afd.gin"]):
        if not statement.scope and not statement.value == bindings._REQUIRED:
            bound[statement.name, statement.parameter] = statement.value
    return bound


def test_afd_gin_states_every_default_there_is():
    bound = values_of_afd_gin()
    known = configurables.table()
    # Objects, or what changes no result.
    left_out = {"names", "discriminators", "transfers", "metrics", "run_eagerly"}
    for name in ("train", "OnlineDistiller", "compile"):
        parameters = set(known[name].parameters) - left_out
        stated = {parameter for n, parameter in bound if n == name}
        assert parameters - {"networks"} == stated, name


def test_afd_gin_changes_no_default_of_the_library():
    known = configurables.table()
    for (name, parameter), value in values_of_afd_gin().items():
        if isinstance(value, gin_files.Reference):
            continue
        signature = inspect.signature(known[name].function)
        assert value == signature.parameters[parameter].default, (name, parameter)


def test_afd_gin_gives_the_optimizers_and_schedules_of_the_library():
    config.load(["afd.gin"], [COMPLETE])
    model = OnlineDistiller([tiny.network(name="a"), tiny.network(name="b")])
    config.call("compile", self=model)
    for phase in model.phases:
        optimizer, schedule = DEFAULTS[phase.role]
        expected = optimizer().get_config()
        actual = phase.optimizer.get_config()
        for key in expected.keys() - {"name"}:
            assert actual[key] == pytest.approx(expected[key]), (phase.role, key)
        assert repr(phase.schedule) == repr(schedule())
