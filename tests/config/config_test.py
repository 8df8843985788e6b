import inspect
import re
from pathlib import Path

import gin
import keras
import pytest
import tiny

from afd_tf import OnlineDistiller, config
from afd_tf.config import bindings, configurables, gin_files
from afd_tf.distillation import fused_optimizers
from afd_tf.distillation.phases import DEFAULTS
from afd_tf.errors import InvalidValue

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
    with pytest.raises(InvalidValue, match="cifar10_resnet20_wrn16_2") as caught:
        config.read(["pairings/cifar10_resnet20_wrn16_3.gin"])
    message = str(caught.value)
    for root in (".", *config.folders()):
        assert str(Path(root).resolve()) in message
    assert "Did you mean pairings/cifar10_resnet20_wrn16_2.gin" in message


def test_a_missing_include_says_who_included_it(tmp_path):
    path = write(tmp_path / "a.gin", '\ninclude "datasets/digts.gin"\n')
    with pytest.raises(InvalidValue, match=rf"digits\.gin.*Included by {path}:2\."):
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
    with pytest.raises(InvalidValue, match=r"a\.gin.*not UTF-8"):
        config.read([path])


# Names


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("trian.epochs = 1", r"trian\. Did you mean 'train'\?"),
        ("train.epoch = 1", r"train\.epoch\. Did you mean 'train\.epochs'\?"),
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
        ("logit/SGD.lerning_rate = 0.5", r"Did you mean 'SGD\.learning_rate'\?"),
        ("resnet8/resnet.num_classes = 3", "a parameter of `resnet`"),
        ("train:\n  epoch = 3\n", r"Did you mean 'train\.epochs'\?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(param, message):
    with pytest.raises(InvalidValue, match=message):
        config.load([], [param])


def test_an_unknown_name_is_reported_with_file_and_line(tmp_path):
    path = write(tmp_path / "a.gin", f"# A comment.\n{COMPLETE}\ntrain.epoch = 3\n")
    with pytest.raises(InvalidValue, match=rf"Invalid configuration in {path}:3\. "):
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
    with pytest.raises(InvalidValue, match=message) as caught:
        config.load([], [param])
    assert "--gin_param" in str(caught.value)


def test_bad_syntax_in_a_file_is_reported_with_its_line(tmp_path):
    path = write(tmp_path / "a.gin", "train.epochs = 3\n\ntrain.dataset = cifar100\n")
    with pytest.raises(InvalidValue, match=rf"{path}:3\. .*strings in quotes"):
        config.load([path])


def test_a_required_value_that_nobody_gives_is_named():
    with pytest.raises(InvalidValue, match=r"`train\.networks` has no value") as caught:
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


def test_a_value_without_default_that_nobody_gives_is_named():
    for reference in ("@resnet", "@small/resnet"):
        with pytest.raises(InvalidValue, match=rf"{reference[1:]}\.depth"):
            config.load([], [f"train.networks = [{reference}, 'resnet8']"])
    given = ["train.networks = [@small/resnet, 'resnet8']", "small/resnet.depth = 8"]
    config.load([], given)
    config.load([], [given[0], "resnet.depth = 8"])


def test_what_gets_arguments_from_its_caller_is_not_called_at_once():
    for call in ("[@resnet8/resnet(), 'resnet8']", "@train()"):
        with pytest.raises(InvalidValue, match=r"without \(\): it is called later"):
            config.load([], [f"train.networks = {call}"])


def test_a_value_that_keras_refuses_is_a_configuration_error():
    config.load([], ["logit/SGD.momentum = 3.0"])
    model = OnlineDistiller([tiny.network(name="a"), tiny.network(name="b")])
    with pytest.raises(InvalidValue, match="Invalid configuration of `SGD`"):
        config.call("compile", self=model)


def test_a_macro_stands_for_its_value():
    rate = ["x/rate = 0.3"]
    use = ["logit/SGD.learning_rate = %x/rate", "logit/SGD.momentum = %x/rate"]
    text = config.load([], [*rate, *use])
    assert "logit/SGD.learning_rate = %x/rate" in text
    model = OnlineDistiller([tiny.network(name="a"), tiny.network(name="b")])
    config.call("compile", self=model)
    [logit, *_] = model.phases
    assert logit.optimizer.momentum == 0.3


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
    config.load([], ["SGD.momentum = 0.5"], complete=False)
    optimizer = config.call("SGD")
    assert type(optimizer) is fused_optimizers.SGD
    assert optimizer.momentum == 0.5
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()


# Statements without effect


@pytest.mark.parametrize(
    ("param", "winner"),
    [
        ("SGD.learning_rate = 0.3", "logit/SGD.learning_rate"),
        ("Adam.learning_rate = 0.3", "discriminator/Adam.learning_rate"),
        ("StepDecay.factor = 0.3", "discriminator/StepDecay.factor"),
        ("resnet.depth = 14", "resnet20/resnet.depth"),
    ],
)
def test_a_setting_hidden_in_every_scope_names_the_line_that_wins(param, winner):
    message = rf"with an effect; {winner} = .* wins \(.*gin:\d+\)\. Received: {param}"
    with pytest.raises(InvalidValue, match=message):
        config.load([], [param])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (["logit/Adam.epsilon = 1"], "In use: @discriminator/Adam, @feature/Adam"),
        (["resnet.depth = 8", COMPLETE], "a scope that some `@scope/resnet` refers"),
        (["train.compile = None", "compile.loss = None"], "`@scope/compile` refers"),
        (
            ["compile.optimizer = @logit/Adam()", "logit/SGD.momentum = 0.5"],
            "In use: @discriminator/SGD",
        ),
    ],
)
def test_a_setting_that_nothing_reaches_is_refused(params, message):
    given = ["compile.discriminator_optimizer = @discriminator/SGD()"]
    with pytest.raises(InvalidValue, match=message):
        config.load([], [*params, *given] if "SGD" in message else params)


def test_a_setting_with_an_effect_in_one_scope_is_taken():
    shortcut = "resnet.shortcut = 'projection'"
    text = config.load([], [shortcut, "resnet8/resnet.shortcut = 'identity'"])
    assert shortcut in text
    text = config.load(
        [], ["a = @SGD()", "compile.optimizer = %a", "SGD.momentum = 0.5"]
    )
    assert "SGD.momentum = 0.5" in text


def test_what_a_later_file_overrides_or_no_longer_reaches_is_left_out(tmp_path):
    first = write(
        tmp_path / "a.gin", "a = 0.3\nlogit/SGD.momentum = %a\nresnet.name = None"
    )
    second = write(tmp_path / "b.gin", "compile.optimizer = @logit/Adam()")
    third = write(tmp_path / "c.gin", COMPLETE)
    pairing = config.folders()[0] / config.DEFAULT_PAIRING
    text = config.load(
        [pairing, first, second, third], ["compile.label_smoothing = 0.1"]
    )
    for name in ("logit/SGD", "resnet.name", "resnet8/resnet", "a = 0.3"):
        assert name not in text
    assert "compile.label_smoothing = 0.1" in text
    # It is read again as it is.
    assert config.load([write(tmp_path / "config.gin", text)]) == text


# Kinds of values


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ("compile.decay_bias = 'False'", "True or False, without quotes"),
        ("compile.decay_normalization = 0", "True or False, without quotes"),
        ("train.deterministic = 'False'", "True or False, without quotes"),
        ("train.tensorboard = 'no'", "True or False, without quotes"),
        ("load_data.download = 'False'", "True or False, without quotes"),
        ("compile.jit_compile = 'False'", "True or False, without quotes"),
        ("OnlineDistiller.checkpointing = '2'", "True, False or an int, without"),
        ("logit/SGD.nesterov = 'False'", "True or False, without quotes"),
        ("logit/SGD.nesterov = None", "True or False, without quotes"),
        ("logit/SGD.clipnorm = '1'", "a number, without quotes"),
        ("logit/SGD.momentum = []", "a number, without quotes"),
        ("logit/SGD.clipvalue = True", "a number, without quotes"),
        ("logit/SGD.ema_overwrite_frequency = 0.5", "an int or None, without quotes"),
        ("logit/SGD.name = 3", "a text in quotes, or None"),
        ("resnet8/resnet.name = 3", "a text in quotes, or None"),
        ("OnlineDistiller.tap = 3", "a text or a list of texts in quotes"),
        ("OnlineDistiller.names = [3, 4]", "a list of texts in quotes"),
        ("train.source = 3", "a text in quotes, or None"),
        ("train.load_data = @compile", "@load_data"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_where_it_was_given(param, expected):
    message = rf"in --gin_param\. Expected {expected}.*Received: {re.escape(param)}"
    with pytest.raises(InvalidValue, match=message):
        config.load([], [param])


def test_macros_are_of_the_kind_that_they_stand_for():
    with pytest.raises(InvalidValue, match="True or False, without quotes"):
        config.load([], ["a = 'False'", "logit/SGD.nesterov = %a"])
    config.load([], ["a = False", "logit/SGD.nesterov = %a"])


def test_every_default_is_of_its_kind():
    for name, configurable in configurables.table().items():
        for p in inspect.signature(configurable.function).parameters.values():
            kind = configurable.kinds.get(p.name)
            if kind and p.default is not inspect.Parameter.empty:
                assert kind.allows(p.default), f"{name}.{p.name}"


# afd.gin


def values_of_afd_gin():
    config.load([], [], complete=False)
    bound = {}
    for statement in config.read(["afd.gin"]):
        if not statement.scope and statement.value != bindings._REQUIRED:
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
