"""JSON values on their way into the store."""

import orjson

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.rules import check_json, check_size


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
    if b"\\u0000" in encoded:  # an escaped NUL, or those six characters in a text; the slow look tells
        check_json(field, value)
    return check_size(field, encoded, most)
