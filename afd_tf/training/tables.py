"""Results as tables: of one run, or of a comparison as text, Markdown or CSV."""

import csv
import io

from afd_tf.training.formatting import layout, percent
from afd_tf.training.statistics import mean_and_deviation


def run_table(results):
    """Lay out one run's results, the content of `results.json`, as text."""
    rows = [["network", "parameters", "accuracy"]]
    for name, values in results["networks"].items():
        rows.append([name, f"{values['parameters']:,}", percent([values["accuracy"]])])
    rows.append(["mean", "", percent([results["mean"]["accuracy"]])])
    rows.append(["ensemble", "", percent([results["ensemble"]["accuracy"]])])
    return layout(rows)


def text(comparison):
    """Lay a comparison out for a terminal: a table per protocol, then the remarks."""
    parts = [
        f"{description}\n\n{layout(_cells(rows, comparison.over))}"
        for description, rows in comparison.tables
    ]
    return "\n\n".join([*parts, *_remarks(comparison)])


def markdown(comparison):
    """Write a comparison as Markdown: a table per protocol, then the remarks."""
    parts = []
    for description, rows in comparison.tables:
        head, *body = _cells(rows, comparison.over)
        lines = [head, ["---"] * len(head), *body]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"{description}\n\n{table}")
    return "\n\n".join([*parts, *_remarks(comparison)])


def csv_text(comparison):
    """Write a comparison as one CSV table with the protocol in its first column.

    Accuracies and gains are in percent and unrounded, `low` and `high` the ends of the
    95% confidence interval; what is not known is empty.
    """
    columns = ["protocol", "configuration", "method", "seeds", "network", "parameters"]
    columns += ["accuracy", "deviation"]
    for name in comparison.over:
        columns += [f"{what}_{name}" for what in ("gain", "low", "high", "p", "pairs")]
    columns += ["paper", "paper_mark"]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(columns)
    for description, rows in comparison.tables:
        for row in rows:
            mean, deviation = mean_and_deviation(list(row.accuracies.values()))
            cells = [description, row.configuration, row.method]
            cells += [" ".join(map(str, row.accuracies)), row.network, row.parameters]
            cells += [100 * mean, _hundredfold(deviation)]
            for name in comparison.over:
                gain = row.gains.get(name)
                cells += (
                    [*map(_hundredfold, gain[:3]), gain.p, gain.pairs]
                    if gain
                    else [None] * 5
                )
            cells += row.paper or [None, None]
            writer.writerow(cells)
    return output.getvalue().rstrip("\n")


FORMATS = {"text": text, "markdown": markdown, "csv": csv_text}


def _hundredfold(fraction):
    return None if fraction is None else 100 * fraction


def _remarks(comparison):
    return ["\n".join(comparison.remarks)] if comparison.remarks else []


def _cells(rows, over):
    """Return lines of str with the headings first, without columns that are empty."""
    shown = [name for name in over if any(name in row.gains for row in rows)]
    known = any(row.paper for row in rows)
    head = ["runs", "method", "seeds", "network", "parameters", "accuracy"]
    head += [f"over {name}" for name in shown]
    lines = [head + ["paper"] * known]
    before = None
    for row in rows:
        first = row.configuration != before
        before = row.configuration
        seeds = str(len(row.accuracies))
        line = [row.configuration, row.method, seeds] if first else [""] * 3
        parameters = f"{row.parameters:,}" if row.parameters else ""
        line += [row.network, parameters, percent(list(row.accuracies.values()))]
        line += [_gain_text(row.gains.get(name)) for name in shown]
        lines.append(line + [str(row.paper or "")] * known)
    return lines


def _gain_text(gain):
    """Write `+1.20 [+0.31, +2.09] p=0.019`, in percent."""
    if gain is None:
        return ""
    words = [f"{100 * gain.mean:+.2f}"]
    if gain.p is not None:
        words.append(f"[{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]")
        words.append("p<0.001" if gain.p < 0.001 else f"p={gain.p:.3f}")
    return " ".join(words)
