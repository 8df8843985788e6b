"""Rendezvous of a run's workers: joining, agreement, and notice of losses.

TensorFlow's own service waits for workers in C++, where Python hears no signal, and
tells of losses at the next collective only. So workers meet here first, over
connections to the chief's address that stay open, and wait here for each other.
"""

import contextlib
import json
import os
import queue
import select
import socket
import sys
import threading
import time

import tensorflow as tf

from afd_tf.devices.failures import WorkerLostError, one_line, worker_lost
from afd_tf.errors import InvalidValue, Mistake

_REPORT_SECONDS = 30
_POLL_SECONDS = 1
_BEAT_SECONDS = 5
# Together below a minute: silence that is a loss, and what is left to end by oneself.
_SILENCE_SECONDS = 40
_GRACE_SECONDS = 15
_LONGEST = 2**24
_ENDED = object()


class Rendezvous:
    """The other workers of a run: a context manager that waits for all to join.

    If one is lost later, waits here raise, `abort` is called, and a process that goes
    on nevertheless, in the middle of something long, is ended with a message.

    Args:
        cluster: `Cluster`.
        timeout: float, seconds to wait for all to join.

    Raises:
        InvalidValue: on entry, if the chief's address cannot be used or workers were
            started with different ones.
        WorkerLostError: on entry, if not all join; on exit, in place of TensorFlow's
            error if one was lost.
    """

    def __init__(self, cluster, timeout):
        self._cluster = cluster
        self._timeout = timeout
        self._connections = {}
        self._lost = None
        self._loss = threading.Event()
        self._closed = threading.Event()
        self._abort = None

    def __enter__(self):
        join = self._accept_all if self._cluster.is_chief else self._connect
        try:
            join(_Patience(self._timeout, self._cluster))
        except BaseException:
            for connection in self._connections.values():
                connection.close()
            raise
        for task, connection in self._connections.items():
            _start(self._read, task, connection)
        _start(self._beat)
        return self

    def __exit__(self, kind, error, trace):
        failed = isinstance(error, tf.errors.OpError) and not isinstance(error, Mistake)
        # TensorFlow may notice a loss first, as one of many errors.
        lost = failed and self._loss.wait(2 * _POLL_SECONDS)
        self._closed.set()
        for connection in self._connections.values():
            if error is None:
                connection.send("bye")
            connection.end()
        if lost:
            raise worker_lost(self._lost) from error

    def on_loss(self, abort):
        """Set a callable that is called with the number of a worker that is lost."""
        self._abort = abort
        if self._loss.is_set():
            abort(self._lost)

    def gather(self, value):
        """Return the values of all workers, in their order; each must call it.

        Args:
            value: this worker's, of what JSON can hold.

        Raises:
            WorkerLostError: if one is lost.
        """
        if not self._cluster.is_chief:
            self._connections[0].send("value", value)
            return self._received(0)
        others = sorted(self._connections)
        # As it would arrive: a tuple is a list there.
        own = json.loads(json.dumps(value))
        values = [own, *(self._received(task) for task in others)]
        for task in others:
            self._connections[task].send("value", values)
        return values

    def _received(self, task):
        # Signals interrupt this.
        value = self._connections[task].inbox.get()
        if value is _ENDED:
            raise worker_lost(task if self._lost is None else self._lost)
        return value

    def _accept_all(self, patience):
        addresses = self._cluster.workers
        expected = set(range(1, len(addresses)))
        with _listening(addresses[0]) as server:
            while missing := expected - self._connections.keys():
                patience.check(missing)
                with contextlib.suppress(TimeoutError):
                    server.settimeout(_POLL_SECONDS)
                    self._greet(_Connection(server.accept()[0]))
                for task, connection in list(self._connections.items()):
                    if connection.is_gone():
                        self._connections.pop(task).close()
        # Now that nothing listens TensorFlow can, at the same address.
        for connection in self._connections.values():
            connection.send("welcome")

    def _greet(self, connection):
        kind, hello = None, None
        with contextlib.suppress(TimeoutError):
            kind, hello = connection.receive(_POLL_SECONDS)
        if kind != "hello" or not _is_hello(hello):  # nothing of ours
            connection.close()
            return
        task, reason = hello["task"], None
        if hello["workers"] != list(self._cluster.workers):
            reason = "this worker was started with other addresses than the chief"
        elif task not in range(1, len(self._cluster.workers)):
            reason = f"there is no worker {task} to wait for"
        elif task in self._connections:
            reason = f"another process has joined as task {task}"
        if reason is None:
            self._connections[task] = connection
            return
        connection.send("refused", reason)
        connection.close()
        print(f"Worker {task} was refused: {reason}.", flush=True)

    def _connect(self, patience):
        host, port = _host_and_port(self._cluster.workers[0])
        hello = {"task": self._cluster.task, "workers": self._cluster.workers}
        while True:
            patience.check({0})
            try:
                if not self._connections:
                    connected = socket.create_connection((host, port), 5)
                    self._connections[0] = _Connection(connected)
                    self._connections[0].send("hello", hello)
                connection = self._connections[0]
                kind, reason = connection.receive(_POLL_SECONDS)
            except TimeoutError:
                continue
            except OSError:
                time.sleep(_POLL_SECONDS)
                continue
            if kind == "welcome":
                return
            self._connections.pop(0).close()
            if kind == "refused":
                raise InvalidValue(
                    f"Worker {self._cluster.task} cannot join: {reason}. Expected the "
                    "same --workers on all, and each --task once. Received: "
                    f"workers={','.join(self._cluster.workers)}, "
                    f"task={self._cluster.task}."
                )
            time.sleep(_POLL_SECONDS)

    def _read(self, task, connection):
        while True:
            try:
                kind, value = connection.receive(_SILENCE_SECONDS)
            except TimeoutError:
                kind, value = None, None
            if kind == "value":
                connection.inbox.put(value)
            elif kind != "beat":
                break
        if kind != "bye":
            self._lose(value if kind == "lost" else task)
        connection.inbox.put(_ENDED)
        connection.close()

    def _lose(self, task):
        if self._loss.is_set() or self._closed.is_set():
            return
        self._lost = task
        self._loss.set()
        for connection in self._connections.values():
            connection.send("lost", task)
            connection.inbox.put(_ENDED)
        if self._abort:
            self._abort(task)
        _start(self._end)

    def _end(self):
        if self._closed.wait(_GRACE_SECONDS):
            return
        error = worker_lost(self._lost)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            os.write(2, f"\n{error}\n".encode())
        os._exit(error.exit_status)

    def _beat(self):
        while not self._closed.wait(_BEAT_SECONDS):
            for connection in self._connections.values():
                connection.send("beat")


class _Connection:
    """Messages over a socket: a kind and a value each, a line of JSON."""

    def __init__(self, connected):
        self.inbox = queue.Queue()
        self._socket = connected
        self._buffer = b""
        self._sending = threading.Lock()

    def send(self, kind, value=None):
        line = json.dumps([kind, value]).encode() + b"\n"
        # Who reads will notice.
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(line)

    def receive(self, timeout):
        """Return the next message; `(None, None)` if there is none any more."""
        self._socket.settimeout(timeout)
        while b"\n" not in self._buffer:
            try:
                part = self._socket.recv(2**16)
            except TimeoutError:
                raise
            except OSError:
                part = b""
            if not part or len(self._buffer) > _LONGEST:
                return None, None
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            kind, value = json.loads(line)
        except (ValueError, TypeError):
            return None, None
        return kind, value

    def is_gone(self):
        """Whether the other side has ended, where it is not to send anything."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def end(self):
        """Send no more; what the other side still sends is read, so all arrives."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self):
        self._socket.close()


class _Patience:
    """Time to wait for workers; says now and then which of them are missing."""

    def __init__(self, seconds, cluster):
        self._seconds, self._cluster = seconds, cluster
        self._begin = time.monotonic()
        self._report = _REPORT_SECONDS

    def check(self, missing):
        waited = time.monotonic() - self._begin
        addresses = self._cluster.workers
        who = ", ".join(
            f"worker {task} ({addresses[task]})" for task in sorted(missing)
        )
        if waited >= self._seconds:
            raise WorkerLostError(
                f"Worker {self._cluster.task} waited {self._seconds:g} s "
                f"(--worker_timeout) in vain for {who}. Look at the output of the "
                "others; all must be started with the same addresses: "
                f"{', '.join(addresses)}."
            )
        if waited >= self._report:
            self._report += _REPORT_SECONDS
            print(f"Waits for {who}: {waited:.0f} of {self._seconds:g} s.", flush=True)


def check_same(what, values):
    """Check that all workers have the same.

    Args:
        what: str, for the message.
        values: list of dicts with str keys, one for each worker.

    Raises:
        InvalidValue: if one differs from the first; names in what.
    """
    for task, other in enumerate(values):
        for key in sorted({**values[0], **other}):
            pair = [each.get(key, "not set") for each in (values[0], other)]
            if pair[0] != pair[1]:
                raise InvalidValue(
                    f"Workers have different {what}. Expected the same command on all, "
                    "but for --task and what tells where data is. Received: "
                    f"{key} = {pair[0]} on worker 0, {pair[1]} on worker {task}."
                )


def _is_hello(value):
    named = isinstance(value, dict) and {"task", "workers"} <= value.keys()
    return named and type(value["task"]) is int


def _listening(address):
    port = _host_and_port(address)[1]
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise InvalidValue(
            f"Worker 0 cannot listen at {address!r} ({one_line(error)}). Expected an "
            "address of this machine with a free port."
        ) from error


def _host_and_port(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _start(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()
