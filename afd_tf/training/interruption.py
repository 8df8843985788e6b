"""Interruption of a run by signals, between two steps."""

import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """A signal stopped a run.

    Attributes:
        signal: `signal.Signals`.
        position: `Position` that was saved last, from where the run goes on; None if
            there is none.
    """

    def __init__(self, number, position=None):
        self.signal = signal.Signals(number)
        self.position = position
        super().__init__(f"stopped by {self.signal.name}")


class Interruption:
    """Handlers of SIGTERM and SIGINT while a run is prepared and trains.

    Attributes:
        requested: number of the signal that asked to stop, or None.
    """

    def __init__(self):
        self.requested = None
        self._between_steps = False

    @contextlib.contextmanager
    def listening(self):
        """Listen to signals, and put back at the end what listened before.

        They raise `Interrupted` at once, except within `between_steps`. A signal that
        the process ignores stays ignored. Outside of the main thread, in which Python
        takes no signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [n for n, handler in before.items() if handler != signal.SIG_IGN]
        try:
            for number in heard:
                signal.signal(number, self._hear)
            yield
        finally:
            for number in heard:
                # None: the handler was not set from Python and cannot be put back.
                signal.signal(number, before[number] or signal.SIG_DFL)

    @contextlib.contextmanager
    def between_steps(self):
        """Let signals only set `requested`; a second Ctrl-C still stops at once."""
        self._between_steps = True
        try:
            yield
        finally:
            self._between_steps = False

    def _hear(self, number, frame):
        del frame
        impatient = number == signal.SIGINT and self.requested == signal.SIGINT
        if impatient or not self._between_steps:
            raise Interrupted(number)
        if self.requested is None:
            name = signal.Signals(number).name
            # Not print: the signal may have come in the middle of one. Nobody may
            # listen any more, which is no reason not to save.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{name}: finishing the step, then saving.\n".encode())
        self.requested = number
