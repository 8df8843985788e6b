"""One process, two logical devices and two worker processes do the same."""

import json
import re
import signal
import socket
import time

import numpy as np
import pytest
import small_runs
import worker_run

from afd_tf.training.checkpoints import Checkpoints, Position
from afd_tf.training.interruption import Interrupted

pytestmark = [pytest.mark.slow, pytest.mark.multi_device]


@pytest.fixture
def ports():
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


def run_workers(workdir, ports, **changes):
    """Run both to their end; return their exit statuses."""
    statuses = [p.wait() for p in worker_run.start(workdir, ports, **changes)]
    return statuses, [worker_run.output(workdir, task) for task in range(2)]


def run_here(workdir, strategy, normalization=False, **changes):
    settings = {**worker_run.settings(normalization), **changes}
    return small_runs.train(workdir, strategy=strategy, **settings)


def replicas_together(run):
    """Return a run's state with metrics added up over replicas."""
    values = small_runs.checkpoint_values(run)
    replicas = int(values.pop("replicas"))
    together = {}
    for name in (n for n in values if "@" not in n):
        each = [values.get(f"{name}@{i}", values[name]) for i in range(1, replicas)]
        if name.startswith("metrics/"):
            together[name] = np.sum([values[name], *each], axis=0)
        else:
            together[name] = values[name]
            for other in each:
                np.testing.assert_allclose(other, values[name], rtol=1e-6)
    return together


def assert_alike(first, second):
    """Check that two runs have the same state and metrics within float tolerance."""
    one, other = replicas_together(first), replicas_together(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        # Metrics are compared below; one is the mean of replicas' own ratios.
        if not name.startswith("metrics/"):
            # Sums in another order, carried on over steps; moments hold their squares.
            slack, rtol = 2e-5, 1e-3
            if "optimizer" in name:
                slack, rtol = 1e-2 * np.max(np.abs(value)), 1e-2
            np.testing.assert_allclose(
                other[name], value, rtol=rtol, atol=slack, err_msg=name
            )
    rows = small_runs.rows(first), small_runs.rows(second)
    assert len(rows[0]) == len(rows[1])
    for row, same in zip(*rows, strict=True):
        assert row.keys() == same.keys()
        for key in row:
            if not key.endswith("gradient_ratio"):
                np.testing.assert_allclose(
                    float(same[key]), float(row[key]), rtol=1e-4, err_msg=key
                )


@pytest.mark.parametrize(
    ("normalization", "batch_size"),
    [
        pytest.param("sync", 256, id="synchronised statistics"),
        # 90 and 89 rows; the last of the 359 to evaluate are one row.
        pytest.param(False, 179, id="uneven shares"),
    ],
)
def test_replicas_and_workers_train_as_one_device(
    tmp_path, ports, normalization, batch_size
):
    same = {"normalization": normalization, "batch_size": batch_size}
    results = run_here(tmp_path / "single", "single", **same)
    run_here(tmp_path / "mirrored", "mirrored", **same)
    statuses, outputs = run_workers(tmp_path / "workers", ports, **same)
    assert statuses == [0, 0], outputs
    assert int(small_runs.checkpoint_values(tmp_path / "workers")["replicas"]) == 2
    assert_alike(tmp_path / "single", tmp_path / "mirrored")
    assert_alike(tmp_path / "single", tmp_path / "workers")
    found = json.loads((tmp_path / "workers" / "results.json").read_text())
    for name, network in results["networks"].items():
        assert found["networks"][name]["accuracy"] == pytest.approx(
            network["accuracy"], abs=1e-6
        )


def positions(run):
    return Checkpoints(run / "checkpoints").positions()


def test_a_run_moves_from_one_process_to_workers_and_to_two_devices(tmp_path, ports):
    # Dropout would draw other numbers on other replicas.
    run_here(tmp_path / "straight", "single")
    run = tmp_path / "moved"
    stop = small_runs.AfterStep(0, 3, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        run_here(run, "single", callbacks=[stop])
    assert positions(run)[-1] == Position(0, 3)
    prepare = "terminate_the_second"
    statuses, outputs = run_workers(run, ports, prepare=prepare)
    # One got the signal; both stopped after the same step.
    assert statuses == [143, 143], outputs
    assert "Continuing" in outputs[0]
    assert "after epoch 0 and 3 steps" in outputs[0]
    assert "Continuing" not in outputs[1]
    assert positions(run)[-1] == Position(1, 2)
    run_here(run, "mirrored")
    assert_alike(tmp_path / "straight", run)


def test_each_worker_goes_on_with_its_own_moving_statistics(tmp_path, ports):
    same = {"normalization": True, "deterministic": True, "batch_size": 179}
    statuses, outputs = run_workers(tmp_path / "straight", ports, **same)
    assert statuses == [0, 0], outputs
    values = small_runs.checkpoint_values(tmp_path / "straight")
    assert any("moving_mean@1" in name for name in values)
    run = tmp_path / "run"
    prepare = "terminate_the_second"
    statuses, outputs = run_workers(run, ports, prepare=prepare, **same)
    assert statuses == [143, 143], outputs
    statuses, outputs = run_workers(run, ports, **same)
    assert statuses == [0, 0], outputs
    resumed = small_runs.checkpoint_values(run)
    assert resumed.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    assert small_runs.rows(run) == small_runs.rows(tmp_path / "straight")


def test_workers_with_different_settings_do_not_train(tmp_path, ports):
    prepare = "give_the_second_another_seed"
    statuses, outputs = run_workers(tmp_path / "run", ports, prepare=prepare)
    assert statuses == [2, 2], outputs
    for text in outputs:
        assert "mistake: Workers have different settings." in text
        assert "train.seed = 0 on worker 0, 7 on worker 1." in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dead", [0, 1])
# In training: below.
@pytest.mark.parametrize("stage", ["joining", "building", "evaluating", "saving"])
def test_a_survivor_ends_in_time_at_each_stage(tmp_path, ports, stage, dead):
    workers = worker_run.start(
        tmp_path / "run",
        ports,
        prepare=["die_while", stage, dead],
        worker_timeout=5 if stage == "joining" else 300,
    )
    try:
        assert workers[dead].wait(300) == -signal.SIGKILL
        # A minute is promised; the rest is for a machine that is busy.
        status = workers[1 - dead].wait(120)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    output = worker_run.output(tmp_path / "run", 1 - dead)
    assert status == 75, output
    said = "in vain for" if stage == "joining" else f"Worker {dead} was lost: it"
    assert said in output


@pytest.mark.parametrize("dead", [0, 1])
def test_workers_left_alone_end_and_all_of_them_go_on(tmp_path, ports, dead):
    run_here(tmp_path / "straight", "single")
    run = tmp_path / "run"
    killed = ["kill_the_chief", "kill_the_second"][dead]
    workers = worker_run.start(run, ports, prepare=killed, checkpoint_steps=2)
    assert workers[dead].wait() == -signal.SIGKILL
    begun = time.monotonic()
    assert workers[1 - dead].wait() == 75
    assert time.monotonic() - begun < 60
    last = worker_run.output(run, 1 - dead).strip().splitlines()[-1]
    assert re.match(
        rf"mistake: Worker {dead} was lost: .*What was saved is kept. Start all",
        last,
    )
    assert positions(run)[-1] >= Position(0, 4)
    statuses, outputs = run_workers(run, ports)
    assert statuses == [0, 0], outputs
    assert_alike(tmp_path / "straight", run)


@pytest.mark.parametrize(
    ("non_finite", "statuses"), [("stop", [2, 2]), ("skip", [0, 0])]
)
def test_what_one_worker_meets_is_met_by_all(tmp_path, ports, non_finite, statuses):
    found, outputs = run_workers(
        tmp_path / "run",
        ports,
        prepare="spoil_a_batch_of_the_second",
        non_finite=non_finite,
        method="vanilla",
        method_options={},
        epochs=1,
    )
    assert found == statuses, outputs
    for text in outputs:
        if non_finite == "stop":
            assert re.search(r"mistake: Loss of .* at epoch 1, step 3", text)
        else:
            assert text.count("Skipped epoch 1, step 3") == 1
    if non_finite == "skip":
        assert small_runs.rows(tmp_path / "run")[0]["skipped_steps"] == "1"


def test_a_worker_that_cannot_see_the_checkpoint_says_so(tmp_path, ports):
    run_here(tmp_path / "run", "single", epochs=1)
    (tmp_path / "run" / "results.json").unlink()
    prepare = "hide_checkpoints_from_the_second"
    statuses, outputs = run_workers(tmp_path / "run", ports, prepare=prepare, epochs=1)
    assert statuses == [75, 2], outputs
    assert "Put `workdir` on a file system that all workers share" in outputs[1]
