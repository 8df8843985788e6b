"""Numbers and tables as text."""

import os
from pathlib import Path

from afd_tf.naming import printable
from afd_tf.training.statistics import mean_and_deviation

_NUMBERS = ("parameters", "accuracy", "loss", "seeds")


def percent(fractions):
    """Write fractions in percent: one value, or mean +- sample standard deviation."""
    mean, deviation = mean_and_deviation(fractions)
    if deviation is None:
        return f"{100 * mean:.2f}"
    return f"{100 * mean:.2f} +- {100 * deviation:.2f}"


def gain_text(gain):
    """Write `+1.20 [+0.31, +2.09] p=0.019`, in percent."""
    if gain is None:
        return ""
    words = [f"{100 * gain.mean:+.2f}"]
    if gain.p is not None:
        words.append(f"[{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]")
        words.append("p<0.001" if gain.p < 0.001 else f"p={gain.p:.3f}")
    return " ".join(words)


def layout(rows):
    """Align rows of str under their headings, the first row; numbers to the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row):
        cells = zip(row, widths, rows[0], strict=True)
        return "  ".join(
            cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)
            for cell, width, heading in cells
        ).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def counted(number, thing):
    """Write `1 epoch` or `60 epochs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def duration(seconds):
    """Write seconds as `45s`, `3m 20s` or `2h 05m`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02}s"
    return f"{seconds // 3600}h {seconds % 3600 // 60:02}m"


def short_labels(labels):
    """Return what is left of each label without the folder that they have in common."""
    try:
        folder = os.path.commonpath([Path(label).parent for label in labels])
    except ValueError:  # absolute and relative ones
        return {label: label for label in labels}
    return {label: str(Path(label).relative_to(folder)) for label in labels}
