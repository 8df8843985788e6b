"""Any configuration or argument gives success or a clear error: no traceback."""

import contextlib
import functools
import io
import signal
import tempfile
from pathlib import Path

import keras
import pytest
import small_runs
import tiny
from fuzzing import accept, any_of, fuzz, values
from hypothesis import given
from hypothesis import strategies as st

from afd_tf import OnlineDistiller, config, training
from afd_tf.cli import train
from afd_tf.config import configurables

# Configurations

names = [*configurables.table(), "gin", "a", "logit/SGD", "x/y/resnet"]
parameters = sorted({p for c in configurables.table().values() for p in c.parameters})
settings = [f"{n}.{p}" for n, c in configurables.table().items() for p in c.parameters]
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


@fuzz(100)
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


@fuzz(50)
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


@fuzz(10)
@given(
    st.lists(
        st.builds("{} = {}".format, st.sampled_from(settings), values.map(repr)),
        min_size=1,
        max_size=2,
    )
)
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


# The absurd

LARGE = 2**62
absurd = st.one_of(
    # Megabytes of brackets, of digits, of text, of statements.
    st.builds(
        lambda part, count: f"train.epochs = {part * count}",
        st.sampled_from([*"[({'@%-9#\n", '"', "\\", "[]", "%a", "@SGD()", "not "]),
        st.sampled_from([30, 10_000, 2_000_000]),
    ),
    st.integers(1, 2_000).map(lambda n: "\n".join(["train.epochs = 2"] * n)),
    # A chain of macros, which may end, lead back, or become very large.
    st.builds(
        lambda depth, width, end: "\n".join(
            [
                *(
                    f"m{i} = [{', '.join([f'%m{i + 1}'] * width)}]"
                    for i in range(depth)
                ),
                f"m{depth} = {end}",
                "train.epochs = %m0",
            ]
        ),
        st.integers(0, 300),
        st.integers(1, 10),
        st.sampled_from(["1", "%m0", "@SGD()", "@train", "'x'"]),
    ),
    # Scopes of thousands of parts.
    st.builds(
        lambda depth, call: (
            f"{'x/' * depth}SGD.momentum = 0.5\n"
            f"compile.optimizer = @{'x/' * depth}SGD{call}"
        ),
        st.integers(0, 3_000),
        st.sampled_from(["()", ""]),
    ),
    # Numbers that nothing is meant to have, and too long a name.
    st.builds(
        "{} = {}".format,
        st.sampled_from(
            [s for s in settings if not s.startswith(("train.workers", "resnet"))]
        ),
        st.sampled_from(
            [LARGE, -LARGE, 1e300, 5e-324, "'" + "x" * 300 + "'", "'a\\0b'"]
        ),
    ),
)


@fuzz(20)
@given(st.lists(absurd, min_size=1, max_size=2))
def test_the_absurd_is_refused_in_a_line_and_soon(parts):
    def late(*_):
        raise AssertionError("no answer within 60 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("a.gin").write_text("\n".join(parts))
            error = io.StringIO()
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(error),
            ):
                status = train.main(
                    [
                        "--gin_file=pairings/digits_resnet8_resnet20",
                        "--gin_file=a.gin",
                        "--dry_run",
                    ]
                )
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert status in (0, 2), error.getvalue()
    lines = error.getvalue().splitlines()
    assert len(lines) == (1 if status else 0)
    assert all(len(line) < 2_000 for line in lines)


# Arguments of the wrong kind


@functools.cache
def distiller():
    return OnlineDistiller([tiny.network(name="a"), tiny.network(name="b")])


@fuzz(20)
@given(any_of(OnlineDistiller.compile, ["self", "run_eagerly", "metrics"]))
def test_a_distiller_is_compiled_or_an_argument_is_named(arguments):
    accept(distiller().compile, **arguments)


# What is called is the caller's own, and a flag that stays on is left alone.
OUTSIDE = ["workdir", "dry_run", "provenance", "trust_source", "callbacks"]
OUTSIDE += ["deterministic"]
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
