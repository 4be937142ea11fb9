"""Tables on stdout: columns for people, that a script can split at the spaces."""

from collections.abc import Sequence

import click


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print the rows under their titles; if there are none, say so on stderr."""
    if not rows:
        click.echo(f"countermand: {empty}", err=True)
        return
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def one_line(text: str, length: int) -> str:
    """The text in one line of at most this length."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= length else line[: length - 1] + "…"
