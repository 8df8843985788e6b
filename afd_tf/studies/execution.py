"""Execution of runs as processes, several at a time, until all have ended."""

import contextlib
import signal
import subprocess
import sys
import time

from afd_tf.studies.runs import seconds_left
from afd_tf.text import counted, duration

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds between two looks at the processes.
_PAUSE = 0.2


class Stopped(KeyboardInterrupt):
    """A signal stopped the runs; what they did is saved.

    Attributes:
        signal: int.
    """

    def __init__(self, number):
        self.signal = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


def program(command):
    """Return the start of a command line, of "train" for `afd-train`: list of str."""
    return [sys.executable, "-m", "afd_launcher", command]


def start(command_line, output):
    """Start a process in a group of its own: a Ctrl-C reaches it through us alone.

    Args:
        command_line: list of str.
        output: open file for what it prints.

    Returns:
        `subprocess.Popen`.
    """
    return subprocess.Popen(
        command_line,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


def call(command_line, output):
    """Run a process to its end, as `start` starts it.

    Returns:
        int, its exit status.

    Raises:
        Stopped: by a signal, after the process was ended.
    """
    received = []
    with _handling(lambda number, frame: received.append(number)):
        process = start(command_line, output)
        while process.poll() is None and not received:
            time.sleep(_PAUSE)
        if received:
            process.terminate()
            process.wait()
            raise Stopped(received[0])
    return process.returncode


def stopping():
    """Let SIGINT and SIGTERM raise `Stopped` where no run handles them."""

    def stop(number, frame):
        raise Stopped(number)

    return _handling(stop)


@contextlib.contextmanager
def _handling(handler):
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class Execution:
    """Execution of the runs of a list that are not finished.

    A run that ends with an error does not end the others. SIGINT and SIGTERM are passed
    on, each run saves where it stands, and `execute` raises.

    Args:
        runs: list of Run, in the order in which they start; one that others learn from
            before them.
        jobs: int >= 1, runs at a time.
        command: list of str, the command line that a run's arguments are added to.
            Default: `afd-train`.
        every_seconds: float, time between two lines about progress.
    """

    def __init__(self, runs, jobs=1, command=None, every_seconds=60.0):
        self._runs = runs
        self._jobs = jobs
        self._command = command or program("train")
        self._every_seconds = every_seconds
        self._waiting = [run for run in runs if not run.finished]
        self._running = {}
        self._failed = {}
        self._signals = []
        self._forwarded = 0

    def execute(self):
        """Run until nothing is left.

        Returns:
            dict of a failed run's name to the reason, a str.

        Raises:
            Stopped: by a signal, after all processes have ended.
        """
        with _handling(lambda number, frame: self._signals.append(number)):
            try:
                self._execute()
            finally:
                for process in self._running:
                    process.terminate()
                for process in self._running:
                    process.wait()
        for run in self._runs:
            run.keep()
        if self._signals:
            raise Stopped(self._signals[-1])
        return self._failed

    def _execute(self):
        printed = time.monotonic()
        while self._running or (self._waiting and not self._signals):
            waiting = len(self._waiting)
            self._start_ready()
            if not self._running and waiting and len(self._waiting) == waiting:
                self._fail_waiting()
            time.sleep(_PAUSE)
            self._forward_signals()
            self._collect_ended()
            if self._running and time.monotonic() - printed > self._every_seconds:
                printed = time.monotonic()
                self._print_progress()

    def _forward_signals(self):
        # Not in the handler: it may come while a process starts.
        for number in self._signals[self._forwarded :]:
            self._forwarded += 1
            for process in self._running:
                process.send_signal(number)

    def _start_ready(self):
        for run in list(self._waiting):
            if self._signals or len(self._running) >= self._jobs:
                return
            if run.source and not (run.source / "results.json").is_file():
                name = str(run.source.relative_to(run.output))
                if name in self._failed:
                    self._waiting.remove(run)
                    self._fail(run, f"{name}, which it learns from, failed")
                continue
            self._waiting.remove(run)
            run.log.parent.mkdir(parents=True, exist_ok=True)
            _print(f"{run.name}: {'continues' if run.progress()[0] else 'starts'}")
            with run.log.open("a", encoding="utf-8") as output:
                process = start([*self._command, *run.arguments()], output)
            self._running[process] = run

    def _fail_waiting(self):
        for run in self._waiting:
            self._fail(run, f"{run.source}, which it learns from, is no finished run")
        self._waiting.clear()

    def _collect_ended(self):
        for process in [p for p in self._running if p.poll() is not None]:
            run = self._running.pop(process)
            if process.returncode == 0 and run.finished:
                run.keep()
                _print(f"{run.name}: finished. {self._summary()}")
            elif not self._signals:
                last = run.log.read_text(encoding="utf-8").strip().splitlines()[-1:]
                status = f"status {process.returncode}"
                self._fail(run, f"{status}: {' '.join(last)} ({run.log})")

    def _fail(self, run, reason):
        self._failed[run.name] = reason
        _print(f"{run.name}: failed, {reason}")

    def _print_progress(self):
        running = ", ".join(
            f"{run.name} {run.status()}" for run in self._running.values()
        )
        _print(f"{running}. {self._summary()}")

    def _summary(self):
        remaining = [run for run in self._runs if run.name not in self._failed]
        done = sum(run.finished for run in remaining)
        seconds = seconds_left(remaining, self._jobs)
        left = "?" if seconds is None else duration(seconds)
        return f"{done} of {counted(len(self._runs), 'run')} done, {left} left"


def _print(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
