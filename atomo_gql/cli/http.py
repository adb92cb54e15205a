"""Speaking to a server from the command line."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
import click

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


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run, turning what the network says into one line."""
    try:
        return asyncio.run(work)
    except aiohttp.ClientError as error:
        raise click.ClickException(f"the server cannot be reached: {error}") from None
    except TimeoutError:
        raise click.ClickException("the server did not answer in time") from None


class Client:
    """A server, as the app plane sees it."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._token = token or own_token()

    async def rest(self, method: str, path: str, body: object = None) -> Any:
        """Call a REST route; its JSON."""
        async with self._session() as session, session.request(method, self._url + path, json=body) as response:
            text = await response.text()
            answer = json.loads(text) if text else None
            if response.status >= 400:
                raise click.ClickException((answer or {}).get("detail") or f"the server answered {response.status}")
            return answer

    async def graphql(self, query: str, variables: dict[str, Any]) -> Any:
        """Run a query or mutation; its data."""
        body = {"query": query, "variables": variables}
        async with self._session() as session, session.post(self._url + "/graphql", json=body) as response:
            answer = await response.json(content_type=None)
            return _data(answer)

    async def subscribe(self, query: str, variables: dict[str, Any]) -> AsyncIterator[Any]:
        """Run a subscription over graphql-transport-ws; its data, item by item, until it completes.

        A connection that is lost is made again, and the subscription with it: the first item is the present state.
        """
        while True:
            try:
                async with (
                    self._session() as session,
                    session.ws_connect(
                        self._url + "/graphql", protocols=["graphql-transport-ws"], heartbeat=20
                    ) as socket,
                ):
                    await socket.send_json(
                        {"type": "connection_init", "payload": {"authorization": f"Bearer {self._token}"}}
                    )
                    await socket.receive_json()
                    await socket.send_json(
                        {"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}}
                    )
                    async for message in socket:
                        frame = json.loads(message.data)
                        if frame["type"] == "next":
                            yield _data(frame["payload"])
                        elif frame["type"] == "error":
                            _data({"errors": frame["payload"]})
                        elif frame["type"] == "complete":
                            return
            except (aiohttp.ClientConnectionError, TypeError):
                pass
            await asyncio.sleep(1)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )


def _data(answer: Any) -> Any:
    if answer.get("errors"):
        raise click.ClickException("; ".join(error["message"] for error in answer["errors"]))
    return answer.get("data") if "data" in answer else _unexpected(answer)


def _unexpected(answer: Any) -> Any:
    raise click.ClickException(answer.get("detail") or f"the server answered {answer!r}")


def own_token() -> str:
    """An admin's token, signed with the secret of this machine's installation."""
    try:
        from atomo_gql.cli.host import settings_or_exit
        from atomo_gql.cli.token import sign
    except ModuleNotFoundError:
        raise click.ClickException("a token is needed: --token or ATOMO_TOKEN") from None
    return sign(settings_or_exit(), "cli", role="admin", tenant=None, lasts=3_600)
