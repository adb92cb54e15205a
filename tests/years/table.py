"""Tables for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print it."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)
