"""Starts runs as processes, several at a time, until all have ended in some way."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from afd_tf.text import counted, duration
from reproduction.runs import seconds_left

ROOT = Path(__file__).resolve().parents[2]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds between two looks at what runs.
_PAUSE = 0.2


class Stopped(KeyboardInterrupt):
    """A signal stopped the runs; what they did is saved.

    Attributes:
        signal: int.
    """

    def __init__(self, number):
        self.signal = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


def start(arguments, output, command="train"):
    """Start a command in a process group of its own: a Ctrl-C reaches it through us.

    Args:
        arguments: list of str.
        output: open file for what it prints.
        command: str, "train" for `afd-train`, and so on.

    Returns:
        `subprocess.Popen`.
    """
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "afd_launcher", command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        process_group=0,
    )


def call(arguments, output, command):
    """Run a command to its end, as `start` starts it.

    Returns:
        int, its exit status.

    Raises:
        Stopped: by a signal, after the command was ended.
    """
    heard = []
    with _listening(lambda number, frame: heard.append(number)):
        process = start(arguments, output, command)
        while process.poll() is None and not heard:
            time.sleep(_PAUSE)
        if heard:
            process.terminate()
            process.wait()
            raise Stopped(heard[0])
    return process.returncode


def stopping():
    """Let SIGINT and SIGTERM raise `Stopped` where nothing runs that hears them."""

    def stop(number, frame):
        raise Stopped(number)

    return _listening(stop)


@contextlib.contextmanager
def _listening(hear):
    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Execution:
    """Does what is left of a list of runs.

    A run that ends with an error does not end the others. SIGINT and SIGTERM are passed
    on, each run saves where it stands, and `execute` raises.

    Args:
        runs: list of Run, in the order in which they start; one that others learn from
            before them.
        jobs: int >= 1, runs at a time.
        every_seconds: float, time between two lines about progress.
    """

    def __init__(self, runs, jobs=1, every_seconds=60.0):
        self._runs = runs
        self._jobs = jobs
        self._every_seconds = every_seconds
        self._waiting = [run for run in runs if not run.finished]
        self._running = {}
        self._failed = {}
        self._heard = []
        self._passed_on = 0

    def execute(self):
        """Run until nothing is left.

        Returns:
            dict of a failed run's name to the reason, a str.

        Raises:
            Stopped: by a signal, after all processes have ended.
        """
        with _listening(lambda number, frame: self._heard.append(number)):
            try:
                self._execute()
            finally:
                for process in self._running:
                    process.terminate()
                for process in self._running:
                    process.wait()
        for run in self._runs:
            run.keep()
        if self._heard:
            raise Stopped(self._heard[-1])
        return self._failed

    def _execute(self):
        said = time.monotonic()
        while self._running or (self._waiting and not self._heard):
            self._start_what_can()
            time.sleep(_PAUSE)
            self._pass_on()
            self._gather()
            if self._running and time.monotonic() - said > self._every_seconds:
                said = time.monotonic()
                self._say_progress()

    def _pass_on(self):
        # Not in the handler: it may come while a process starts.
        for number in self._heard[self._passed_on :]:
            self._passed_on += 1
            for process in self._running:
                process.send_signal(number)

    def _start_what_can(self):
        for run in list(self._waiting):
            if self._heard or len(self._running) >= self._jobs:
                return
            if run.source and not (run.source / "results.json").is_file():
                name = str(run.source.relative_to(run.output))
                if name in self._failed:
                    self._waiting.remove(run)
                    self._fail(run, f"{name}, which it learns from, failed")
                continue
            self._waiting.remove(run)
            run.log.parent.mkdir(parents=True, exist_ok=True)
            _say(f"{run.name}: {'continues' if run.progress()[0] else 'starts'}")
            with run.log.open("a", encoding="utf-8") as output:
                self._running[start(run.arguments(), output)] = run

    def _gather(self):
        for process in [p for p in self._running if p.poll() is not None]:
            run = self._running.pop(process)
            if process.returncode == 0 and run.finished:
                run.keep()
                _say(f"{run.name}: finished. {self._left()}")
            elif not self._heard:
                last = run.log.read_text(encoding="utf-8").strip().splitlines()[-1:]
                status = f"status {process.returncode}"
                self._fail(run, f"{status}: {' '.join(last)} ({run.log})")

    def _fail(self, run, reason):
        self._failed[run.name] = reason
        _say(f"{run.name}: failed, {reason}")

    def _say_progress(self):
        running = ", ".join(
            f"{run.name} {run.status()}" for run in self._running.values()
        )
        _say(f"{running}. {self._left()}")

    def _left(self):
        remaining = [run for run in self._runs if run.name not in self._failed]
        done = sum(run.finished for run in remaining)
        seconds = seconds_left(remaining, self._jobs)
        left = "?" if seconds is None else duration(seconds)
        return f"{done} of {counted(len(self._runs), 'run')} done, {left} left"


def _say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
