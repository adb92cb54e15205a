"""`atomo-gql worker-token`."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from atomo_gql.cli.http import Client, run, seconds, server_options
from atomo_gql.cli.lines import print_table

_QUIET = click.option("--quiet", is_flag=True, help="Print the token alone, for scripts.")


@click.group("worker-token")
def worker_token() -> None:
    """Make, list, rotate and revoke the tokens of workers."""


@worker_token.command()
@click.argument("name")
@click.option(
    "--queue", "queues", multiple=True, required=True, help='A queue it may lease; again for more; "*" for all.'
)
@click.option("--kind", "kinds", multiple=True, help="Only jobs of this kind; again for more.")
@click.option("--tenant", help="Bind it to a tenant.")
@click.option("--expires-in", callback=seconds, help="Good for so long: 90s, 15m, 12h, 30d … Default: until revoked.")
@_QUIET
@server_options
def create(
    url: str,
    token: str | None,
    name: str,
    queues: tuple[str, ...],
    kinds: tuple[str, ...],
    tenant: str | None,
    expires_in: int | None,
    quiet: bool,
) -> None:
    """Mint a token. It is shown this once."""
    body: dict[str, object] = {"name": name, "queues": list(queues), "tenantId": tenant, "kinds": list(kinds) or None}
    if expires_in is not None:
        body["expiresAt"] = (datetime.now(UTC) + timedelta(seconds=expires_in)).isoformat()
    _show(run(Client(url, token).rest("POST", "/jobs/workers", body)), quiet)


@worker_token.command()
@click.argument("token_id", metavar="ID")
@click.option("--grace", callback=seconds, help="End the old one after so long: 90s, 15m, 12h, 30d … Default: never.")
@_QUIET
@server_options
def rotate(url: str, token: str | None, token_id: str, grace: int | None, quiet: bool) -> None:
    """Mint a successor of a token, with its name and its scope. The old one goes on until it is revoked."""
    _show(run(Client(url, token).rest("POST", f"/jobs/workers/{token_id}/rotate", {"graceSecs": grace})), quiet)


def _show(made: Any, quiet: bool) -> None:
    if quiet:
        click.echo(made["token"])
        return
    click.echo(f"id       {made['id']}")
    click.echo(f"queues   {', '.join(made['queues'])}")
    if made["kinds"]:
        click.echo(f"kinds    {', '.join(made['kinds'])}")
    if made["expiresAt"]:
        click.echo(f"expires  {made['expiresAt']}")
    click.echo(f"token    {made['token']}")
    click.echo("The token is not kept and will not be shown again.", err=True)


@worker_token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def listing(url: str, token: str | None, as_json: bool) -> None:
    """List the tokens, without their secrets."""
    found = run(Client(url, token).rest("GET", "/jobs/workers"))["workers"]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table("id", "name", "queues", "tenant", "created", "state", box=None, pad_edge=False, header_style="dim")
    for column in (0, 4, 5):
        table.columns[column].no_wrap = True
    for one in found:
        end = one["expiresAt"] and datetime.fromisoformat(one["expiresAt"])
        state = "revoked" if one["isRevoked"] else "live"
        if state == "live" and end:
            state = f"until {end:%Y-%m-%d}" if end > datetime.now(UTC) else "expired"
        table.add_row(
            one["id"],
            escape(one["name"]),
            escape(", ".join(one["queues"])),
            escape(one["tenantId"] or ""),
            one["createdAt"][:10],
            state,
        )
    print_table(table)


@worker_token.command()
@click.argument("token_id", metavar="ID")
@server_options
def revoke(url: str, token: str | None, token_id: str) -> None:
    """Revoke a token, at once and everywhere."""
    run(Client(url, token).rest("DELETE", f"/jobs/workers/{token_id}"))
    click.echo(f"revoked {token_id}")
