"""Small tables of text, in a terminal or a file."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], *, num_left: int | None = None) -> str:
    """Returns a line a row, its cells in columns two blanks apart and none of them cut off.

    Args:
      rows: Cells of each row, equally many; the head is a row as others are.
      num_left: Columns that are aligned to the left, from the first on; the others are to the right. None for all.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    num_left = len(widths) if num_left is None else num_left
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        put = (c.ljust(w) if i < num_left else c.rjust(w) for i, (c, w) in enumerate(cells))
        lines.append("  ".join(put).rstrip())
    return "\n".join(lines)
