"""A comparison as text."""

_MAPS = ("l1", "l2", "cosine", "cka")
_PREDICTIONS = ("agreement", "both_right", "first_only", "second_only", "both_wrong")


def as_text(comparison):
    """Lay out what `compare` returned as tables.

    Args:
        comparison: dict.

    Returns:
        str, lines of at most about 90 characters; fractions in percent, but for maps.
    """
    networks = [["network", "accuracy", "confidence", "ECE"]]
    for name, values in comparison["networks"].items():
        shown = (values[key] for key in ("accuracy", "confidence", "ece"))
        networks.append([name, *map(_percent, shown)])
    maps = [["feature maps", "size", "channels", "L1", "L2", "cosine", "CKA"]]
    predictions = [
        ["answers (1, 2)", "agree", "both right", "only 1", "only 2", "both wrong"]
    ]
    for pair in comparison["pairs"]:
        name = ", ".join(pair["networks"])
        found = pair["maps"]
        size = "x".join(map(str, found["size"]))
        channels = ", ".join(map(str, found["channels"]))
        values = [_plain(found.get(key)) for key in _MAPS]
        maps.append([name, size, channels, *values])
        shown = (pair["predictions"][key] for key in _PREDICTIONS)
        predictions.append([name, *map(_percent, shown)])
    parts = [_layout(table) for table in (networks, maps, predictions)]
    return f"{comparison['examples']:,} images\n\n" + "\n\n".join(parts)


def _percent(value):
    return f"{100 * value:.2f}"


def _plain(value):
    return "-" if value is None else f"{value:.4f}"


def _layout(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (
            cell.rjust(width) for cell, width in zip(row, widths, strict=True)
        )
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)
