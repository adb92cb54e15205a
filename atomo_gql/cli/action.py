"""`atomo-gql action` and `atomo-gql event`."""

import json
from typing import Any

import click
from rich.markup import escape
from rich.text import Text

from atomo_gql.cli.http import Client, run, segment, server_options
from atomo_gql.cli.inputs import json_value, read_files
from atomo_gql.cli.lines import note, print_list


@click.group()
def action() -> None:
    """Bind actions to events."""


@action.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def listing(url: str, token: str | None, as_json: bool) -> None:
    """List the bindings, and those that were set aside with their error."""
    found = run(Client(url, token).rest("GET", "/actions"))["bindings"]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = (
        (
            (
                one["id"],
                f"[bold]{'set aside' if one['isSetAside'] else 'open'}[/bold]",
                escape(f"{one['model']} {one['event']}"),
                escape(one["queue"]),
                escape(one["action"]),
            ),
            _notes(one),
        )
        for one in found
    )
    print_list(("binding", "state", "event", "queue", "action"), rows)


@action.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@server_options
def register(url: str, token: str | None, files: tuple[str, ...]) -> None:
    """Register what files bind: each a binding, or a list of them; - is standard input."""
    sources = read_files(files)
    client = Client(url, token)
    for place, source in sources:
        made = run(client.rest("POST", "/actions", source, at=place))
        click.echo(f"{made['id']} fires {made['action']} on {made['model']} {made['event']}")


@action.command()
@click.argument("binding_id", metavar="ID")
@server_options
def remove(url: str, token: str | None, binding_id: str) -> None:
    """Have a binding fire no more."""
    run(Client(url, token).rest("DELETE", f"/actions/{segment('binding', binding_id)}"))
    click.echo(f"{binding_id} is removed")


@action.command()
@click.argument("binding_id", metavar="ID")
@click.option(
    "--skip",
    is_flag=True,
    help="Pass over the event that it failed on, and all up to now: what was not fired in between is never fired.",
)
@server_options
def resume(url: str, token: str | None, binding_id: str, skip: bool) -> None:
    """Have a binding that was set aside go on from the event that it failed on."""
    found = run(Client(url, token).rest("POST", f"/actions/{segment('binding', binding_id)}/resume", {"skip": skip}))
    click.echo(f"{found['id']} is {'set aside' if found['isSetAside'] else 'open'}")


def _notes(binding: Any) -> list[Text]:
    """What more there is of a binding, each below its line."""
    more = {name: binding[name] for name in ("condition", "input")}
    more |= {"tenant": binding["tenantId"], "error": binding["error"]}
    return [
        note(f"{name} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
        for name, value in more.items()
        if value is not None
    ]


@click.group()
def event() -> None:
    """Record what happens to the models of applications."""


@event.command()
@click.argument("model")
@click.argument("what", metavar="EVENT", type=click.Choice(["created", "updated", "deleted"]))
@click.argument("entity_id", metavar="ID")
@click.option(
    "--data",
    callback=json_value,
    metavar="JSON",
    help="As it is now: JSON, @file, or - for standard input. Default: {}",
)
@click.option("--previous", callback=json_value, metavar="JSON", help="As it was; an object.")
@click.option("--event-id", help="The same id is the same event.")
@click.option("--origin", help="The action that did it, which it does not fire again.")
@server_options
def record(
    url: str,
    token: str | None,
    model: str,
    what: str,
    entity_id: str,
    data: tuple[Any] | None,
    previous: tuple[Any] | None,
    event_id: str | None,
    origin: str | None,
) -> None:
    """Record an event, and print its id."""
    body = {
        "model": model,
        "event": what,
        "id": entity_id,
        "data": data[0] if data else {},
        "previousData": previous[0] if previous else None,
        "eventId": event_id,
        "origin": origin,
    }
    recorded = run(Client(url, token).rest("POST", "/events", body))
    click.echo(recorded["eventId"])
    if not recorded["isNew"]:
        click.echo("It had been recorded before.", err=True)
