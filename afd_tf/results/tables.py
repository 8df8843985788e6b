"""Results as tables: of one run, or of a comparison as text, Markdown or CSV."""

import csv
import io

from afd_tf.results.finished_runs import short_labels
from afd_tf.results.statistics import mean_and_deviation
from afd_tf.text import as_table, printable

# Characters of a setting's value that are shown.
_LONGEST = 80
# Columns of CSV.
_OF_A_GAIN = ("gain", "low", "high", "p", "pairs", "differs")


def percent(fractions):
    """Write fractions in percent: one value, or mean +- sample standard deviation."""
    mean, deviation = mean_and_deviation(fractions)
    if deviation is None:
        return f"{100 * mean:.2f}"
    return f"{100 * mean:.2f} +- {100 * deviation:.2f}"


def gain_text(gain):
    """Write `+1.20 [+0.31, +2.09] p=0.019`, in percent; None is an empty text."""
    if gain is None:
        return ""
    words = [f"{100 * gain.mean:+.2f}"]
    if gain.p is not None:
        words.append(f"[{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]")
        words.append("p<0.001" if gain.p < 0.001 else f"p={gain.p:.3f}")
    return " ".join(words)


def run_table(results):
    """Lay out one run's results, the content of `results.json`, as text."""
    rows = [["network", "parameters", "accuracy"]]
    for name, values in results["networks"].items():
        rows.append([name, f"{values['parameters']:,}", percent([values["accuracy"]])])
    rows.append(["mean", "", percent([results["mean"]["accuracy"]])])
    rows.append(["ensemble", "", percent([results["ensemble"]["accuracy"]])])
    return as_table(rows)


def text(comparison):
    """Lay a comparison out for a terminal.

    A table per protocol, above it what its gains have in them beside the method, at the
    end the remarks.
    """
    parts = []
    for description, rows in comparison.tables:
        parts += [
            printable(description),
            "\n".join(
                f"{runs} in {settings}." for runs, settings in _differences(rows)
            ),
            as_table(_cells(rows, comparison.over)),
        ]
    parts.append("\n".join(map(printable, comparison.remarks)))
    return "\n\n".join(filter(None, parts))


def markdown(comparison):
    """Write a comparison as Markdown, with the same parts as `text`."""
    parts = []
    for description, rows in comparison.tables:
        head, *body = _cells(rows, comparison.over)
        lines = [head, ["---"] * len(head), *body]
        parts += [
            printable(description),
            "\n".join(
                f"- {runs} in `{settings}`." for runs, settings in _differences(rows)
            ),
            "\n".join(f"| {' | '.join(map(_in_markdown, line))} |" for line in lines),
        ]
    parts.append("\n".join(map(printable, comparison.remarks)))
    return "\n\n".join(filter(None, parts))


def csv_text(comparison):
    """Write a comparison as one CSV table with the protocol in its first column.

    Accuracies and gains are in percent and unrounded, `low` and `high` the ends of the
    95% confidence interval, `differs` the settings that a gain has in it beside the
    method; what is not known is empty.
    """
    columns = ["protocol", "configuration", "method", "seeds", "network", "parameters"]
    columns += ["accuracy", "deviation"]
    for name in comparison.over:
        columns += [f"{what}_{name}" for what in _OF_A_GAIN]
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
                cells += _gain_cells(row, name)
            cells += row.paper or [None, None]
            writer.writerow([printable(c) if isinstance(c, str) else c for c in cells])
    return output.getvalue().rstrip("\n")


FORMATS = {"text": text, "markdown": markdown, "csv": csv_text}


def _in_markdown(cell):
    return printable(cell).replace("|", "\\|")


def _gain_cells(row, name):
    gain, difference = row.gains.get(name), row.differences.get(name)
    if gain is None:
        return [None] * len(_OF_A_GAIN)
    settings = difference and _listed(difference.settings)
    return [*map(_hundredfold, gain[:3]), gain.p, gain.pairs, settings]


def _hundredfold(fraction):
    return None if fraction is None else 100 * fraction


def _differences(rows):
    """Return (`a, b differ from c`, in which settings), equal ones in one."""
    names = short_labels({row.configuration for row in rows})
    by_configuration, together = {}, {}
    for row in rows:
        for difference in row.differences.values():
            key = row.configuration, _listed(difference.settings)
            baselines = by_configuration.setdefault(key, {})
            baselines[names[difference.baseline]] = None
    for (configuration, settings), baselines in by_configuration.items():
        key = tuple(baselines), settings
        together.setdefault(key, []).append(names[configuration])
    return [
        (
            printable(
                f"{', '.join(own)} {'differs' if len(own) == 1 else 'differ'} from "
                f"{' and '.join(baselines)}"
            ),
            printable(settings),
        )
        for (baselines, settings), own in together.items()
    ]


def _listed(settings):
    """Write `logit/SGD.momentum: 0.8, there 0.9; ...`."""
    return "; ".join(
        f"{key}: {_value(own)}, there {_value(others)}"
        for key, (own, others) in settings.items()
    )


def _value(text):
    if text is None:
        return "not set"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


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
        line += [gain_text(row.gains.get(name)) for name in shown]
        lines.append(line + [str(row.paper or "")] * known)
    return lines
