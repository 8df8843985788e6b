"""Commands: help, errors of one line, exit status; runs opened for them.

Exit status: 0 done, 2 a mistake of the user or an error in the data (an
`afd_tf.errors.Mistake`: one line, no traceback), 75 another worker was lost (training
only; try again), 130 interrupted by SIGINT, 143 by SIGTERM (training only, after
saving); anything unexpected keeps its traceback and ends with 1.
"""

import contextlib
import importlib
import logging
import os
import re
import shlex
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

from afd_tf.cli.flags import GIN_PARAM
from afd_tf.errors import Mistake
from afd_tf.text import printable

_START_UP_NOTE = re.compile(r"[IWE]\d{4} |WARNING: All log messages before absl")


class Command(NamedTuple):
    """A command.

    Attributes:
        name: str, as typed.
        usage: str, what follows the name.
        summary: str, one paragraph.
        examples: tuple of str.
        flags: tuple of flags as `afd_tf.cli.flags` declares them, in the order of
            their importance.
        execute: callable from flag values, positional arguments and all arguments as
            typed to the exit status.
        takes_arguments: bool, whether there are positional arguments.
    """

    name: str
    usage: str
    summary: str
    examples: tuple
    flags: tuple
    execute: Callable
    takes_arguments: bool = False


def entry_points(command):
    """Return the functions of a command's module.

    Args:
        command: Command.

    Returns:
        `main(argv=None)`, which runs the command and returns the exit status, and
        `run()`, which runs it as a program and exits.
    """

    def main(argv=None):
        return _main(command, argv)

    def run():
        try:
            status = main()
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output, `head` for instance, has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 0
        sys.exit(status)

    return main, run


def _main(command, argv=None):
    """Run a command.

    Args:
        command: Command.
        argv: list of str, the arguments without the program's name; default those of
            the process.

    Returns:
        int, the exit status.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    values = flags.FlagValues()
    for define in command.flags:
        define(flag_values=values)
    flags.DEFINE_bool("help", False, "Show this text.", flag_values=values)
    try:
        arguments = values(["", *("--help" if a == "-h" else a for a in argv)])[1:]
        if values.help:
            print(_help(command, values))
            return 0
        if arguments and not command.takes_arguments:
            raise flags.Error(f"Unexpected argument {arguments[0]!r}.")
    except flags.Error as error:
        text = str(error).rstrip(".")
        if isinstance(error, flags.UnrecognizedFlagError):
            text += _setting_hint(command, error.flagname)
        return _fail(command, f"{text}. See {command.name} --help.")
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{command.name}: {message}\n"
    try:
        return command.execute(values, arguments, argv)
    except KeyboardInterrupt:
        again = shlex.join([command.name, *argv])
        print(f"\n{command.name}: interrupted. Again: {again}", file=sys.stderr)
        return 130
    except Mistake as error:
        _fail(command, str(error))
        return getattr(error, "exit_status", 2)
    finally:
        warnings.formatwarning = format_warning
        _forget_configuration()


def _setting_hint(command, flag):
    """Say how to give what is no flag but a setting of `train`."""
    if GIN_PARAM not in command.flags:
        return ""
    from afd_tf import config

    if flag not in {s.parameter for s in config.read() if s.name == "train"}:
        return ""
    return f". It is a setting: --gin_param='train.{flag} = ...'"


def import_tensorflow():
    """Import TensorFlow without its start-up notes, which are not for users.

    It writes them before it reads the log level; what is not such a note is passed on.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            notes.seek(0)
            for line in notes.read().decode(errors="replace").splitlines():
                if not _START_UP_NOTE.match(line):
                    print(line, file=sys.stderr)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(keras|tensorflow|absl|PIL)\b")


@contextlib.contextmanager
def opened_run(path, params=()):
    """Open a run: its configuration is bound, and its precision is set.

    Args:
        path: str, the run's directory.
        params: gin statements that win over its configuration.

    Yields:
        `RunDirectory` and `Settings` of the run.

    Raises:
        Mistake: if there is no such run, or its configuration is damaged.
    """
    from afd_tf import config
    from afd_tf.runs.run_directory import RunDirectory

    run = RunDirectory(path)
    run.require()
    import_tensorflow()
    config.load([run.config], params)

    from afd_tf.training import Settings
    from afd_tf.training.experiment import environment

    settings = Settings(**config.settings())
    with environment(precision=settings.precision):
        yield run, settings


def _forget_configuration():
    config = sys.modules.get("afd_tf.config")
    if config is not None:
        config.clear()


def _fail(command, message):
    # gin appends where it was called from, on further lines.
    message = " ".join(message.split("\n  In call to configurable")[0].split())
    print(f"{command.name}: {printable(message)}", file=sys.stderr)
    return 2


def _help(command, values):
    lines = [f"usage: {command.name} {command.usage}", ""]
    lines += [*textwrap.wrap(command.summary, 88), "", "flags:"]
    # In the order in which they are defined, which is that of their importance.
    own = [flag for group in values.flags_by_module_dict().values() for flag in group]
    for flag in own:
        lines += _flag_help(flag)
    lines += ["", "examples:", *(f"  {example}" for example in command.examples)]
    return "\n".join(lines)


def _flag_help(flag):
    head = f"  --{flag.name}"
    if not flag.boolean:
        head += f"={flag.name.split('_')[-1].upper()}"
    text = flag.help.split(";\n")[0]
    if isinstance(flag, flags.EnumFlag):
        head = f"  --{flag.name}={'|'.join(flag.parser.enum_values)}"
        text = text.split(": ", 1)[1]
    indent = " " * 26
    lines = textwrap.wrap(text, 88, initial_indent=indent, subsequent_indent=indent)
    if len(head) < len(indent) - 1:
        lines[0] = head.ljust(len(indent)) + lines[0].lstrip()
        return lines
    return [head, *lines]
