"""JSON bodies. What cannot be JSON is a ValueError with a message that says where."""

import dataclasses
import math
from collections.abc import Iterator
from enum import Enum
from typing import Any

import orjson


def encode(body: dict[str, Any]) -> bytes:
    """Encode a body of the protocol whose values are known to be JSON."""
    return orjson.dumps(body)


def encode_checked(body: dict[str, Any], field: str) -> bytes:
    """Encode a body whose value under `field` comes from the user's code.

    Everything that orjson encodes is accepted: also tuples, dataclasses, enums, datetime and UUID.
    Raises ValueError, naming the field, for any other type, keys that are not strings, integers over 64 bits, lone
    surrogates, nesting too deep, and NaN or infinity (which orjson alone would silently make null).
    """
    try:
        encoded = orjson.dumps(body)
    except TypeError as error:
        raise ValueError(f"{field} is not JSON: {error}") from error
    value = body.get(field)
    if value is not None and b"null" in encoded:  # only there can a NaN hide
        for path in _non_finite(value, field):
            raise ValueError(f"{path} is not JSON: NaN or infinity")
    return encoded


def _non_finite(value: Any, path: str) -> Iterator[str]:
    """Where in a value that orjson took there are floats that are not finite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _non_finite(item, f"{path}[{index}]")
    elif isinstance(value, Enum):
        yield from _non_finite(value.value, path)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _non_finite(getattr(value, field.name), f"{path}.{field.name}")


def plain_text(text: str) -> str:
    """The text with what the server refuses in a string (NUL, lone surrogates) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
