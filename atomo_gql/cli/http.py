"""Speaking to a server from the command line."""

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import click

from atomo_gql.client.connection import Connection
from atomo_gql.client.errors import ClientError, ServiceError, Unreachable

_OUTAGE_SECS, _AGAIN_SECS = 60.0, 1.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])


def server_options(function: Function) -> Function:
    """`--url` and `--token`."""
    for option in (
        click.option(
            "--token",
            envvar="ATOMO_TOKEN",
            help="A JWT (ATOMO_TOKEN). On the server's own machine one is signed for you.",
        ),
        click.option(
            "--url",
            envvar="ATOMO_URL",
            default="http://127.0.0.1:3000",
            show_default=True,
            help="The server (ATOMO_URL).",
        ),
    ):
        function = option(function)
    return function


def seconds(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """«90s», «15m», «12h», «30d» as seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if not found or int(found[1]) == 0:
        raise click.BadParameter("write a number and a unit, as in 90s, 15m, 12h or 30d")
    return int(found[1]) * _UNITS[found[2]]


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run, turning what the network says into one line."""
    try:
        return asyncio.run(work)
    except aiohttp.ClientError as error:
        raise click.ClickException(f"the server cannot be reached: {error}") from None
    except TimeoutError:
        raise click.ClickException("the server did not answer in time") from None


def segment(what: str, name: str) -> str:
    """A name as one part of a path; one that a path cannot hold is nobody's, of what there is."""
    if name in ("", ".", "..") or "/" in name:
        raise click.ClickException(f"there is no {what} {name!r}")
    return quote(name, safe="")


class Client:
    """A server, as the command line sees it: what goes wrong is one line."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._token = token or own_token()

    async def rest(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, *, at: str = ""
    ) -> Any:
        """Call a REST route; its JSON. `at`: where the body is from, said when it is refused."""
        async with self._connected(at) as connection:
            return await connection.rest(method, path, body, headers)

    @contextlib.asynccontextmanager
    async def lasting(self) -> AsyncIterator["Lasting"]:
        """For calls again and again."""
        async with self._connected() as connection:
            yield Lasting(connection)

    async def graphql(self, query: str, variables: dict[str, Any]) -> Any:
        """Run a query or mutation; its data."""
        async with self._connected() as connection:
            return await connection.graphql(query, variables)

    async def subscribe(self, query: str, variables: dict[str, Any]) -> AsyncIterator[Any]:
        """Run a subscription; its data, item by item, until it completes, through any outage."""
        async with self._connected() as connection:
            async for item in connection.subscribe(query, variables):
                yield item

    @contextlib.asynccontextmanager
    async def _connected(self, at: str = "") -> AsyncIterator[Connection]:
        try:
            async with Connection(self._url, self._token) as connection:
                yield connection
        except Unreachable as error:
            why = f"the server cannot be reached at {self._url}: {_reason(error)}; set ATOMO_URL or --url"
            raise click.ClickException(why) from None
        except ClientError as error:
            raise click.ClickException(f"{at}: {error}" if at else str(error)) from None


class Lasting:
    """One connection, on which an outage of some seconds is waited out once the server has answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answered_at: float | None = None

    async def rest(self, method: str, path: str) -> Any:
        """Call a REST route; its JSON."""
        return await self._insist(lambda: self._connection.rest(method, path))

    async def graphql(self, query: str, variables: dict[str, Any]) -> Any:
        """Run a query; its data."""
        return await self._insist(lambda: self._connection.graphql(query, variables))

    async def _insist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        clock = asyncio.get_running_loop().time
        while True:
            try:
                answer = await call()
            except ClientError as error:
                if not _is_away(error) or self._answered_at is None or clock() - self._answered_at > _OUTAGE_SECS:
                    raise
                await asyncio.sleep(_AGAIN_SECS)
            else:
                self._answered_at = clock()
                return answer


def _is_away(error: ClientError) -> bool:
    if isinstance(error, ServiceError):
        return error.status in (429, 503) or error.code in ("UNAVAILABLE", "TOO_MANY_REQUESTS")
    return isinstance(error, Unreachable)


def _reason(error: Unreachable) -> str:
    """Why a server has not answered, without what aiohttp says of its own settings."""
    match error.__cause__:
        case None:
            return "the connection could not be made"
        case TimeoutError():
            return "it did not answer in time"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "that is no URL of a server"
        case aiohttp.ClientConnectorCertificateError() as cause:
            return str(cause.certificate_error)
        case aiohttp.ClientConnectorError() as cause:
            network, number = cause.os_error, cause.os_error.errno
            if (
                number is not None
                and number in errno.errorcode
                and not isinstance(network, socket.gaierror | ssl.SSLError)
            ):
                return os.strerror(number)  # the sentence of asyncio has the address again
            return network.strerror or str(network)
        case cause:
            return str(cause) or type(cause).__name__


def own_token() -> str:
    """An admin's token, signed with the secret of this machine's installation."""
    try:
        from atomo_gql.cli.start import settings_or_exit
        from atomo_gql.cli.token import sign
    except ModuleNotFoundError:
        raise click.ClickException("a token is needed: --token or ATOMO_TOKEN") from None
    return sign(settings_or_exit(), "cli", role="admin", tenant=None, lasts=3_600)
