"""The worker's arguments, checked."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

URL_VARIABLE = "ATOMO_URL"
TOKEN_VARIABLE = "ATOMO_WORKER_TOKEN"  # noqa: S105 -- the name of a variable, not a token


@dataclass(frozen=True, slots=True)
class Config:
    """What a worker was told. Times are seconds. No secret shows in its repr."""

    url: str = field(repr=False)  # may hold a password
    token: str = field(repr=False)
    queues: tuple[str, ...]
    concurrency: int
    visibility: int
    wait: int
    drain_timeout: float

    @property
    def public_url(self) -> str:
        """The URL without a user name and password, for the log."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def checked_config(
    *,
    url: str | None,
    token: str | None,
    queues: Sequence[str],
    concurrency: int,
    visibility: int,
    wait: int,
    drain_timeout: float,
) -> Config:
    """Check each argument; url and token default to ATOMO_URL and ATOMO_WORKER_TOKEN.

    Raises ValueError naming the argument and the rule.
    """
    return Config(
        url=_checked_url(url if url is not None else os.environ.get(URL_VARIABLE, "")),
        token=_checked_token(token if token is not None else os.environ.get(TOKEN_VARIABLE, "")),
        queues=_checked_queues(queues),
        concurrency=whole("concurrency", concurrency, 1, 10_000),
        visibility=whole("visibility", visibility, 1, 86_400),
        wait=whole("wait", wait, 0, 60),
        drain_timeout=_seconds("drain_timeout", drain_timeout),
    )


def _checked_url(url: str) -> str:
    if not url:
        raise ValueError(f"url must be given, or {URL_VARIABLE} be set")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ValueError("url must be an http:// or https:// address, with a path prefix at most")
    return url.rstrip("/")


def _checked_token(token: str) -> str:
    if not token:
        raise ValueError(f"token must be given, or {TOKEN_VARIABLE} be set")
    if not all("!" <= sign <= "~" for sign in token):
        raise ValueError("token must be printable ASCII without spaces")
    return token


def _checked_queues(queues: Sequence[str]) -> tuple[str, ...]:
    if isinstance(queues, str):
        raise ValueError('queues must be a list of names such as ["media-gen"], not one string')
    names = tuple(dict.fromkeys(queues))
    if not names:
        raise ValueError("queues must name at least one queue")
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError("queues must be names that are not blank")
    return names


def whole(name: str, value: int, least: int, most: int) -> int:
    """A whole number between two bounds. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return value


def _seconds(name: str, value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number of seconds, 0 or more, not {value!r}")
    return float(value)
