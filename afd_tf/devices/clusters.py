"""Clusters of workers, from arguments, TF_CONFIG or Slurm."""

import dataclasses
import json
import os
import re

from afd_tf.errors import InvalidValue, inapplicable, invalid

_ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")
_HOSTS = re.compile(r"(?:[^,\[\]]|\[[^\]]*\])+")
_PORTS = range(20_000, 30_000)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Workers and which of them this process is; the first is the chief.

    Attributes:
        workers: tuple of str, `host:port` each.
        task: int, this worker's number, from 0.
    """

    workers: tuple[str, ...]
    task: int

    @property
    def is_chief(self):
        """Whether this process writes the run directory."""
        return self.task == 0


def is_chief(strategy, workers=None, task=None):
    """Whether a process with these arguments of `train` writes the run directory.

    Raises:
        InvalidValue: if they contradict each other or are malformed.
    """
    if not isinstance(strategy, str) or strategy != "multi_worker":
        check_unused(strategy, workers, task)
        return True
    return find(workers, task).is_chief


def check_unused(strategy, workers, task):
    """Check that no workers are listed for a strategy of one process.

    Raises:
        InvalidValue: if they are.
    """
    for name, value in (("workers", workers), ("task", task)):
        if value is not None:
            reason = "without strategy='multi_worker' there is no cluster"
            raise inapplicable(name, value, reason)


def find(workers=None, task=None, environment=None):
    """Find the cluster.

    Args:
        workers: str `host:port,host:port` or a list of such addresses; else TF_CONFIG
            is read, else Slurm's variables.
        task: int, this process' place in `workers`.
        environment: dict in place of `os.environ`.

    Returns:
        Cluster.

    Raises:
        InvalidValue: if there is none, or it is malformed or contradicts itself.
    """
    environment = os.environ if environment is None else environment
    config = environment.get("TF_CONFIG", "").strip()
    if workers is not None or task is not None:
        given = _from_arguments(workers, task)
        if config and _from_tf_config(config) != given:
            raise InvalidValue(
                "Arguments `workers` and `task` contradict the environment variable "
                f"TF_CONFIG. Received: workers={workers!r}, task={task!r} and "
                f"TF_CONFIG={config!r}. Leave out the one or unset the other."
            )
        return given
    if config:
        return _from_tf_config(config)
    if environment.get("SLURM_PROCID") and environment.get("SLURM_STEP_NODELIST"):
        return _from_slurm(environment)
    raise InvalidValue(
        "Argument strategy='multi_worker' needs a cluster. Expected `workers` and "
        "`task` (--workers=host:port,host:port --task=0), the environment variable "
        "TF_CONFIG, or a start by Slurm's srun. Received: none of them."
    )


def _from_arguments(workers, task):
    if workers is None or task is None:
        raise InvalidValue(
            "Arguments `workers` and `task` belong together: all workers, the same on "
            "each, and the place of this one among them. Received: "
            f"workers={workers!r}, task={task!r}."
        )
    if isinstance(workers, str):
        workers = [address.strip() for address in workers.split(",")]
    return _checked("workers", workers, task)


def _from_tf_config(text):
    def wrong(expected):
        return InvalidValue(
            f"Invalid value for environment variable `TF_CONFIG`. Expected {expected}. "
            f"Received: TF_CONFIG={text!r}."
        )

    try:
        config = json.loads(text)
        jobs, task = dict(config["cluster"]), dict(config["task"])
        kind, index = str(task["type"]), task["index"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise wrong(
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
            '"index": 0}}'
        ) from error
    if not {*jobs, kind} <= {"chief", "worker"} or kind not in jobs:
        raise wrong("tasks of the types 'worker' and 'chief' only")
    if not all(isinstance(addresses, list) for addresses in jobs.values()):
        raise wrong("a list of addresses for each type of task")
    chiefs, others = list(jobs.get("chief", ())), list(jobs.get("worker", ()))
    if len(chiefs) > 1:
        raise wrong("at most one 'chief'")
    if str(index).isdecimal() and int(index) >= len(jobs[kind]):
        raise wrong(f"an index below {len(jobs[kind])}, the number of '{kind}' tasks")
    if kind == "worker" and str(index).isdecimal():
        index = int(index) + len(chiefs)
    return _checked("TF_CONFIG", [*chiefs, *others], index)


def _from_slurm(environment):
    try:
        task = int(environment["SLURM_PROCID"])
        count = int(environment["SLURM_STEP_NUM_TASKS"])
        job = int(environment["SLURM_JOB_ID"])
        hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
        per_host = _expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"])
        places = [
            (host, local)
            for host, tasks in zip(hosts, per_host, strict=True)
            for local in range(tasks)
        ]
        host = places[task][0]
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidValue(
            "Invalid Slurm variables. Expected those of a step started by srun "
            "(SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST, "
            f"SLURM_STEP_TASKS_PER_NODE, SLURM_JOB_ID). Received: {error!r}. Set "
            "--workers and --task instead."
        ) from error
    here = environment.get("SLURMD_NODENAME", host)
    if len(places) != count or here != host:
        raise InvalidValue(
            f"Task {task} of Slurm's step runs on {here!r}, which is not its place in "
            f"{environment['SLURM_STEP_NODELIST']!r} filled node by node. Start it "
            "with srun --distribution=block."
        )
    # Of the job, so that two of them on one node do not meet.
    base = _PORTS.start + job * 64 % (len(_PORTS) - 64)
    return _checked("SLURM", [f"{h}:{base + local}" for h, local in places], task)


def expand_hosts(text):
    """Write out a list of hosts such as `gpu[01-03,7],login`: a list of str."""
    names = []
    for part in _HOSTS.findall(text):
        alternatives = [""]
        for plain, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            ends = [plain] if plain else list(_numbers(ranges))
            alternatives = [a + end for a in alternatives for end in ends]
        names += alternatives
    return names


def _numbers(ranges):
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield f"{number:0{len(first)}}"


def _expand_counts(text):
    """Write out numbers of tasks such as `2(x3),1`: a list of int."""
    counts = []
    for item in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", item.strip())
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={text!r}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _checked(argument, workers, task):
    addresses = list(workers) if isinstance(workers, list | tuple) else [workers]
    for address in addresses or [None]:
        port = str(address).rpartition(":")[2]
        if (
            not isinstance(address, str)
            or not _ADDRESS.fullmatch(address)
            or not 0 < int(port) < 2**16
        ):
            expected = "addresses 'host:port', separated by commas"
            raise invalid(argument, expected, received=repr(address))
    twice = next((a for a in addresses if addresses.count(a) > 1), None)
    if twice:
        raise invalid(argument, "each address once", received=f"{twice!r} twice")
    decimal = not isinstance(task, bool) and str(task).isdecimal()
    if not decimal or int(task) >= len(addresses):
        last = len(addresses) - 1
        expected = f"an int from 0 to {last}, the place among {len(addresses)}"
        raise invalid("task", expected, task)
    return Cluster(tuple(map(str, addresses)), int(task))
