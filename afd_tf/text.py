"""Text for people: counts, durations, and the one table."""

NUMBERS = ("parameters", "accuracy", "loss", "seeds")


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


def printable(text):
    """Write what would move the cursor or colour the terminal as an escape sequence."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def as_table(rows, right=NUMBERS, rule=True):
    """Align rows of str in columns under their headings, the first row.

    Args:
        rows: list of rows, each a sequence of str.
        right: headings of the columns that are aligned to the right, such as numbers.
        rule: bool, whether a line of dashes follows the headings.

    Returns:
        str of a line per row.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row):
        cells = zip(row, widths, rows[0], strict=True)
        return "  ".join(
            cell.rjust(width) if heading in right else cell.ljust(width)
            for cell, width, heading in cells
        ).rstrip()

    head, *body = map(line, rows)
    dashes = ["-" * (sum(widths) + 2 * (len(widths) - 1))] if rule else []
    return "\n".join([head, *dashes, *body])
