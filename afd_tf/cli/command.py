"""Commands: help, errors of one line, exit status; runs opened for them.

Exit status: 0 done, 1 an unforeseen error (a line that names the file with the
traceback), 2 a mistake of the user or an error in the data (an `afd_tf.errors.Mistake`,
or a file that the system refuses: one line), 74 done, but standard output was lost on
the way, 75 another worker was lost (training only; try again), 130 interrupted by
SIGINT, 143 by SIGTERM (training only, after saving).
"""

import contextlib
import errno
import importlib
import io
import logging
import os
import re
import shlex
import sys
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

from afd_tf.cli.flags import GIN_PARAM
from afd_tf.errors import InvalidValue, Mistake, shown
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
        is_report: bool, whether all it makes is what it prints: a reader that leaves
            early, such as `head`, has seen enough.
    """

    name: str
    usage: str
    summary: str
    examples: tuple
    flags: tuple
    execute: Callable
    takes_arguments: bool = False
    is_report: bool = False


class _Output:
    """Standard output or error, the loss of which does not stop the work.

    Args:
        stream: text stream; None if it was closed before the program started.

    Attributes:
        error: the OSError by which something was lost, or None.
    """

    def __init__(self, stream):
        self.error = None
        if stream is None:
            self.error = OSError(errno.EBADF, os.strerror(errno.EBADF))
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self):
        self._attempt(self._stream.flush)

    def finish(self):
        """Flush, and keep Python from doing so again, and failing, when it ends."""
        self.flush()
        if self.error:
            with contextlib.suppress(OSError):  # not a file: a test's
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def _attempt(self, action, *arguments):
        try:
            action(*arguments)
        except OSError as error:
            self.error = self.error or error


def entry_points(command):
    """Return the functions of a command's module.

    Args:
        command: Command.

    Returns:
        `main(argv=None)`, which runs the command and returns the exit status, and
        `run()`, which runs it as a program and exits.
    """

    def main(argv=None):
        argv = list(sys.argv[1:] if argv is None else argv)
        before = sys.stdout, sys.stderr
        output, errors = sys.stdout, sys.stderr = [_Output(each) for each in before]
        try:
            status = _main(command, argv)
            output.finish()
            left = isinstance(output.error, BrokenPipeError) and (
                command.is_report or not {"-h", "--help"}.isdisjoint(argv)
            )
            if output.error and status == 0 and not left:
                reason = output.error.strerror
                _fail(command, f"Finished, but its output was lost: {reason}.")
                status = os.EX_IOERR
            errors.finish()
            return status
        finally:
            sys.stdout, sys.stderr = before

    def run():
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:  # else the next file that is opened would be in its place
                os.open(os.devnull, os.O_RDWR)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # in a locale of few letters
                stream.reconfigure(errors="backslashreplace")
        sys.exit(main())

    return main, run


def _main(command, argv):
    """Run a command.

    Args:
        command: Command.
        argv: list of str, the arguments without the program's name.

    Returns:
        int, the exit status.
    """
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
        # A report names files as escape sequences, and TensorFlow sees none of them.
        exempt = arguments if command.is_report else ()
        _check_encoding([text for text in argv if text not in exempt])
    except flags.Error as error:
        text = str(error).rstrip(".")
        if isinstance(error, flags.UnrecognizedFlagError):
            text += _setting_hint(command, error.flagname)
        return _fail(command, f"{text}. See {command.name} --help.")
    except Mistake as error:
        return _fail(command, str(error))
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
    except Exception as error:
        refused = _refused_file(error)
        if refused:
            return _fail(command, refused)
        return _report(command, error)
    finally:
        warnings.formatwarning = format_warning
        _forget_configuration()


def _refused_file(error):
    """Say what the system has checked: a file not readable, too long a name, ..."""
    while isinstance(error, OSError) and error.filename is None and error.__context__:
        error = error.__context__  # gin's copy of an error has no attributes
    if isinstance(error, FileNotFoundError | FileExistsError):
        return None
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return f"{shown(os.fsdecode(error.filename))}: {error.strerror}."


def _check_encoding(arguments):
    """Refuse text that TensorFlow would take for the name of another file."""
    variables = ("AFD_TFDS_DIR", "TFDS_DATA_DIR", "AFD_IMAGE_FOLDER")
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        raise InvalidValue("The working directory does not exist any more.") from None
    utf8 = sys.getfilesystemencoding().lower() == "utf-8"
    for text in [*arguments, folder, *(os.environ.get(v, "") for v in variables)]:
        try:
            text.encode("utf-8" if utf8 else "ascii")
        except UnicodeEncodeError:
            raise InvalidValue(
                "Expected names in UTF-8, and a locale for them such as "
                f"LC_ALL=C.UTF-8. Received: {text!a}."
            ) from None


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
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InvalidValue(
            "Expected a folder for temporary files that can be written, such as "
            f"TMPDIR. Received: {error.strerror}."
        ) from error
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
    message = re.split(r"\n  (?:In call to|No values supplied by Gin)", message)[0]
    message = printable(" ".join(message.split()))
    message = re.sub(r"(\S{150})\S{100,}(\S{50})", r"\1...\2", message)
    print(f"{command.name}: {message}", file=sys.stderr)
    return 2


def _report(command, error):
    """Say that the program failed, and where the traceback is; return the status."""
    details = traceback.format_exc()
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix=f"{command.name}-",
            suffix=".txt",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.write(details)
        place = f"in {file.name}"
    except OSError:
        print(details, file=sys.stderr)
        place = "above"
    message = (str(error).strip().splitlines() or [""])[0][:200]
    _fail(
        command,
        f"an error of the program itself: {type(error).__name__}: {message} The "
        f"traceback is {place}; please report it.",
    )
    return 1


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
