"""Accuracies, gains and labels of runs as text."""

import os
from pathlib import Path

from afd_tf.results.statistics import mean_and_deviation


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


def short_labels(labels):
    """Return what is left of each label without the folder that they have in common."""
    try:
        folder = os.path.commonpath([Path(label).parent for label in labels])
    except ValueError:  # absolute and relative ones
        return {label: label for label in labels}
    return {label: str(Path(label).relative_to(folder)) for label in labels}
