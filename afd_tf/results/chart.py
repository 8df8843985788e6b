"""Chart of a comparison."""

from pathlib import Path

from afd_tf.errors import invalid
from afd_tf.results.finished_runs import SUMMARIES, short_labels
from afd_tf.results.statistics import mean_and_deviation
from afd_tf.text import printable

SUFFIXES = (".png", ".svg", ".pdf")


def check_path(path):
    """Check that a chart can be of this name.

    Raises:
        InvalidValue: if not.
    """
    if Path(path).suffix not in SUFFIXES:
        endings = ", ".join(SUFFIXES)
        raise invalid("chart", f"a file that ends in one of {endings}", str(path))


def draw(comparison, path):
    """Write `figure` to a file.

    Args:
        comparison: Comparison of one protocol.
        path: where to write it, ending in one of `SUFFIXES`.

    Raises:
        InvalidValue: as `check_path` and `figure`.
    """
    check_path(path)
    figure(comparison).savefig(path, dpi=150)


def figure(comparison):
    """Draw a panel per network: every seed a dot, mean and standard deviation a bar.

    Args:
        comparison: Comparison of one protocol.

    Returns:
        matplotlib Figure.

    Raises:
        InvalidValue: if matplotlib is not installed, or protocols differ.
    """
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise invalid(
            "chart",
            "an installation with the optional requirements [plot], "
            '`pip install "afd_tf[plot]"`',
            received=f"none ({error})",
        ) from error
    if len(comparison.tables) != 1:
        raise invalid(
            "chart",
            "runs of one protocol",
            received=f"{len(comparison.tables)} of them",
            hint="Without --chart the tables show them: name the folders of one.",
        )
    [(description, rows)] = comparison.tables
    # The networks first, in the order in which they come.
    panels = list(dict.fromkeys(r.network for r in rows if r.network not in SUMMARIES))
    panels += SUMMARIES
    labels = list(dict.fromkeys(row.configuration for row in rows))
    drawn = Figure(
        figsize=(2.2 + 2.6 * len(panels), 1.4 + 0.4 * len(labels)), layout="constrained"
    )
    axes = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for row in (row for row in rows if row.network == panel):
            _draw_row(axis, labels.index(row.configuration), row.accuracies)
        axis.set_title(printable(panel), parse_math=False)
        axis.set_xlabel("accuracy, %")
        axis.grid(axis="x", alpha=0.3)
    short = short_labels(labels)
    names = [printable(short[label]) for label in labels]
    axes[0].set_yticks(range(len(labels)), names, parse_math=False)
    axes[0].invert_yaxis()
    legend = "dots: seeds; bars: mean and one standard deviation"
    title = f"{printable(description)}\n{legend}"
    drawn.suptitle(title, fontsize="small", parse_math=False)
    return drawn


def _draw_row(axis, height, accuracies):
    values = [100 * fraction for fraction in accuracies.values()]
    mean, deviation = mean_and_deviation(values)
    axis.plot(values, [height] * len(values), "o", color="0.6", markersize=4)
    axis.errorbar(
        mean, height, xerr=deviation, fmt="|", color="black", markersize=12, capsize=3
    )
