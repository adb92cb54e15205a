"""Lines of the terminal: tables, lists, and errors cut to one line."""

from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_TRACEBACK = "Traceback (most recent call last):"
_MOST = 300  # characters of an error in a sentence: some lines of a terminal
_WIDE = 10_000  # columns: a line of a list is never wrapped, and can be copied


class Trimmed:
    """A renderable whose lines end where their text does; Rich fills them up with blanks."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._content, options, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                yield from line[:-1]
                yield Segment(line[-1].text.rstrip(), line[-1].style)
            yield Segment.line()


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal."""
    Console(highlight=False).print(Trimmed(table))


def fields_table(fields: Iterable[tuple[str, str]]) -> Table:
    """Names, and what they are, in two columns."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, escape(value))
    return table


def print_list(head: Sequence[str], rows: Iterable[tuple[Sequence[str], Sequence[RenderableType]]]) -> None:
    """Print rows of markup in columns, a line each, however long; below each its notes, indented."""
    console = Console(highlight=False)
    table = Table(*head, box=None, pad_edge=False, header_style="dim")
    notes: list[Sequence[RenderableType]] = [()]
    for cells, more in rows:
        table.add_row(*cells)
        notes.append(more)
    for column in table.columns:
        column.no_wrap = True
    lines = console.render_lines(table, console.options.update(width=_WIDE), pad=False)
    for line, more in zip(lines, notes, strict=True):
        text = Text.assemble(*((part.text, part.style or "") for part in line))
        text.rstrip()
        console.print(text, soft_wrap=True)
        for note in more:
            console.print(Trimmed(Padding(note, (0, 0, 0, 2))))


def note(text: str, *, is_cut: bool = False) -> Text:
    """What stands below a row; cut to the width if it is to stay one line."""
    return Text(text, "dim", no_wrap=is_cut, overflow="ellipsis" if is_cut else "fold")


def one_line(error: str, most: int = _MOST) -> str:
    """An error's first line; of a traceback of Python's its last, which says what was raised."""
    first, _, rest = error.strip().partition("\n")
    before, traceback, _ = first.partition(_TRACEBACK)
    if traceback and rest:
        first = before + rest.rpartition("\n")[2].strip()
    return first if len(first) <= most else first[: most - 1] + "…"
