"""Whole processes: peak memory, and the time to the first step."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

_STEPS = 20
_MEMORY = """
import os, sys
sys.path.insert(0, {tools!r})
from benchmarks import cases
import afd_tf
with cases.policy({precision!r}):
    model = afd_tf.OnlineDistiller(cases.pair(), {method!r}, **{options!r})
    model.compile(total_steps=1000)
    step = cases.train_function(model, {batch_size})
    with open("/proc/self/statm") as file:
        built = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    for _ in range({steps}):
        step()
# The mark of this program alone; getrusage's may be that of the one that started it.
with open("/proc/self/status") as file:
    [peak] = [line.split()[1] for line in file if line.startswith("VmHWM")]
print(int(peak) * 1024 - built)
"""


def peak_memory(method, precision, batch_size, **options):
    """Measure the peak resident size of 20 steps minus that after building.

    Args:
        method: str.
        precision: "float32" or "bfloat16".
        batch_size: int.
        **options: of `OnlineDistiller`.

    Returns:
        int, bytes; None where the system does not tell (it needs /proc).
    """
    if not os.path.exists("/proc/self/statm"):
        return None
    tools = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    program = _MEMORY.format(
        tools=tools,
        method=method,
        precision=precision,
        batch_size=batch_size,
        options=options,
        steps=_STEPS,
    )
    return int(_run([sys.executable, "-c", program]).split()[-1])


def seconds_to_first_step(data_dir=None, starts=3):
    """Time `afd-train` from the command to the end of its first step.

    Args:
        data_dir: str, folder with CIFAR-100 prepared by tensorflow-datasets; without
            it, the embedded digits: smaller images, the same networks.
        starts: int >= 1.

    Returns:
        float, seconds, the median of so many starts; imports, data and compilation
        included.
    """
    return statistics.median(_seconds_to_first_step(data_dir) for _ in range(starts))


def seconds_to_import(modules=("tensorflow", "afd_tf"), starts=3):
    """Time Python programs that import one module each, in turns.

    Returns:
        dict from module to seconds, the median of so many starts.
    """
    seconds = {module: [] for module in modules}
    for _ in range(starts):
        for module, found in seconds.items():
            begun = time.perf_counter()
            _run([sys.executable, "-c", f"import {module}"])
            found.append(time.perf_counter() - begun)
    return {module: statistics.median(found) for module, found in seconds.items()}


def _environment():
    """Return the environment in which programs may keep their bytecode.

    The first start compiles what was installed uncompiled; a median leaves it out.
    """
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def _seconds_to_first_step(data_dir):
    command = [sys.executable, "-u", "-m", "afd_launcher", "train"]
    command += ["--gin_param=train.epochs = 1"]
    if data_dir:
        command += ["--gin_file=pairings/cifar100_resnet20_wrn16_2"]
        command += [f"--data_dir={data_dir}"]
    else:
        command += ["--gin_file=datasets/digits"]
        command += ["--gin_param=train.networks = ['resnet20', 'wrn16_2']"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with subprocess.Popen(
            [*command, f"--workdir={folder}/run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
        ) as process:
            output = []
            for line in process.stdout:
                output.append(line)
                if line.startswith("First step"):
                    seconds = time.perf_counter() - begun
                    process.kill()
                    return seconds
    raise RuntimeError(f"afd-train ended without a step:\n{''.join(output)}")


def _run(command):
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=_environment()
    )
    if done.returncode:
        raise RuntimeError(f"{command[:2]} failed:\n{done.stderr[-2000:]}")
    return done.stdout
