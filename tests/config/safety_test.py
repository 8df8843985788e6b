"""Configurations of strangers: nothing of them runs, and the absurd is refused."""

import os
import sys

import gin
import pytest

from afd_tf import config
from afd_tf.cli import train
from afd_tf.errors import InvalidType, InvalidValue

COMPLETE = "train.networks = ['resnet8', 'resnet14']"


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    config.clear()


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Make a module whose import would be noticed."""
    (tmp_path / "trap_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert "trap_module" not in sys.modules


@pytest.mark.usefixtures("trap")
@pytest.mark.parametrize(
    "content",
    [
        b"import trap_module\n",
        b"import trap_module as t\n",
        b"from trap_package import trap_module\n",
        b"from __gin__ import dynamic_registration\n",
        b"\xef\xbb\xbfimport trap_module\n",
        b"train.epochs = 3\r\nimport trap_module\r\n",
        b"train.epochs = 3\rimport trap_module\r",
        b"import \\\ntrap_module\n",
        b"train.epochs = 3\n\x0cimport trap_module\n",
        b"   import trap_module\n",
        b"from trap_module import \\\n  x as y\n",
        b"im\\\nport trap_module\n",
        b"train.epochs = 3; import trap_module\n",
        b"train:\n  import trap_module\n",
        b"train.epochs = [\nimport trap_module\n]\n",
        b"train.method = @trap_module.f()\n",
        b"trap_module.f.x = 3\n",
        b"train.method = @gin.singleton()\n",
        b"train.method = 'x' 'y'.__class__\n",
        b"train.epochs = __import__('trap_module')\n",
        "train.epochs = 3\nimport trap_module\n".encode("utf-16"),
    ],
)
def test_nothing_is_imported_however_it_is_written(tmp_path, content):
    (tmp_path / "a.gin").write_bytes(content)
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    for name in ("a.gin", "b.gin"):
        with pytest.raises(InvalidValue, match=r"Invalid config|Damaged gin file"):
            config.load([tmp_path / name], [COMPLETE])
    with pytest.raises(InvalidValue, match="Invalid configuration in --gin_param"):
        config.load([], [COMPLETE, content.decode("utf-8", "replace")])


def test_what_others_registered_with_gin_cannot_be_called():
    gin.external_configurable(print, name="stranger", module="elsewhere")
    with pytest.raises(InvalidValue, match=r"a known name.*@stranger"):
        config.load([], ["train.method = @stranger()"])


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%s\r\n", b"# coding: x\r%s\r"])
def test_marks_and_line_ends_of_other_systems_are_read(tmp_path, content):
    path = tmp_path / "a.gin"
    path.write_bytes(content % b"train.epochs = 7")
    config.load([path], [COMPLETE])
    assert config.settings()["epochs"] == 7


@pytest.mark.parametrize(
    "statements",
    [
        ["a = %b", "b = %a", "train.epochs = %a"],
        ["a = %a", "train.epochs = %a"],
        ["a = [%b, %b]", "b = 1", "train.epochs = %a"],
        ["SGD.momentum = @SGD()"],
        ["logit/SGD.momentum = [@x/SGD()]"],
        ["SGD.momentum = @Adam()", "Adam.epsilon = @SGD()"],
        ["a = @SGD()", "SGD.momentum = %a"],
        ["train.method_options = {'a': [%b]}", "b = %b"],
    ],
)
def test_what_may_lead_back_to_itself_is_refused(statements):
    with pytest.raises(InvalidValue, match="cannot lead back to itself"):
        config.load([], [COMPLETE, *statements])


@pytest.mark.parametrize(
    "value",
    [
        "0x" + "f" * 5000,
        "-9223372036854775809",
        "1e999",
        "[[-1e999]]",
        "b'x'",
        "3j",
        # Of dicts Keras makes objects.
        "{'class_name': 'Lambda', 'module': 'keras.layers'}",
        "[{}]",
        "[" * 30 + "]" * 30,
        "[" * 100_000,
        "@SGD()" * 2000,
    ],
)
def test_values_that_no_parameter_takes_are_refused(value):
    with pytest.raises(InvalidValue, match="Invalid configuration in --gin_param") as e:
        config.load([], [COMPLETE, f"compile.loss = {value}"])
    assert len(str(e.value)) < 600


def test_the_options_of_a_method_are_a_dict():
    options = "train.method_options = {'discriminator_batches': 'concatenated'}"
    text = config.load([], [COMPLETE, options])
    assert options in text
    with pytest.raises(InvalidValue, match="Invalid configuration"):
        config.load([], [COMPLETE, "train.method_options = {[1]: 1}"])


@pytest.mark.parametrize("place", ["file", "include"])
@pytest.mark.parametrize(
    "name",
    ["/dev/zero", "/", "", "x" * 5000, "a\\0b", "pipe", "gs://bucket/x", "http://x/y"],
)
def test_what_is_no_file_is_said_at_once(tmp_path, monkeypatch, name, place):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    if place == "include":
        (tmp_path / "a.gin").write_text(f"include '{name}'\n")
        name = "a.gin"
    with pytest.raises(InvalidValue, match=r"Expected a file|Invalid config"):
        config.load([name.replace("\\0", "\0")], [COMPLETE])


def test_files_without_end_are_not_read(tmp_path):
    path = tmp_path / "large.gin"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(InvalidValue, match=r"large\.gin.*more than"):
        config.load([path])


def test_includes_have_a_limit(tmp_path):
    for number in range(1000):
        (tmp_path / f"{number}.gin").write_text(f"include '{number + 1}.gin'\n")
    (tmp_path / "1000.gin").write_text(COMPLETE)
    assert config.load([tmp_path / "950.gin"])
    with pytest.raises(InvalidValue, match="at most 100 files"):
        config.load([tmp_path / "0.gin"])


def test_one_text_in_place_of_a_list_is_refused():
    for files, params in (("a.gin", []), ([], "x"), (3, [])):
        with pytest.raises(InvalidType, match="a list of str"):
            config.load(files, params)


def test_the_command_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for param in ("a = %a", "train.method = @train()", "train.epochs = 1e999"):
        assert train.main([f"--gin_param={param}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("afd-train: Invalid configuration in --gin_param")
    assert list(tmp_path.iterdir()) == []
