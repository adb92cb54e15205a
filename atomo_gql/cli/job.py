"""`atomo-gql enqueue` and `atomo-gql job`."""

import json
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from atomo_gql.cli.http import Client, run, server_options
from atomo_gql.cli.lines import Trimmed, fields_table, note, one_line, print_table
from atomo_gql.cli.watch import watch_job

_ENQUEUE = """
mutation ($queue: String!, $kind: String!, $payload: JSON, $idempotencyKey: String, $maxAttempts: Int, $priority: Int,
          $runAt: DateTime, $timeoutSecs: Int, $deadline: DateTime) {
  enqueueJob(queue: $queue, kind: $kind, payload: $payload, idempotencyKey: $idempotencyKey, maxAttempts: $maxAttempts,
             priority: $priority, runAt: $runAt, timeoutSecs: $timeoutSecs, deadline: $deadline)
}"""
_LIST = """
query ($filter: JobFilter, $first: Int, $after: String) { jobs(filter: $filter, first: $first, after: $after) {
  nodes { id queue kind status attempts maxAttempts createdAt error waitingFor { message } }
  pageInfo { hasNextPage endCursor } } }"""
_RETRY = "mutation ($id: ID!) { retryJob(id: $id) { id status } }"
_CANCEL = "mutation ($id: ID!, $reason: String) { cancelJob(id: $id, reason: $reason) { id status error } }"
_EVENTS = """
query ($id: ID!) { job(id: $id) { events(first: 1000) { version type at actor data } } }"""
_SHOW = """
query ($id: ID!) { job(id: $id) {
  id queue kind status priority attempts maxAttempts tenantId idempotencyKey createdAt runAt eligibleAt leasedAt
  leaseExpiresAt finishedAt progress payload result error } }"""


@click.command()
@click.argument("queue")
@click.argument("kind")
@click.option("--payload", default="{}", show_default=True, help="JSON; - reads it from standard input.")
@click.option("--idempotency-key", help="The same key in the same queue is the same job.")
@click.option("--max-attempts", type=int, default=5, show_default=True, help="1–1,000.")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher goes first.")
@click.option("--run-at", help="Not before this moment, as in 2030-01-31T12:00:00Z.")
@click.option("--timeout-secs", type=int, help="What one attempt may take; 1–604,800.")
@click.option("--deadline", help="Not worth doing from this moment on.")
@click.option("--watch", is_flag=True, help="Show its progress until it ends.")
@server_options
def enqueue(url: str, token: str | None, watch: bool, queue: str, kind: str, payload: str, **options: Any) -> None:
    """Enqueue a job, and print its id."""
    try:
        value = json.loads(sys.stdin.read() if payload == "-" else payload)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--payload") from None
    names = {
        "idempotency_key": "idempotencyKey",
        "max_attempts": "maxAttempts",
        "priority": "priority",
        "run_at": "runAt",
        "timeout_secs": "timeoutSecs",
        "deadline": "deadline",
    }
    variables = {"queue": queue, "kind": kind, "payload": value, **{names[n]: v for n, v in options.items()}}
    client = Client(url, token)
    job_id = run(client.graphql(_ENQUEUE, variables))["enqueueJob"]
    click.echo(job_id)
    if watch:
        raise SystemExit(run(watch_job(client, job_id)))


@click.group()
def job() -> None:
    """Look at jobs, and retry or cancel them."""


@job.command("list")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(["queued", "leased", "succeeded", "dead"]),
    help="In this state; again for more.",
)
@click.option("--queue", help="Of this queue.")
@click.option("--kind", help="Of this kind.")
@click.option("--error", help="With this in its error.")
@click.option("--most", default=20, show_default=True, type=click.IntRange(1, 100), help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def listing(url: str, token: str | None, status: tuple[str, ...], most: int, as_json: bool, **wanted: Any) -> None:
    """List the newest jobs."""
    conditions: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if status:
        conditions["status"] = [one.upper() for one in status]
    found, has_more = run(_listed(Client(url, token), conditions, most, lambda jobs: None if as_json else _print(jobs)))
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif has_more:
        click.echo("… and more; see --most", err=True)


async def _listed(
    client: Client, conditions: dict[str, Any], most: int, tell: Callable[[list[Any]], None]
) -> tuple[list[Any], bool]:
    """The newest jobs, each page told when it comes, and whether there may be more.

    A search in errors has pages of few jobs or none, and says how far it is.
    """
    found: list[Any] = []
    status = Console(stderr=True).status("")
    pages, after, has_more = 0, None, True
    try:
        async with client.lasting() as server:
            while has_more and len(found) < most:
                if pages:
                    status.update(f"searched {pages:,} pages, {len(found)} found")
                    status.start()
                wanted = {"filter": conditions, "first": most - len(found), "after": after}
                page = (await server.graphql(_LIST, wanted))["jobs"]
                has_more, after = page["pageInfo"]["hasNextPage"], page["pageInfo"]["endCursor"]
                found += page["nodes"]
                pages += 1
                if page["nodes"]:
                    status.stop()
                    tell(page["nodes"])
    finally:
        status.stop()
    return found, has_more


def _print(jobs: list[Any]) -> None:
    console = Console(highlight=False)
    for one in jobs:
        attempts = f"{one['attempts']}/{one['maxAttempts']}"
        what = escape(f"{one['queue']}  {one['kind']}")
        line = f"{one['id']}  [bold]{one['status'].lower():<9}[/bold]  {attempts:>5}  {what}"
        console.print(line, soft_wrap=True)
        if why := (one["waitingFor"] or {}).get("message") or one["error"]:
            console.print(Trimmed(Padding(note(one_line(why), is_cut=True), (0, 0, 0, 2))))


@job.command()
@click.argument("job_id", metavar="ID")
@server_options
def retry(url: str, token: str | None, job_id: str) -> None:
    """Queue a dead job again, with all its attempts before it."""
    found = run(Client(url, token).graphql(_RETRY, {"id": job_id}))["retryJob"]
    click.echo(f"{found['id']} is {found['status'].lower()}")


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--reason", help="Kept in its error.")
@server_options
def cancel(url: str, token: str | None, job_id: str, reason: str | None) -> None:
    """End a job that is queued or leased."""
    found = run(Client(url, token).graphql(_CANCEL, {"id": job_id, "reason": reason}))["cancelJob"]
    click.echo(f"{found['id']} is {found['status'].lower()}: {found['error']}")


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def show(url: str, token: str | None, job_id: str, as_json: bool) -> None:
    """Show a job as it stands."""
    found = _found(run(Client(url, token).graphql(_SHOW, {"id": job_id}))["job"], job_id)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    print_table(fields_table((name, _text(value)) for name, value in found.items() if value is not None))


@job.command()
@click.argument("job_id", metavar="ID")
@server_options
def watch(url: str, token: str | None, job_id: str) -> None:
    """Show a job's progress until it ends; the status is 1 when it is dead."""
    raise SystemExit(run(watch_job(Client(url, token), job_id)))


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an event a line.")
@server_options
def events(url: str, token: str | None, job_id: str, as_json: bool) -> None:
    """Show what happened to a job, oldest first."""
    found = _found(run(Client(url, token).graphql(_EVENTS, {"id": job_id}))["job"], job_id)["events"]
    if as_json:
        for event in found:
            click.echo(json.dumps(event, ensure_ascii=False))
        return
    console = Console(highlight=False)
    day = ""
    for event in found:
        if event["at"][:10] != day:
            day = event["at"][:10]
            console.print(f"{day} UTC", style="dim")
        actor = event["actor"] if len(event["actor"]) <= 30 else f"{event['actor'][:14]}…{event['actor'][-6:]}"
        console.print(
            f"{event['version']:>3}  {event['at'][11:23]}  [bold]{event['type'].lower():<9}[/bold]  {escape(actor)}"
        )
        console.print(Padding(escape(_brief(event["data"])), (0, 0, 0, 5)), style="dim")


def _brief(data: dict[str, Any]) -> str:
    """The data on a line or two, without what is empty."""
    shown = (f"{name} {_text(value)}" for name, value in data.items() if value not in (None, {}))
    return "  ".join(shown)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _found(value: Any, job_id: str) -> Any:
    if value is None:
        raise click.ClickException(f"there is no job {job_id}")
    return value
