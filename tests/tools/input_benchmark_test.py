"""The input benchmark from end to end."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_input.py"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark_input", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("AFD_TFDS_DIR", raising=False)
    monkeypatch.setattr(module, "_EXAMPLES", 1000)
    monkeypatch.chdir(tmp_path)
    return module


def test_the_figures_are_printed_and_written(benchmark, capsys, tmp_path):
    assert benchmark.main(["--passes=2", "--json=figures.json"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    rates = figures["images_per_second"]
    assert set(rates) >= {"gather", "pipeline, reflect", "pipeline, zero"}
    assert min(rates.values()) > 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in rates)
    rate = figures["ratios"]["input_images_per_second"]
    assert rate == rates["pipeline, reflect"]
    assert figures["ratios"]["input_over_80000"] == rate / 80_000
    assert figures["machine"]["cpus"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_a_rate_is_images_over_time(benchmark, monkeypatch):
    import numpy as np

    clock = iter([10.0, 14.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    batches = [(np.zeros((8, 2)), None), (np.zeros((4, 2)), None)]
    assert benchmark._rate(batches) == 3.0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--passes=0", "--passes: expected an int >= 1, received '0'"),
        ("--batch_size=a", "--batch_size: expected an int >= 1, received 'a'"),
        ("--data_dir=missing", "has prepared cifar100, received 'missing'"),
        ("--json=missing/a.json", "may be written, received 'missing/a.json'"),
        ("--json=.", "may be written, received '.'"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    benchmark, capsys, argument, message
):
    with pytest.raises(SystemExit) as stop:
        benchmark.main([argument])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
