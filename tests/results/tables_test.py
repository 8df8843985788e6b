"""Tables as text, Markdown and CSV, and the chart."""

import csv
import io
import json
import sys

import pytest
from records import write_seed, write_seeds

from afd_tf.results import chart, tables
from afd_tf.results.comparison import compare


def cells(text):
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def comparison(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.50, 0.51, 0.52])
    write_seeds(tmp_path, "afd", [0.52, 0.53, 0.56])
    return compare([tmp_path])


def test_text_has_mean_deviation_and_gains_of_networks_and_summaries(comparison):
    text = tables.text(comparison)
    assert text.startswith("cifar100, 60 training images per class, 60 epochs, ")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[4:8]][1:] == ["large", "mean", "ensemble"]
    # Differences 2, 2, 4 points: 8/3 +- 4.302653 * 1.154701 / sqrt(3); t = 4.
    # Of two degrees of freedom p = 1 - 4 / sqrt(2 + 16).
    assert lines[4].split()[1:] == [
        *["afd", "3", "small", "1,000", "53.67", "+-", "2.08"],
        *["+2.67", "[-0.20,", "+5.54]", "p=0.057"],
    ]
    assert lines[8].split()[1:] == [
        "vanilla",
        "3",
        "small",
        "1,000",
        "51.00",
        "+-",
        "1.00",
    ]


def test_markdown_has_the_same_cells(comparison):
    lines = tables.markdown(comparison).splitlines()
    assert lines[2:4] == [
        "| runs | method | seeds | network | parameters | accuracy | over vanilla |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    assert "| 53.67 +- 2.08 | +2.67 [-0.20, +5.54] p=0.057 |" in lines[4]


def test_csv_is_unrounded_and_has_one_row_of_each(comparison):
    found = list(csv.DictReader(io.StringIO(tables.csv_text(comparison))))
    assert len(found) == 8
    [row] = [r for r in found if (r["method"], r["network"]) == ("afd", "small")]
    assert float(row["accuracy"]) == pytest.approx(161 / 3)
    assert float(row["gain_vanilla"]) == pytest.approx(8 / 3)
    assert float(row["low_vanilla"]) == pytest.approx(8 / 3 - 2.868435, abs=1e-5)
    assert float(row["p_vanilla"]) == pytest.approx(1 - 4 / 18**0.5)
    assert (row["seeds"], row["pairs_vanilla"]) == ("0 1 2", "3")
    assert (row["gain_dml"], row["paper"]) == ("", "")


def test_a_number_of_the_paper_has_a_column_where_there_is_one(tmp_path):
    paper = {"epochs": 300, "per_class": None, "networks": ("resnet32", "resnet32_2")}
    more = "load_data.padding = 4\nload_data.pad_mode = 'reflect'\n"
    write_seed(
        tmp_path / "a", 0.7, "dml", **paper, more=f"{more}load_data.flip = True\n"
    )
    lines = tables.text(compare([tmp_path])).splitlines()
    assert lines[2].split()[-1] == "paper"
    assert lines[4].endswith("73.38 [s]")


def test_remarks_come_last(tmp_path):
    write_seed(tmp_path / "a", 0.5)
    write_seed(tmp_path / "b", 0.5, finished=False)
    for write in (tables.text, tables.markdown):
        text = write(compare([tmp_path / "a", tmp_path / "b"]))
        assert text.splitlines()[-1].endswith("b: not finished, 1 epoch done.")


def test_one_run_is_a_table_of_networks_mean_and_ensemble(tmp_path):
    path = write_seed(tmp_path / "a", 0.5)
    results = json.loads((path / "results.json").read_text())
    assert cells(tables.run_table(results))[2:] == [
        ["small", "1,000", "50.00"],
        ["large", "1,001", "60.00"],
        ["mean", "55.00"],
        ["ensemble", "70.00"],
    ]


@pytest.mark.parametrize(
    ("fractions", "text"), [([0.5], "50.00"), ([0.5, 0.5], "50.00 +- 0.00")]
)
def test_percentages(fractions, text):
    assert tables.percent(fractions) == text


def test_the_chart_has_every_seed_and_mean_where_they_belong(comparison, tmp_path):
    from PIL import Image

    chart.draw(comparison, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.size[0] > image.size[1] > 100
    figure = chart.figure(comparison)
    small, *_ = figure.axes
    dots = [
        line.get_xdata().tolist() for line in small.lines if line.get_marker() == "o"
    ]
    assert dots == [pytest.approx([52, 53, 56]), pytest.approx([50, 51, 52])]
    means = [line.get_xdata()[0] for line in small.lines if line.get_marker() == "|"]
    assert any(mean == pytest.approx(161 / 3) for mean in means)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["small", "large", "mean", "ensemble"]


def test_configurations_of_one_folder_are_apart_in_table_and_chart(tmp_path):
    for seed in range(2):
        more = f"compile.logit_weight_decay = {seed}\n"
        write_seed(tmp_path / "afd" / f"seed_{seed}", 0.5, seed=seed, more=more)
    comparison = compare([tmp_path])
    lines = tables.text(comparison).splitlines()
    blocks = [line.split()[0] for line in lines if " small " in line]
    assert blocks == [str(tmp_path / "afd" / f"seed_{seed}") for seed in range(2)]
    small, *_ = chart.figure(comparison).axes
    heights = [
        line.get_ydata().tolist() for line in small.lines if line.get_marker() == "o"
    ]
    assert heights == [[0], [1]]
    labels = [label.get_text() for label in small.get_yticklabels()]
    assert labels == ["seed_0", "seed_1"]


def test_without_matplotlib_the_requirements_are_named(
    comparison, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"requirements \[plot\], `pip install"):
        chart.draw(comparison, tmp_path / "chart.png")


def test_a_chart_of_two_protocols_is_refused(tmp_path):
    write_seed(tmp_path / "a", 0.5)
    write_seed(tmp_path / "b", 0.5, epochs=3)
    with pytest.raises(ValueError, match="runs of one protocol"):
        chart.draw(compare([tmp_path]), tmp_path / "chart.png")


@pytest.mark.parametrize("name", ["chart", "chart.xyz"])
def test_a_chart_of_no_known_kind_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"ends in one of \.png, \.svg, \.pdf"):
        chart.check_path(tmp_path / name)


@pytest.mark.parametrize("format", tables.FORMATS)
def test_names_of_a_stranger_are_escaped_in_every_format(tmp_path, format):
    names = ("a\x1b[2J|b", "half\ud800")
    more = "train.new = '\x1b[31m'\n"
    write_seeds(tmp_path, "vanilla", [0.5, 0.6], networks=names)
    write_seeds(tmp_path / "\x1b[1m", "afd", [0.5, 0.7], networks=names, more=more)
    comparison = compare([tmp_path])
    table = tables.FORMATS[format](comparison)
    assert table.replace("\n", "").isprintable()
    assert "half\\ud800" in table
    assert table.encode()  # it can be written
    if format == "markdown":
        rows = [line for line in table.splitlines() if line.startswith("| ")]
        assert "a\\x1b[2J\\|b" in table
        assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
