"""Measure a training step against its limit, other ways to train, and PyTorch.

    python tools/benchmark_step.py --json=figures.json

The limit of a step is F + 2B: one forward pass and two backward passes of the networks.
It is given twice: from F and F + B, and measured as one graph without discriminators,
losses of maps and optimizers. All sides take turns; times are medians, and ratios
medians of the turns' ratios. PyTorch's side needs the optional requirements,
`pip install -e ".[bench]"`.

Parts, in this order; --part may be repeated, and without it all are measured, in twenty
to thirty minutes on two cores:

    start    seconds from the command to the first step; on --data_dir if given
    memory   peak memory of AFD and vanilla, by --precision
    input    images a second from the input pipeline; on --data_dir if given
    step     resnet20 with wrn16_2 by vanilla, DML, AFD and PyTorch, by --precision
    alone    resnet20 alone, our layers and Keras', in both precisions
    count    AFD of two, three and four resnet20, by --precision
"""

import argparse
import importlib.util
import json
import logging
import math
import os
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_input
from benchmarks import flags, torch_afd, whole_process
from benchmarks.alternation import Turns, medians, milliseconds

PRECISIONS = ("float32", "bfloat16")
# In the order in which they are measured: first what has processes of its own, before
# this one takes memory and cores.
PARTS = ("start", "memory", "input", "step", "alone", "count")


def measure(parts, precisions, rounds, batch_size, data_dir):
    """Measure.

    Args:
        parts: those of `PARTS` to measure.
        precisions: those of `PRECISIONS` to measure.
        rounds: int, turns of each case.
        batch_size: int, images per step.
        data_dir: str or None, where CIFAR-100 is prepared.

    Returns:
        dict of "milliseconds", "megabytes" and "ratios", each a dict of name to float,
        of "turns", the milliseconds of every turn of every case, and of "machine", what
        is known of it only now.
    """
    turns, megabytes, ratios, machine = {}, {}, {}, {}
    if "start" in parts:
        say("time to the first step, and to import")
        ratios["seconds_to_first_step"] = whole_process.seconds_to_first_step(data_dir)
        seconds = whole_process.seconds_to_import()
        ratios["import_afd_tf_over_tensorflow"] = (
            seconds["afd_tf"] / seconds["tensorflow"]
        )
    if "memory" in parts:
        for precision in precisions:
            say(f"peak memory, {precision}")
            sizes = memory(precision, batch_size)
            megabytes |= {f"{name}, {precision}": v for name, v in sizes.items()}
            if sizes:
                ratio = sizes["afd"] / sizes["vanilla"]
                ratios[f"memory_afd_over_vanilla_{precision}"] = ratio
    if "input" in parts:
        say("input pipeline")
        rates = benchmark_input.measure(data_dir, passes=5)
        ratios["input_images_per_second"] = rates[benchmark_input.REFLECT]
    for precision in precisions if "step" in parts else ():
        say(f"steps, {precision}")
        found, threads = steps(precision, rounds, batch_size)
        machine |= threads
        turns |= {f"{name}, {precision}": v for name, v in found.items()}
        ratios |= step_ratios(found, precision)
    if "alone" in parts:
        say("resnet20 alone")
        found = alone(rounds, batch_size)
        turns |= {f"resnet20 alone, {name}": v for name, v in found.items()}
        ratios |= alone_ratios(found)
    for precision in precisions if "count" in parts else ():
        say(f"number of networks, {precision}")
        found = count(precision, rounds, batch_size)
        turns |= {f"afd of {n} resnet20, {precision}": v for n, v in found.items()}
        ratio = found["4 networks"].over(found["2 networks"])
        ratios[f"four_over_two_networks_{precision}"] = ratio
    return {
        "milliseconds": medians(turns),
        "megabytes": megabytes,
        "ratios": ratios,
        "turns": turns,
        "machine": machine,
    }


def steps(precision, rounds, batch_size):
    """Time each case of one precision, the limit among them.

    Returns:
        dict from case to `Turns`, and a dict with "torch_threads" if PyTorch is there.
    """
    from benchmarks import cases

    by_name = cases.step_cases(precision, batch_size)
    workers, threads = {}, {}
    if importlib.util.find_spec("torch"):
        for version in ("fresh", "shared"):
            worker = torch_afd.Steps(version, precision, batch_size)
            workers[f"PyTorch afd, {version}"] = worker
            threads["torch_threads"] = worker.threads
            _check_same_size(worker.parameters, cases.parts())
    else:
        say("  PyTorch is not installed and left out: pip install -e '.[bench]'")
    found = milliseconds({**by_name, **workers}, rounds, tick=tick)
    for worker in workers.values():
        worker.close()
    found["F + 2B"] = Turns(
        2 * both - forward
        for both, forward in zip(found["F + B"], found["F"], strict=True)
    )
    return found, threads


def _check_same_size(parameters, parts):
    own = [sum(math.prod(v.shape) for v in part.trainable_variables) for part in parts]
    if parameters != own:
        raise RuntimeError(
            "PyTorch's networks, transfer layers and discriminators have "
            f"{parameters} parameters, ours {own}."
        )


def step_ratios(found, precision):
    """Return the ratios that the `Turns` of one precision give."""
    shared = found["afd, shared"]
    ratios = {
        "shared_over_limit": shared.over(found["F + 2B"]),
        "shared_over_limit_in_one_graph": shared.over(found["F + 2B, one graph"]),
        "shared_over_vanilla": shared.over(found["vanilla"]),
        "fresh_over_shared": found["afd, fresh"].over(shared),
        "stock_fresh_over_shared": found["afd, fresh, stock layers"].over(shared),
    }
    for version in ("fresh", "shared"):
        name = f"PyTorch afd, {version}"
        if name in found:
            ratios[f"torch_{version}_over_shared"] = found[name].over(shared)
    return {f"{name}_{precision}": value for name, value in ratios.items()}


def alone(rounds, batch_size):
    """Return the `Turns` of resnet20 alone, by layers and precision."""
    from benchmarks import cases

    return milliseconds(cases.alone_cases(batch_size), rounds, tick=tick)


def alone_ratios(found):
    """Return the ratios that the `Turns` of resnet20 alone give."""
    ratios = {}
    for precision in PRECISIONS:
        fused = found[f"fused, {precision}"]
        normalized = found[f"fused, but for Keras' normalisation, {precision}"]
        stock = found[f"stock, {precision}"]
        ratios |= {
            f"stock_over_fused_resnet20_{precision}": stock.over(fused),
            f"stock_over_fused_normalization_resnet20_{precision}": normalized.over(
                fused
            ),
        }
    ratios["fused_float32_over_bfloat16_resnet20"] = found["fused, float32"].over(
        found["fused, bfloat16"]
    )
    return ratios


def count(precision, rounds, batch_size):
    """Return the `Turns` of AFD by number of equal networks."""
    from benchmarks import cases

    return milliseconds(cases.count_cases(precision, batch_size), rounds, tick=tick)


def memory(precision, batch_size, processes=3):
    """Return peak megabytes over those after building, by method; {} if unknown.

    The median of several processes: what lives at the same time depends on how the
    threads happen to share the operations.
    """
    sizes = {"vanilla": [], "afd": []}
    for _ in range(processes):
        for method, found in sizes.items():
            size = whole_process.peak_memory(method, precision, batch_size)
            if size is None:
                return {}
            found.append(size / 2**20)
    return {name: statistics.median(found) for name, found in sizes.items()}


def say(text):
    """Tell what is going on, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def tick(number, rounds):
    """Tell that a turn is done."""
    end = "\n" if number == rounds else "\r"
    print(f"  turn {number} of {rounds}", end=end, file=sys.stderr, flush=True)


def table(figures):
    """Return the figures as lines of text."""
    lines = []
    for title, unit in (("milliseconds", "ms"), ("megabytes", "MB"), ("ratios", "")):
        rows = figures[title]
        if rows:
            width = max(map(len, rows))
            lines += ["", title, "-" * (width + 12)]
            digits = 2 if title == "ratios" else 1
            lines += [
                f"{name:{width}}  {value:10,.{digits}f} {unit}".rstrip()
                for name, value in rows.items()
            ]
    return "\n".join(lines)


def main(arguments=None):
    """Measure, print the table, write the JSON file; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_common(parser)
    parser.add_argument(
        "--rounds", type=flags.positive, default=12, help="turns of a case; default: 12"
    )
    parser.add_argument(
        "--batch_size", type=flags.positive, default=128, help="default: 128"
    )
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="may be repeated; default: all"
    )
    parser.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        help="may be repeated; default: both",
    )
    options = parser.parse_args(arguments)
    # Each case is traced anew; TensorFlow takes that for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    figures = {
        "machine": benchmark_input.machine(),  # before the load is our own
        "data": "cifar100" if options.data_dir else "digits, random images",
        "batch_size": options.batch_size,
        "precisions": options.precision or PRECISIONS,
    }
    for part in PARTS:
        if part not in (options.part or PARTS):
            continue
        found = measure(
            (part,),
            figures["precisions"],
            options.rounds,
            options.batch_size,
            options.data_dir,
        )
        for kind, its in found.items():
            figures.setdefault(kind, {}).update(its)
        if options.json:  # after every part: an interruption loses one
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(figures, file, indent=1)
                file.write("\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
