"""Kill runs of the digits at random; the same command goes on, as if nothing had been.

    tools/kill_runs --kills=100 [--runs=10] [--seed=0]

Each run is trained and then exported. Its processes are killed (SIGKILL) right before
one of their operations on files, or some time after it: at the start, in steps, while
saving, evaluating and exporting. The same command is given until it succeeds. At the
end the run must equal one that was never killed: weights, optimizers, metrics,
TensorBoard and results to the bit, and no file more than there.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN = (
    "--gin_file=pairings/digits_resnet8_resnet20",
    "--gin_param=train.networks = ['resnet8', 'resnet8']",
    "--gin_param=train.epochs = 3",
    "--gin_param=train.batch_size = 256",
    "--checkpoint_steps=2",
    "--deterministic",
)
EXPORT = ("--network=resnet8", "--format=keras")
# Seconds from an operation to the kill, at most; often none.
DELAYS = (0.0, 0.0, 0.02, 0.5)
COUNT = "operations"


def main(arguments):
    """Kill as the flags say; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="kill_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=8, help="how many; default 8")
    parser.add_argument(
        "--runs", type=int, default=10, help="over at least how many runs"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    values = parser.parse_args(arguments)
    choose = random.Random(values.seed)
    with tempfile.TemporaryDirectory(prefix="kill_runs-") as folder:
        folder = Path(folder)
        straight = folder / "straight" / "run"
        # Operations on files of a training and of an export.
        counts = [
            int(start(folder, command, straight, COUNT)[1])
            for command in ("train", "export")
        ]
        expected = content(straight)
        share, killed, index = -(-values.kills // values.runs), 0, 0
        while killed < values.kills:  # a run may end before its moments have come
            run = folder / f"{index}" / "run"
            made = attack(folder, run, share, counts, choose)
            killed, index = killed + len(made), index + 1
            differing = differences(expected, content(run))
            print(f"run {index}, {killed} kills: {', '.join(made)}", flush=True)
            if differing:
                print(f"DIFFERS: {', '.join(differing)}", flush=True)
                return 1
    print(f"{killed} kills: all of {index} runs went on and ended equal.")
    return 0


def attack(folder, run, kills, counts, choose):
    """Train and export with kills in between; return their moments, list of str."""
    made = []
    exports = min(kills // 4, 2)
    for command, count, share in zip(
        ("train", "export"), counts, (kills - exports, exports), strict=True
    ):
        done = False
        for _ in range(share):
            # The first of a training at its start, where the first files are.
            last = 12 if command == "train" and not made else count
            moment = {
                "operation": choose.randint(1, last),
                "delay": choose.choice(DELAYS) * choose.random(),
            }
            done = not start(folder, command, run, moment)[0]
            if done:
                break  # there is nothing more to do
            made.append(f"{command} {moment['operation']}+{moment['delay']:.3f}")
        if not done:
            start(folder, command, run, None)
    return made


def start(folder, command, run, moment):
    """Run a command; return whether it was killed, and its last line of output.

    Args:
        folder: path to work in.
        command: str, "train" or "export".
        run: path of the run directory.
        moment: dict "operation" and "delay", None (not at all), or `COUNT`.
    """
    flags = TRAIN if command == "train" else EXPORT
    own = json.dumps([str(run), moment, command])
    process = subprocess.run(
        [sys.executable, __file__, own, f"--workdir={run}", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    killed = process.returncode == -signal.SIGKILL
    if (
        command == "export"
        and moment != COUNT
        and "resnet8.keras' exists" in process.stderr
    ):
        return False, ""  # the one that was killed had finished
    if process.returncode and not (killed and moment):
        sys.exit(
            f"afd-{command} ended with status {process.returncode} after {moment}:\n"
            f"{process.stdout[-2000:]}{process.stderr[-4000:]}"
        )
    return killed, process.stdout.strip().rpartition("\n")[2]


def victim(arguments):
    """Run a command of the package in this process, with a kill at its moment."""
    run, moment, command = json.loads(arguments[0])
    done = 0
    writing = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")

    def count(event, its):
        nonlocal done
        flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        opened = event == "open" and isinstance(its[2], int) and its[2] & flags
        # Relative to a folder that is removed, too: a whole path is not given then.
        removed = event in ("os.remove", "os.rmdir") and its[1] != -1
        its_own = any(
            run in os.fsdecode(x)
            for x in its
            if isinstance(x, str | bytes | os.PathLike)
        )
        if not (removed or (its_own and (opened or event in writing))):
            return
        done += 1
        if isinstance(moment, dict) and done == moment["operation"]:
            if not moment["delay"]:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Thread(target=kill, daemon=True).start()

    def kill():
        time.sleep(moment["delay"])
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    import afd_launcher

    sys.argv = [f"afd-{command}", *arguments[1:]]
    try:
        getattr(afd_launcher, command)()
    finally:
        if moment == COUNT:
            print(f"\n{done}")


def content(run):
    """Return what must be equal of two runs: dict from a name to anything."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from afd_tf.training.checkpoints import Checkpoints

    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = [{**row, "seconds": None} for row in csv.DictReader(file)]
    logs = EventAccumulator(str(run / "logs"), {"tensors": 0}).Reload()
    events = [
        (tag, event.step, event.tensor_proto.SerializeToString())
        for tag in logs.Tags()["tensors"]
        for event in logs.Tensors(tag)
        if not tag.startswith("speed")
    ]
    newest = Checkpoints(run / "checkpoints").newest()
    # Names with what differs, positions and times, left out.
    files = {
        re.sub(r"epoch-\d+-step-\d+|tfevents.*", "*", str(path.relative_to(run.parent)))
        for path in run.parent.rglob("*")
    }
    found = {"results.json": {**results, "command": None}, "metrics.csv": rows}
    found |= {"TensorBoard": events, "position": newest.position}
    found |= {f"file {name}": True for name in files}
    return found | {name: value.tobytes() for name, value in newest.values.items()}


def differences(first, second):
    """Return the names of what two contents do not have in common."""
    names = sorted(first.keys() | second.keys())
    return [name for name in names if first.get(name) != second.get(name)]


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("["):
        victim(sys.argv[1:])
    else:
        sys.exit(main(sys.argv[1:]))
