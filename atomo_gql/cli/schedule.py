"""`atomo-gql schedule`."""

import json

import click
from rich.markup import escape
from rich.table import Table

from atomo_gql.cli.http import Client, run, server_options
from atomo_gql.cli.lines import print_table


@click.group()
def schedule() -> None:
    """Look at the schedules of workflows."""


@schedule.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def listing(url: str, token: str | None, as_json: bool) -> None:
    """List the schedules, and when they tick next."""
    workflows = run(Client(url, token).rest("GET", "/workflows"))["workflows"]
    found = [
        {
            "workflow": one["name"],
            "tenantId": one["tenantId"],
            "timezone": "UTC",
            "missed": "latest",
            **one["trigger"]["Schedule"],
            "isPaused": one["isPaused"],
            "nextTicks": one["nextTicks"],
        }
        for one in workflows
        if isinstance(one["trigger"], dict) and "Schedule" in one["trigger"]
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    columns = ("workflow", "cron", "time zone", "tenant", "next, UTC")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for column in (1, 4):
        table.columns[column].no_wrap = True
    for one in found:
        ticks = [tick[:19].replace("T", " ") for tick in one["nextTicks"][:3]]
        shown = "[bold]paused[/bold]" if one["isPaused"] else "\n".join(ticks)
        table.add_row(
            escape(one["workflow"]), escape(one["cron"]), escape(one["timezone"]), escape(one["tenantId"] or ""), shown
        )
    print_table(table)
