"""Columns of a statement's rows as arrays, no longer than they must be.

To look through an array and encode it costs the driver half a microsecond an element: most columns of a batch hold the
same value in every row, and the statements take that once.
"""

from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")


def shared(column: Sequence[Value]) -> Sequence[Value]:
    """Of a column without nulls: one element where all are the same."""
    return column[:1] if column and column.count(column[0]) == len(column) else column


def sparse(column: Sequence[Value | None]) -> Sequence[Value | None]:
    """Of a column that can be null: empty where every value is."""
    return column if column.count(None) < len(column) else []
