"""JSON values on their way into the store."""

import orjson

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.rules import MAX_DEPTH, check_json, check_size


def encode(field: str, value: Json, most: int) -> bytes:
    """The bytes of a JSON value.

    Raises:
        BadUserInput: it holds what JSON or PostgreSQL cannot.
        PayloadTooLarge: more than `most` bytes.
    """
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:
        check_json(field, value)
        raise BadUserInput(f"{field} must be a JSON value: {error}", field=field) from None
    # An escaped NUL, or those six characters in a text; brackets enough to be too deep, or many short lists. The slow
    # look tells.
    if b"\\u0000" in encoded or encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH:
        check_json(field, value)
    return check_size(field, encoded, most)
