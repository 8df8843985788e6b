"""Any input gives success or a clear error: never a traceback, a hang, or a half.

What is drawn is the same in every run, and bounded: these tests are part of the suite.
"""

import contextlib
import functools
import inspect
import io
import shutil
import tempfile
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
import small_runs
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from prepared_sets import examples, prepare

import afd_tf
from afd_tf import OnlineDistiller, config, data, training
from afd_tf.cli import train
from afd_tf.config import configurables
from afd_tf.training import failures

PACKAGE = Path(afd_tf.__file__).parent


def fuzz(count):
    return settings(
        max_examples=count,
        deadline=None,  # the machine may be busy; the count is what bounds the time
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def accept(function, *arguments, **options):
    """Call; let pass only errors that the package raised for a user to read."""
    try:
        return function(*arguments, **options)
    except (ValueError, TypeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert PACKAGE in Path(last.filename).parents, f"raised in {last}"
        text = str(error)
        assert any(
            word in text for word in ("Expected", "Received", "Damaged", "Corrupt")
        ), text
        return None


# Configurations

names = [*configurables.table(), "gin", "a", "logit/SGD", "x/y/resnet"]
parameters = sorted({p for c in configurables.table().values() for p in c.parameters})
words = st.one_of(
    st.sampled_from(
        [
            *names,
            *parameters,
            *("import", "from", "include", "as", "os", "@", "%", "=", ".", "/", ":"),
            *("(", ")", "[", "]", "{", "}", ",", "'", '"', "\\", "#", ";", "-", "~"),
            *("\n", "\r\n", "\r", "\t", "  ", "\x0c", "\x00", "\ufeff", "\u2028"),
            *("None", "True", "1e999", "0x1f", "1_0", "3j", "b''", "f''", "'''", "..."),
        ]
    ),
    st.text(max_size=4),
    st.integers().map(str),
    st.floats().map(repr),
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=3),
        st.sampled_from(["digits", "resnet8", "auto", "cycle", "\0", "/", "~x", "."]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=2),
    ),
    max_leaves=4,
)
references = st.builds(
    "{}{}{}".format,
    st.sampled_from(["@", "%"]),
    st.sampled_from(names),
    st.sampled_from(["", "()"]),
)
statements = st.builds(
    "{}.{} = {}".format,
    st.sampled_from(names),
    st.sampled_from(parameters),
    st.one_of(values.map(repr), references),
)
gin_text = st.one_of(
    st.lists(words, max_size=12).map("".join),
    st.lists(words, max_size=12).map(" ".join),
    st.lists(statements, max_size=4).map("\n".join),
)


@fuzz(150)
@given(gin_text)
def test_any_text_is_a_configuration_or_a_clear_error(text):
    complete = "train.networks = ['resnet8', 'resnet14']"
    written = accept(config.load, [], [complete, text])
    if written is not None:  # what was accepted can be written down and read again
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.gin"
            path.write_text(written, encoding="utf-8")
            assert config.load([path]) == written
    config.clear()


@fuzz(100)
@given(
    st.one_of(
        st.binary(max_size=60), gin_text.map(lambda t: t.encode("utf-8", "replace"))
    )
)
def test_any_file_is_a_configuration_or_a_clear_error(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gin"
        path.write_bytes(content)
        accept(config.load, [path], complete=False)
        accept(config.load, [content.decode("latin1")], complete=False)
    config.clear()


@fuzz(25)
@given(st.lists(statements, min_size=1, max_size=2))
def test_the_command_ends_with_a_line_and_leaves_nothing(lines):
    """A dry run does everything up to the first step."""

    arguments = [f"--gin_param={line}" for line in lines]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        output, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
            status = train.main([*arguments, "--dry_run"])
        assert status in (0, 2)
        assert len(error.getvalue().splitlines()) == (1 if status else 0)
        assert list(Path(folder).iterdir()) == []


# Arguments of the wrong kind

odd = st.one_of(values, st.just(object()), st.just(np.array([1, 2])), st.just(print))


def any_of(function, leave_out):
    """Draw values for one or two of a function's arguments."""
    known = [p for p in inspect.signature(function).parameters if p not in leave_out]
    return st.dictionaries(st.sampled_from(known), odd, min_size=1, max_size=2)


@fuzz(100)
@given(any_of(data.load, ["download", "memory_limit"]))
def test_data_is_loaded_or_an_argument_is_named(arguments):
    accept(data.load, **{"name": "digits", "batch_size": 64, **arguments})


@functools.cache
def distiller():
    return OnlineDistiller([tiny.network(name="a"), tiny.network(name="b")])


@fuzz(20)
@given(any_of(OnlineDistiller.compile, ["self", "run_eagerly", "metrics"]))
def test_a_distiller_is_compiled_or_an_argument_is_named(arguments):
    accept(distiller().compile, **arguments)


# What is called is the caller's own, and a flag that stays on is left alone.
OUTSIDE = ["workdir", "dry_run", "provenance", "callbacks", "deterministic"]
OUTSIDE += ["strategy", "load_data", "distiller", "compile"]


@pytest.mark.slow
@fuzz(12)
@given(any_of(training.train, OUTSIDE))
def test_a_run_is_described_or_an_argument_is_named(arguments):
    given = {
        "networks": [small_runs.small, small_runs.large],
        "method": "vanilla",
        **arguments,
    }
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        accept(training.train, workdir, **given, dry_run=True)
        assert not workdir.exists()
    keras.utils.clear_session(free_memory=False)


# Image folders


def encoded(kind, mode="RGB", size=(6, 6)):
    file = io.BytesIO()
    Image.new(mode, size, 7 if len(mode) == 1 else None).save(file, kind)
    return file.getvalue()


whole = [
    encoded("PNG"),
    encoded("JPEG"),
    encoded("GIF", "P"),
    encoded("BMP"),
    encoded("TIFF", "F"),
    encoded("WEBP"),
    encoded("PNG", "LA", (1, 40)),
]


@st.composite
def contents(draw):
    """Draw what is in a file: mostly an image, often with some bytes changed."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=30))
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([None, None, len(content) // 2]))])


file_names = st.one_of(
    st.sampled_from(["x.png", "a b.jpg", "-x.png", ".x.png", "ü.jpg", "x\n.gif", "x"]),
    st.binary(min_size=1, max_size=6)
    .filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
    .map(lambda name: name + b".png"),
)
entries = st.tuples(
    st.sampled_from(["a", "b", "train/a", "train/b", "test/a", "test/c", "train", ""]),
    file_names,
    st.one_of(contents(), st.sampled_from(["folder", "..", "/", "nothing", "a"])),
)


def put(root, folder, name, content):
    path = Path(root) / folder
    path.mkdir(parents=True, exist_ok=True)
    target = path / (
        name if isinstance(name, str) else name.decode(errors="surrogateescape")
    )
    if target.exists() or target.is_symlink():
        return
    if content == "folder":
        target.mkdir()
    elif isinstance(content, str):
        target.symlink_to(content)
    else:
        target.write_bytes(content)


def read(dataset):
    with failures.readable():  # as training does
        for _ in dataset:
            pass


def use(name, **options):
    """Load a set and read every image of it."""
    loaded = accept(data.load, name, 1, augmentation=False, **options)
    for dataset in loaded[:2] if loaded else ():
        accept(read, dataset)


@fuzz(120)
@given(
    st.lists(entries, max_size=6),
    st.booleans(),
    st.sampled_from([{}, {"memory_limit": 0}]),
)
def test_any_folder_is_loaded_or_what_is_wrong_is_named(drawn, complete, options):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "photos"
        root.mkdir()
        for split in ("train", "test") if complete else ():
            for name in "ab":
                put(root, f"{split}/{name}", "0.png", whole[0])
        for entry in drawn:
            put(root, *entry)
        use(str(root), image_size=4, **options)
        assert [p.name for p in Path(place).iterdir()] == ["photos"]


# Prepared sets


@functools.cache
def prepared():
    root = Path(tempfile.mkdtemp())
    shape = (4, 4, 3)
    prepare(root, "a_set", shape, train=examples(6, shape), test=examples(3, shape))
    return root


@pytest.fixture(scope="module", autouse=True)
def no_set_left():
    yield
    shutil.rmtree(prepared())


@pytest.mark.slow
@fuzz(50)
@given(
    st.sampled_from(
        ["features.json", "dataset_info.json", "label.labels.txt", "train", "test"]
    ),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.sampled_from([None, None, 0, 10, -1]),
    st.sampled_from([{}, {"memory_limit": 0}]),
)
def test_any_damage_to_a_prepared_set_is_named(name, changes, length, options):
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(prepared() / "a_set", Path(place) / "sets" / "a_set")
        (path,) = Path(place).rglob(f"*{name}*")
        content = bytearray(path.read_bytes())
        for index, byte in changes:
            content[index % len(content)] = byte
        path.write_bytes(content[:length])
        use("a_set", data_dir=Path(place) / "sets", **options)
