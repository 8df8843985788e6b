"""Configurations of strangers: nothing of them runs, and each is judged at once."""

import os
import sys

import pytest

from afd_tf import config
from afd_tf.cli import train

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
@pytest.mark.parametrize("place", ["file", "include", "param"])
def test_nothing_is_imported_however_it_is_written(tmp_path, content, place):
    (tmp_path / "a.gin").write_bytes(content)
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    files, params = [tmp_path / "a.gin"], [COMPLETE]
    if place == "include":
        files = [tmp_path / "b.gin"]
    if place == "param":
        files, params = [], [COMPLETE, content.decode("utf-8", "replace")]
    with pytest.raises(ValueError, match=r"Invalid configuration|Damaged gin file"):
        config.load(files, params)


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
        ["SGD.momentum = @SGD()"],
        ["logit/SGD.momentum = [@x/SGD()]"],
        ["train.method = @train()"],
        ["OnlineDistiller.temperature = @train()"],
        ["a = @train()", "OnlineDistiller.temperature = %a"],
    ],
)
def test_what_leads_back_to_itself_is_refused(statements):
    with pytest.raises(ValueError, match="does not lead back to itself"):
        config.load([], [COMPLETE, *statements])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0x" + "f" * 5000, "within 64 bits"),
        ("-9223372036854775809", "within 64 bits"),
        ("1e999", "a finite number"),
        ("[[-1e999]]", "a finite number"),
        ("b'x'", "a number, a str"),
        ("3j", "a number, a str"),
        ("{'class_name': 'Lambda', 'module': 'keras.layers'}", "no dict"),
        ("[{}]", "no dict"),
        ("[" * 30 + "]" * 30, "20 nested lists"),
    ],
)
def test_values_that_no_parameter_takes_are_refused(value, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        config.load([], [COMPLETE, f"compile.loss = {value}"])
    assert "compile.loss = " in str(caught.value)
    assert len(str(caught.value)) < 500


def test_keys_of_options_are_names():
    options = "train.method_options = {'discriminator_batches': 'concatenated'}"
    config.load([], [COMPLETE, options])
    for key in ("3", "@SGD", "[1]"):
        with pytest.raises(ValueError, match="Invalid configuration"):
            config.load([], [COMPLETE, f"train.method_options = {{{key}: 1}}"])


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
    with pytest.raises(ValueError, match=r"Expected a file|Invalid config") as caught:
        config.load([name.replace("\\0", "\0")], [COMPLETE])
    if "://" in name:
        assert "copy it here" in str(caught.value)


def test_files_without_end_are_not_read(tmp_path):
    path = tmp_path / "large.gin"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"large\.gin.*more than"):
        config.load([path])


def test_includes_have_a_limit(tmp_path):
    for number in range(25):
        text = f"include '{number + 1}.gin'\n"
        (tmp_path / f"{number}.gin").write_text(text)
    (tmp_path / "25.gin").write_text(COMPLETE)
    assert config.load([tmp_path / "6.gin"])
    with pytest.raises(ValueError, match=r"20\.gin:1\..*20 nested includes"):
        config.load([tmp_path / "0.gin"])


def test_arguments_of_other_types_are_refused():
    for files, params in (("a.gin", []), ([], "x"), ([3], []), ([], [None]), (3, [])):
        with pytest.raises(TypeError, match=r"`files` or `params`"):
            config.load(files, params)


def test_the_command_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for param in ("a = %a", "train.method = @train()", "train.epochs = 1e999"):
        assert train.main([f"--gin_param={param}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("afd-train: Invalid configuration in --gin_param")
    assert list(tmp_path.iterdir()) == []
