"""The step's benchmark: how it times, what it divides, and that it runs."""

import collections
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield
    for name in [n for n in sys.modules if n.split(".")[0].startswith("benchmark")]:
        del sys.modules[name]


@pytest.mark.usefixtures("tools")
def test_cases_take_turns_and_give_what_counts_in_each(monkeypatch):
    from benchmarks import alternation

    clock = [0.0]
    monkeypatch.setattr(alternation.time, "perf_counter", lambda: clock[0])
    order = []

    def case(name, *durations):
        remaining = iter(durations)

        def step():
            order.append(name)
            clock[0] += next(remaining)

        return step

    # Two to warm up; in each of three turns one that does not count, and two that do.
    slow = case("slow", 9, 9, 9, 1, 2, 9, 3, 4, 9, 5, 100)
    quick = case("quick", 9, 9, *[9, 0.5, 0.5] * 3)
    own = [9.0, 9.0, *[9.0, 0.25, 0.25] * 3]
    told = iter(own)
    ticks = []
    found = alternation.milliseconds(
        {"slow": slow, "quick": quick, "told": lambda: next(told)},
        rounds=3,
        tick=lambda *progress: ticks.append(progress),
    )
    assert found == {
        "slow": [1500.0, 3500.0, 52500.0],
        "quick": [500.0] * 3,
        "told": [250.0] * 3,
    }
    times = alternation.medians(found)
    assert times == {"slow": 3500.0, "quick": 500.0, "told": 250.0}
    assert order[:4] == ["slow", "slow", "quick", "quick"]
    turns = [tuple(order[i : i + 3]) for i in range(4, len(order), 3)]
    assert {len(set(turn)) for turn in turns} == {1}  # a turn is of one case
    assert ticks == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.usefixtures("tools")
def test_every_case_comes_after_every_other_one_and_runs_are_alike():
    from benchmarks.alternation import shuffled

    rounds = list(shuffled(["a", "b", "c"], 40))
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    before = collections.Counter()
    for names in rounds:
        before.update(itertools.pairwise(names))
    # Of 80 pairs, each of the six possible ones is a sixth.
    assert len(before) == 6
    assert min(before.values()) > 6
    assert rounds == list(shuffled(["a", "b", "c"], 40))


@pytest.mark.usefixtures("tools")
def test_a_ratio_is_the_median_of_those_of_the_turns():
    from benchmarks.alternation import Turns

    # The turns' ratios are 0.5, 3 and 2; the medians are 3 and 2.
    assert Turns([1.0, 3.0, 40.0]).over(Turns([2.0, 1.0, 20.0])) == 2.0
    with pytest.raises(ValueError, match="zip"):
        Turns([1.0]).over(Turns([1.0, 2.0]))


def one_turn_each(times):
    from benchmarks.alternation import Turns

    return {name: Turns([time]) for name, time in times.items()}


@pytest.mark.usefixtures("tools")
def test_ratios_are_those_that_their_names_say():
    import benchmark_step

    times = {
        "F + 2B": 500.0,
        "F + 2B, one graph": 440.0,
        "vanilla": 300.0,
        "afd, shared": 550.0,
        "afd, fresh": 660.0,
        "afd, fresh, stock layers": 880.0,
        "PyTorch afd, fresh": 825.0,
        "PyTorch afd, shared": 605.0,
    }
    ratios = benchmark_step.step_ratios(one_turn_each(times), "float32")
    assert ratios == pytest.approx(
        {
            "shared_over_limit_float32": 1.1,
            "shared_over_limit_in_one_graph_float32": 1.25,
            "shared_over_vanilla_float32": 550 / 300,
            "fresh_over_shared_float32": 1.2,
            "stock_fresh_over_shared_float32": 1.6,
            "torch_fresh_over_shared_float32": 1.5,
            "torch_shared_over_shared_float32": 1.1,
        }
    )


@pytest.mark.usefixtures("tools")
def test_ratios_of_one_network_are_those_that_their_names_say():
    import benchmark_step

    normalized = "fused, but for Keras' normalisation"
    times = {
        "fused, float32": 100.0,
        f"{normalized}, float32": 130.0,
        "stock, float32": 150.0,
        "fused, bfloat16": 50.0,
        f"{normalized}, bfloat16": 80.0,
        "stock, bfloat16": 90.0,
    }
    ratios = benchmark_step.alone_ratios(one_turn_each(times))
    assert ratios == {
        "stock_over_fused_resnet20_float32": 1.5,
        "stock_over_fused_resnet20_bfloat16": 1.8,
        "stock_over_fused_normalization_resnet20_float32": 1.3,
        "stock_over_fused_normalization_resnet20_bfloat16": 1.6,
        "fused_float32_over_bfloat16_resnet20": 2.0,
    }


@pytest.mark.usefixtures("tools")
def test_the_stock_network_is_resnet20():
    from benchmarks import cases

    ours, stock = cases.equal(1)[0], cases.keras_resnet20()
    assert [v.shape for v in stock.weights] == [v.shape for v in ours.weights]
    layers = {type(layer).__module__.split(".")[0] for layer in stock.layers}
    assert layers == {"keras"}


@pytest.mark.slow
def test_the_command_measures_and_writes_figures(tmp_path, monkeypatch):
    monkeypatch.delenv("AFD_TFDS_DIR", raising=False)
    path = tmp_path / "figures.json"
    parts = ["step", "alone", "count", "memory", "start"]
    subprocess.run(
        [sys.executable, TOOLS / "benchmark_step.py", "--rounds=1", "--batch_size=2"]
        + [f"--part={part}" for part in parts]
        + ["--precision=float32", f"--json={path}"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
    )
    figures = json.loads(path.read_text())
    assert {
        "seconds_to_first_step",
        "memory_afd_over_vanilla_float32",
        "shared_over_limit_float32",
        "stock_over_fused_resnet20_float32",
        "fused_float32_over_bfloat16_resnet20",
        "four_over_two_networks_float32",
        "import_afd_tf_over_tensorflow",
    } <= figures["ratios"].keys()
    assert all(value > 0 for value in figures["ratios"].values())
    assert figures["data"] == "digits, random images"
    assert figures["machine"]["packages"]["tensorflow"] == tf.__version__
    if importlib.util.find_spec("torch"):
        assert figures["machine"]["torch_threads"] == figures["machine"]["cpus"]
    assert all(len(turns) == 1 for turns in figures["turns"].values())
    found = figures["milliseconds"]
    f, both = found["F, float32"], found["F + B, float32"]
    assert found["F + 2B, float32"] == pytest.approx(2 * both - f)
