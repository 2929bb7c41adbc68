"""Text tables."""

from collections.abc import Collection, Sequence


def render(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Returns rows of equally many cells as aligned lines. The columns numbered in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)
