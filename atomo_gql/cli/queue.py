"""`atomo-gql queue`."""

import json
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from atomo_gql.cli.http import Client, run, server_options
from atomo_gql.cli.lines import print_table

_FIELDS = """name isPaused pause { at by isForEveryTenant } oldestEligibleSecs workers { name }
  depth { queued scheduled leased dead isExact } rates { enqueued succeeded failed }"""
_LIST = f"""query ($after: String) {{ queues(first: 100, after: $after) {{
  nodes {{ {_FIELDS} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
_CHANGE = "mutation ($queue: String!) {{ {verb}(queue: $queue) {{ name isPaused }} }}"


@click.group()
def queue() -> None:
    """Look at queues, and pause or resume them."""


@queue.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def listing(url: str, token: str | None, as_json: bool) -> None:
    """List the queues, and how they are."""
    found = run(_all(Client(url, token)))
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    columns = ("queue", "state", "due", "later", "leased", "dead", "oldest", "done/min", "fail/min", "workers")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    table.columns[1].justify = "left"
    for one in found:
        depth, more = one["depth"], "" if one["depth"]["isExact"] else "+"
        oldest = "" if one["oldestEligibleSecs"] is None else f"{one['oldestEligibleSecs']:,.0f} s"
        table.add_row(
            escape(one["name"]),
            "[bold]paused[/bold]" if one["isPaused"] else "open",
            f"{depth['queued']:,}{more}",
            f"{depth['scheduled']:,}{more}",
            f"{depth['leased']:,}",
            f"{depth['dead']:,}",
            oldest,
            f"{one['rates']['succeeded']:,.1f}",
            f"{one['rates']['failed']:,.1f}",
            str(len(one["workers"])),
        )
    print_table(table)


@queue.command()
@click.argument("name")
@server_options
def pause(url: str, token: str | None, name: str) -> None:
    """Lease nothing from a queue; what is leased goes on."""
    _change(url, token, "pauseQueue", name)


@queue.command()
@click.argument("name")
@server_options
def resume(url: str, token: str | None, name: str) -> None:
    """End your pause of a queue."""
    _change(url, token, "resumeQueue", name)


async def _all(client: Client) -> list[Any]:
    found: list[Any] = []
    after = None
    while True:
        page = (await client.graphql(_LIST, {"after": after}))["queues"]
        found += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def _change(url: str, token: str | None, verb: str, name: str) -> None:
    found = run(Client(url, token).graphql(_CHANGE.format(verb=verb), {"queue": name}))[verb]
    click.echo(f"{found['name']} is {'paused' if found['isPaused'] else 'open'}")
