"""Measure what two workers on this machine lose to talking to each other.

    python tools/benchmark_workers.py

Two worker processes, each on a core of its own and with one thread, train on halves of
a batch. Beside them stand two processes on the same cores that train on such halves
each by itself: the same work without a word between them, which is the limit. Vanilla
and AFD, in turns; figures are medians. ResNet-20 with WRN-16-2, images in memory.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time

from benchmarks.alternation import medians, milliseconds

METHODS = ("vanilla", "afd")


class Pair:
    """Two processes, on a core each, that make steps at the same time when asked.

    Args:
        method: str.
        batch_size: int, images per process.
        together: bool, whether they are workers of one training.
        cores: list of two int.
    """

    def __init__(self, method, batch_size, together, cores):
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(2)]
        self._processes = []
        for task, core in enumerate(cores):
            settings = {
                "method": method,
                "batch_size": batch_size,
                "addresses": addresses if together else None,
                "task": task,
                "core": core,
            }
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, "--process", json.dumps(settings)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            )
        self._wait()

    def step(self):
        """Make one step in both; return when both are done."""
        for process in self._processes:
            process.stdin.write("step\n")
            process.stdin.flush()
        self._wait()

    def close(self):
        """End both."""
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            process.wait()

    def _wait(self):
        for process in self._processes:
            for line in process.stdout:
                if line == "done\n":
                    break
            else:
                raise RuntimeError(f"A process ended with {process.wait()}.")


def measure(methods, batch_size, rounds):
    """Measure.

    Args:
        methods: list of str.
        batch_size: int, images per step and process.
        rounds: int, turns of each case.

    Returns:
        dict of "milliseconds" and "ratios", each a dict of name to float.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("benchmark_workers: two cores are needed, one is here.")
    pairs = {}
    try:
        for method in methods:
            for together, name in ((False, "alone"), (True, "workers")):
                print(f"starting {method}, {name}", file=sys.stderr, flush=True)
                pairs[f"{method}, {name}"] = Pair(method, batch_size, together, cores)
        times = milliseconds({n: pair.step for n, pair in pairs.items()}, rounds, 4)
    finally:
        for pair in pairs.values():
            pair.close()
    ratios = {
        f"{method}: alone / workers": times[f"{method}, alone"].over(
            times[f"{method}, workers"]
        )
        for method in methods
    }
    return {"milliseconds": medians(times), "ratios": ratios}


def run_process(settings):
    """Be one of the processes: make a step for every line that is read."""
    os.sched_setaffinity(0, [settings["core"]])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    from benchmarks import cases

    import afd_tf
    from afd_tf.devices import strategies

    strategy = tf.distribute.get_strategy()
    if settings["addresses"]:
        name, task = "multi_worker", settings["task"]
        strategy = strategies.strategy(name, settings["addresses"], task)
    with strategy.scope():
        model = afd_tf.OnlineDistiller(cases.pair(), settings["method"])
        model.compile(total_steps=1_000_000)
    size = settings["batch_size"]
    data = strategy.distribute_datasets_from_function(
        lambda _: tf.data.Dataset.from_tensors(cases.batch(size)).repeat()
    )
    iterator = iter(data)
    model.make_train_function()

    def step():
        model.train_function(iterator)["loss"].numpy()

    step()
    print("done", flush=True)
    for _ in sys.stdin:
        step()
        print("done", flush=True)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def table(figures):
    """Return the figures as lines of text."""
    lines = [f"{n:24}{v:9.1f} ms" for n, v in figures["milliseconds"].items()]
    lines += [f"{n:24}{v:9.2f}" for n, v in figures["ratios"].items()]
    return "\n".join(lines)


def main(arguments=None):
    """Measure and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="turns of each case")
    parser.add_argument("--batch_size", type=int, default=64, help="per process")
    parser.add_argument("--method", action="append", help="default: vanilla, afd")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.process:
        run_process(json.loads(options.process))
        return 0
    begun = time.monotonic()
    figures = measure(options.method or METHODS, options.batch_size, options.rounds)
    print(table(figures))
    print(f"measured in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
