"""`atomo-gql dev`: everything at once, and a first job before one's eyes."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator

import click

from atomo_gql.cli.host import Running, accept, listen, listen_nearby, running
from atomo_gql.cli.http import Client
from atomo_gql.cli.logs import set_up_logs
from atomo_gql.cli.signals import on_signals, send
from atomo_gql.cli.start import (
    allow_open_files,
    database,
    database_name,
    prepared,
    run_or_exit,
    settings_or_exit,
    warn_of_unknown_variables,
)
from atomo_gql.cli.token import sign
from atomo_gql.cli.watch import watch_job
from atomo_gql.settings import Settings

_DAY = 86_400
_ENQUEUE = 'mutation ($payload: JSON) { enqueueJob(queue: "media-gen", kind: "video.generate", payload: $payload) }'


@click.command()
@click.option("--once", is_flag=True, help="End when the first job has ended: 0 when it succeeded.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; the next free one by default.")
def dev(once: bool, port: int | None) -> None:
    """Start a database, the server and a sample worker, and watch a first job run.

    Then it serves until Ctrl-C, with addresses, tokens and curl lines to go on with.
    """
    settings = settings_or_exit(needs_database=True)
    if "ATOMO_LOG_LEVEL" not in settings.texts:
        settings = dataclasses.replace(settings, log_level="warning")
    set_up_logs(settings)
    allow_open_files(settings)
    warn_of_unknown_variables()
    raise SystemExit(run_or_exit(settings, lambda: _dev(settings, port, once)))


async def _dev(settings: Settings, port: int | None, once: bool) -> int:
    stopping = asyncio.Event()
    on_signals(stopping.set)
    # The port is taken before the database is started, for another `dev` that begins just now to see it.
    listening = listen_nearby(settings) if port is None else listen(dataclasses.replace(settings, port=port))
    accept(listening, settings)
    taken, settings = settings.port, dataclasses.replace(settings, port=listening.getsockname()[1])
    if port is None and settings.port != taken:
        click.echo(f"port {taken} is taken, using {settings.port}")
    click.echo(f"database   {database_name(settings)}")
    async with database(settings) as dsn:
        await prepared(settings, dsn)
        async with running(settings, dsn, listening) as server:
            click.echo(f"server     {server.url}")
            admin = sign(settings, "dev", role="admin", tenant=None, lasts=_DAY)
            client = Client(server.url, admin)
            minted = await client.rest("POST", "/jobs/workers", {"name": "dev sample", "queues": ["media-gen"]})
            try:
                async with _worker(server.url, minted["token"]) as worker:
                    click.echo(f"worker     process {worker.pid}, queue media-gen\n")
                    first = asyncio.create_task(_first_job(client))
                    status = await _until(stopping, first)
                    if not once and status is not None:
                        _explain(server, settings, admin, minted["token"])
                        await _until(stopping, server.task)
            finally:
                with contextlib.suppress(click.ClickException):
                    await client.rest("DELETE", f"/jobs/workers/{minted['id']}")
    return 130 if status is None and once else status or 0


async def _until(stopping: asyncio.Event, work: "asyncio.Task[int] | asyncio.Task[None]") -> int | None:
    """The result of the work, or None when a signal came first."""
    signalled = asyncio.create_task(stopping.wait())
    waited: set[asyncio.Task[int] | asyncio.Task[None] | asyncio.Task[bool]] = {signalled, work}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if work.done():
        return work.result()
    return None


async def _first_job(client: Client) -> int:
    data = await client.graphql(_ENQUEUE, {"payload": {"prompt": "a lighthouse at dawn", "seconds": 4}})
    click.echo(f"enqueued video.generate: job {data['enqueueJob']}")
    return await watch_job(client, data["enqueueJob"])


@contextlib.asynccontextmanager
async def _worker(url: str, token: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "ATOMO_URL": url, "ATOMO_WORKER_TOKEN": token}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "atomo_gql",
        "worker",
        "atomo_gql.cli.sample:worker",
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        send(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()


def _explain(server: Running, settings: Settings, admin: str, worker_token: str) -> None:
    user = sign(settings, "you", role=None, tenant=None, lasts=_DAY)
    click.echo(f"""
The service runs. Ctrl-C ends it; what is enqueued stays.

  GraphQL    {server.url}/graphql (in a browser: GraphiQL, with the token after #token=)
  REST       {server.url}/openapi.json
  watch      ws{server.url[4:]}/realtime/ws?token=…
  metrics    {server.url}/metrics

In another shell:

  export URL={server.url}
  export JWT={user}          # a person, for a day
  export ADMIN={admin}        # an operator
  export WORKER={worker_token}   # the sample worker's queue, media-gen

  curl -s $URL/graphql -H "authorization: Bearer $JWT" -H 'content-type: application/json' \\
    -d '{{"query": "mutation {{ enqueueJob(queue: \\"media-gen\\", kind: \\"video.generate\\") }}"}}'

  curl -s $URL/jobs -H "authorization: Bearer $JWT" -H 'content-type: application/json' \\
    -d '{{"queue": "media-gen", "kind": "video.generate", "payload": {{"seconds": 10}}}}'

  atomo-gql job watch ID --url $URL        # a bar in the terminal
  atomo-gql job events ID --url $URL       # what happened to it
""")
