"""Moments: the same ones as in REST, in the same words."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import strawberry

from atomo_gql.api.rest.bodies import NO_MOMENT


def _parse(value: Any) -> datetime:
    try:
        return msgspec.convert(value if isinstance(value, str) else None, datetime)
    except msgspec.ValidationError:
        raise ValueError(f"A DateTime {NO_MOMENT}") from None


def _serialize(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


DATE_TIME = strawberry.scalar(
    name="DateTime",
    description="A moment with its offset from UTC (RFC 3339), as in 2030-01-31T12:00:00Z.",
    serialize=_serialize,
    parse_value=_parse,
    specified_by_url="https://datatracker.ietf.org/doc/html/rfc3339",
)
