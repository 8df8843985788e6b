"""The step's benchmark: how it times, what it divides, and that it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield
    for name in [n for n in sys.modules if n.split(".")[0].startswith("benchmark")]:
        del sys.modules[name]


@pytest.mark.usefixtures("tools")
def test_cases_take_turns_and_give_the_median_of_what_counts(monkeypatch):
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
    found = alternation.milliseconds(
        {"slow": slow, "quick": quick, "told": lambda: next(told)}, rounds=3
    )
    assert found == {"slow": 3500.0, "quick": 500.0, "told": 250.0}
    assert order[4:7] == ["slow"] * 3
    assert order[10:13] == ["quick"] * 3  # another case begins in the next round


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
        "PyTorch afd, literal": 825.0,
        "PyTorch afd, shared": 605.0,
    }
    ratios = benchmark_step.step_ratios(times, "float32")
    assert ratios == pytest.approx(
        {
            "shared_over_limit_float32": 1.1,
            "shared_over_limit_in_one_graph_float32": 1.25,
            "shared_over_vanilla_float32": 550 / 300,
            "fresh_over_shared_float32": 1.2,
            "stock_fresh_over_shared_float32": 1.6,
            "torch_literal_over_shared_float32": 1.5,
            "torch_shared_over_shared_float32": 1.1,
        }
    )


@pytest.mark.slow
def test_the_command_measures_and_writes_figures(tmp_path):
    path = tmp_path / "figures.json"
    parts = ["step", "normalization", "count", "memory", "start"]
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
        "stock_over_fused_resnet20",
        "fused_float32_over_bfloat16_resnet20",
        "four_over_two_networks",
    } <= figures["ratios"].keys()
    assert all(value > 0 for value in figures["ratios"].values())
    found = figures["milliseconds"]
    f, both = found["F, float32"], found["F + B, float32"]
    assert found["F + 2B, float32"] == pytest.approx(2 * both - f)
