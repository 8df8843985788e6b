"""Clusters from arguments, TF_CONFIG and Slurm, and mistakes in them."""

import json

import pytest
import small_runs
import tensorflow as tf

from afd_tf.cli import train
from afd_tf.devices import clusters, strategies
from afd_tf.devices.clusters import Cluster, expand_hosts, find
from afd_tf.errors import InvalidValue

TWO = "one:2222,two:2222"


def tf_config(task_type="worker", index=0, **jobs):
    jobs = jobs or {"worker": TWO.split(",")}
    config = {"cluster": jobs, "task": {"type": task_type, "index": index}}
    return {"TF_CONFIG": json.dumps(config)}


def slurm(task=0, **changes):
    return {
        "SLURM_PROCID": str(task),
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_NODELIST": "gpu[9-10],login",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_JOB_ID": "100",
        **changes,
    }


def test_flags_name_all_workers_and_this_one():
    found = find(TWO, 1, {})
    assert found == Cluster(("one:2222", "two:2222"), 1)
    assert not found.is_chief
    assert find(["a:1", "[::1]:2"], 0, {}).is_chief


def test_tf_config_is_read_with_the_chief_first():
    assert find(environment=tf_config(index=1)) == Cluster(("one:2222", "two:2222"), 1)
    jobs = {"worker": ["a:1", "b:1"], "chief": ["c:1"]}
    assert find(environment=tf_config("chief", 0, **jobs)).task == 0
    found = find(environment=tf_config("worker", 1, **jobs))
    assert found == Cluster(("c:1", "a:1", "b:1"), 2)


def test_flags_go_with_an_equal_tf_config_and_before_slurm():
    assert find(TWO, 1, {**tf_config(index=1), **slurm()}).task == 1


def test_slurm_fills_its_nodes_in_their_order():
    found = find(environment=slurm(3, SLURMD_NODENAME="gpu10"))
    hosts = [address.split(":")[0] for address in found.workers]
    assert hosts == ["gpu9", "gpu9", "gpu10", "gpu10", "login"]
    assert found.task == 3
    ports = [int(address.split(":")[1]) for address in found.workers]
    assert [port - ports[0] for port in ports] == [0, 1, 0, 1, 0]
    assert len(set(found.workers)) == 5


def test_lists_of_hosts_are_written_out():
    assert expand_hosts("a[08-10,3]b,c") == ["a08b", "a09b", "a10b", "a3b", "c"]
    assert expand_hosts("r[1-2]n[1-2]") == ["r1n1", "r1n2", "r2n1", "r2n2"]


@pytest.mark.parametrize(
    ("workers", "task", "environment", "message"),
    [
        (None, None, {}, "needs a cluster.*--workers=.*Received: none"),
        (TWO, None, {}, "belong together.*task=None"),
        (None, 0, {}, "belong together.*workers=None"),
        (TWO, 2, {}, "from 0 to 1.*task=2"),
        (TWO, -1, {}, "task=-1"),
        (TWO, True, {}, "task=True"),
        ("one,two:1", 0, {}, "host:port.*Received: 'one'"),
        ("one:0,two:1", 0, {}, "Received: 'one:0'"),
        ("one:99999", 0, {}, "Received: 'one:99999'"),
        ("one:1,,two:1", 0, {}, "Received: ''"),
        ("one:1,one:1", 0, {}, "each address once.*'one:1' twice"),
        (7, 0, {}, "Received: 7"),
        (TWO, 0, tf_config(index=1), "contradict.*TF_CONFIG"),
        (None, None, {"TF_CONFIG": "{"}, r'Expected {"cluster".*TF_CONFIG=.{'),
        (None, None, {"TF_CONFIG": "[]"}, 'Expected {"cluster"'),
        (None, None, {"TF_CONFIG": "[" * 10**5}, 'Expected {"cluster"'),
        (None, None, tf_config(worker=None), "a list of addresses.*TF_CONFIG="),
        (None, None, tf_config(worker="a:1"), "a list of addresses.*TF_CONFIG="),
        (None, None, tf_config(worker=[None]), "host:port.*Received: None"),
        (None, None, tf_config(task_type=[]), "'worker' and 'chief' only"),
        (None, None, tf_config(index=2), "an index below 2"),
        (None, None, tf_config(index="x"), "from 0 to 1.*task='x'"),
        (None, None, tf_config("ps", 0, ps=["a:1"]), "'worker' and 'chief' only"),
        (None, None, tf_config("chief"), "'worker' and 'chief' only"),
        (None, None, tf_config(chief=["a:1", "b:1"], worker=["c:1"]), "at most one"),
        (None, None, slurm(7), "Slurm"),
        (None, None, slurm(SLURM_STEP_TASKS_PER_NODE="2"), "Slurm"),
        (None, None, slurm(SLURM_STEP_TASKS_PER_NODE="2(x"), "Slurm.*'2\\(x'"),
        (None, None, slurm(SLURM_STEP_TASKS_PER_NODE=""), "Slurm"),
        (None, None, slurm(SLURM_STEP_NODELIST="gpu[9-"), "Slurm"),
        (None, None, slurm(SLURM_STEP_NODELIST="gpu[x-y]"), "Slurm"),
        (None, None, slurm(SLURM_STEP_NUM_TASKS="4"), "--distribution=block"),
        (None, None, slurm(3, SLURMD_NODENAME="gpu9"), "--distribution=block"),
    ],
)
def test_what_is_no_cluster_is_named(workers, task, environment, message):
    with pytest.raises(InvalidValue, match=message):
        find(workers, task, environment)


@pytest.mark.parametrize("given", [{"workers": TWO}, {"task": 0}])
def test_a_cluster_without_its_strategy_is_refused(tmp_path, given):
    with pytest.raises(InvalidValue, match="strategy='multi_worker'"):
        small_runs.train(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_is_wrong_in_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    run = f"--workdir={tmp_path / 'run'}"
    assert train.main([run, "--strategy=multi_worker", f"--workers={TWO}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("afd-train: Arguments `workers` and `task` belong together")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_workers_in_a_process_that_has_used_tensorflow_are_refused():
    tf.constant(0)
    with pytest.raises(InvalidValue, match="before anything else of TensorFlow"):
        strategies.strategy("multi_worker", "127.0.0.1:2,127.0.0.1:3", 0)


def test_only_the_first_worker_writes():
    assert clusters.is_chief("auto")
    assert clusters.is_chief("multi_worker", TWO, 0)
    assert not clusters.is_chief("multi_worker", TWO, 1)
