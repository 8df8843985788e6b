"""Workers joining, agreeing and lost, in threads of this process."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from afd_tf.devices import rendezvous
from afd_tf.devices.clusters import Cluster
from afd_tf.devices.failures import WorkerLostError
from afd_tf.devices.rendezvous import Rendezvous, check_same
from afd_tf.errors import InvalidValue
from afd_tf.training.interruption import Interrupted, Interruption


@pytest.fixture
def addresses():
    with contextlib.ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(3)]
        for each in bound:
            each.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in bound)


def together(addresses, *functions, timeout=60):
    """Call each function with its worker's `Rendezvous`; return results or errors."""
    results = [None] * len(functions)

    def run(task, function):
        try:
            with Rendezvous(Cluster(addresses, task), timeout) as workers:
                results[task] = function(workers)
        except Exception as error:
            results[task] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_values_of_all_arrive_in_order_and_none_is_lost_at_the_end(addresses):
    def twice(value):
        return lambda workers: [workers.gather(value), workers.gather([value])]

    every = together(addresses, twice("a"), twice("b"), twice((1, 2)))
    assert every == [[["a", "b", [1, 2]], [["a"], ["b"], [[1, 2]]]]] * 3


@pytest.mark.parametrize("dead", [0, 1])
def test_a_loss_ends_every_wait_and_names_the_worker(addresses, dead):
    lost = []

    def survive(workers):
        workers.on_loss(lost.append)
        workers.gather("here")
        workers.gather("here")

    def die(workers):
        workers.gather("here")
        raise RuntimeError("dead")

    functions = [survive, survive, survive]
    functions[dead] = die
    for task, error in enumerate(together(addresses, *functions)):
        if task != dead:
            assert isinstance(error, WorkerLostError)
            assert str(error).startswith(f"Worker {dead} was lost: ")
    assert lost == [dead, dead]


def test_silence_is_a_loss(addresses, monkeypatch):
    monkeypatch.setattr(rendezvous, "_SILENCE_SECONDS", 0.5)
    done = threading.Event()
    _, error = together(
        addresses[:2], lambda _: done.wait(60), lambda w: done.set() or w.gather(0)
    )
    # Beats come every five seconds, so nothing is heard for long enough.
    assert isinstance(error, WorkerLostError)


@pytest.mark.parametrize("task", [0, 1])
def test_a_wait_for_workers_is_told_and_ends(addresses, task, monkeypatch, capsys):
    monkeypatch.setattr(rendezvous, "_REPORT_SECONDS", 1)
    begun = time.monotonic()
    with (
        pytest.raises(WorkerLostError, match=r"waited 3 s \(--worker_timeout\)") as e,
        Rendezvous(Cluster(addresses, task), 3),
    ):
        pytest.fail("nobody else came")
    assert time.monotonic() - begun < 30
    missing = addresses[:1] if task else addresses[1:]
    for address in missing:
        assert f"({address})" in str(e.value)
    assert capsys.readouterr().out.startswith(f"Waits for worker {0 if task else 1} (")


def stop_soon():
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()


@pytest.mark.parametrize("task", [0, 1])
def test_signals_are_answered_while_workers_join(addresses, task):
    begun = time.monotonic()
    stop_soon()
    with (
        pytest.raises(Interrupted),
        Interruption().listening(),
        Rendezvous(Cluster(addresses, task), 300),
    ):
        pytest.fail("nobody else came")
    assert time.monotonic() - begun < 30


def test_signals_are_answered_while_a_worker_waits_for_another(addresses):
    done = threading.Event()
    slow = threading.Thread(
        target=together, args=(addresses[:2], lambda _: done.wait(60))
    )
    slow.start()
    with (
        Interruption().listening(),
        contextlib.suppress(Interrupted),
        Rendezvous(Cluster(addresses[:2], 1), 60) as workers,
    ):
        stop_soon()
        workers.gather("here")
        pytest.fail("the other did not answer")
    done.set()
    slow.join()


def test_strangers_and_workers_of_another_command_are_sent_away(addresses, capsys):
    host, port = addresses[0].split(":")
    other = (addresses[0], "127.0.0.1:1")
    refusals = []

    def disturb():
        while True:
            with (
                contextlib.suppress(ConnectionRefusedError),
                socket.create_connection((host, int(port))) as stranger,
            ):
                stranger.sendall(b'["hello", {"task": "x"}]\n')
                break
        try:
            Rendezvous(Cluster(other, 1), 60).__enter__()
        except InvalidValue as error:
            refusals.append(str(error))
        with Rendezvous(Cluster(addresses[:2], 1), 60) as workers:
            workers.gather("second")

    thread = threading.Thread(target=disturb)
    thread.start()
    with Rendezvous(Cluster(addresses[:2], 0), 60) as workers:
        assert workers.gather("chief") == ["chief", "second"]
        thread.join()
    [refusal] = refusals
    assert "other addresses than the chief" in refusal
    assert "Worker 1 was refused" in capsys.readouterr().out


def test_an_address_in_use_is_refused(addresses):
    host, port = addresses[0].split(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(
            InvalidValue, match=f"Worker 0 cannot listen at '{addresses[0]}'"
        ),
    ):
        Rendezvous(Cluster(addresses, 0), 60).__enter__()


def test_what_differs_is_named_with_both_values():
    same = {"train.seed": "0", "train.networks": "['a']"}
    check_same("settings", [same, dict(same)])
    with pytest.raises(
        InvalidValue, match=r"train.seed = 0 on worker 0, 7 on worker 1\."
    ):
        check_same("settings", [same, {**same, "train.seed": "7"}])
    with pytest.raises(InvalidValue, match=r"train\.x = not set on worker 0, 1 on"):
        check_same("settings", [same, same, {**same, "train.x": "1"}])
