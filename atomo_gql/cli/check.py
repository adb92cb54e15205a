"""`atomo-gql check`."""

import asyncio
import contextlib
import json

import click
from rich.markup import escape
from rich.table import Table

from atomo_gql.cli.findings import Finding, State, findings
from atomo_gql.cli.lines import print_table

_COLORS = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for scripts.")
def check(as_json: bool) -> None:
    """Say what a start would find, and change nothing.

    Settings, the database, its schema, this machine, Redis: each is ok, a warning, or failed, with one sentence that
    says what to do. The status is 0 when a server would start, and 1 when something would keep it from that.
    """
    with asyncio.Runner() as runner:
        found = runner.run(_all())
    is_ok = not any(finding.state is State.FAILED for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": is_ok, "findings": [_as_json(finding) for finding in found]}, indent=2))
    else:
        print_table(_table(found))
    if not is_ok:
        raise SystemExit(1)


async def _all() -> list[Finding]:
    async with contextlib.aclosing(findings()) as found:
        return [finding async for finding in found]


def _as_json(finding: Finding) -> dict[str, str]:
    return {"name": finding.name, "state": finding.state.value, "says": finding.says}


def _table(found: list[Finding]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        color = _COLORS[finding.state]
        table.add_row(finding.name, f"[{color}]{finding.state.value}[/{color}]", escape(finding.says))
    return table
