"""Columns of a statement's rows as arrays, no longer than they must be.

To look through an array and encode it costs the driver half a microsecond an element: most columns of a batch hold the
same value in every row, and the statements take that once.
"""

from collections.abc import Iterable
from typing import TypeVar

Value = TypeVar("Value")


def shared(values: Iterable[Value]) -> list[Value]:
    """Of a column without nulls: one element where all are the same."""
    column = list(values)
    return column[:1] if column and column.count(column[0]) == len(column) else column


def sparse(values: Iterable[Value | None]) -> list[Value | None]:
    """Of a column that can be null: empty where every value is."""
    column = list(values)
    return column if column.count(None) < len(column) else []
