"""`atomo-gql workflow`."""

import json
from typing import Any
from urllib.parse import urlencode

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atomo_gql.cli.http import Client, run, segment, server_options
from atomo_gql.cli.inputs import json_value, read_files
from atomo_gql.cli.lines import Trimmed, fields_table, note, one_line, print_list, print_table
from atomo_gql.cli.watch_run import steps_table, watch_run
from atomo_gql.domain.workflows.parsing import NO_NAMES

_VERSION = "query ($name: String!) { workflow(name: $name) { id version } }"
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def workflow() -> None:
    """Register workflows, run them, and look at their runs."""


@workflow.command("list")
@_JSON
@server_options
def listing(url: str, token: str | None, as_json: bool) -> None:
    """List the workflows."""
    found = run(Client(url, token).rest("GET", "/workflows"))["workflows"]
    if as_json:
        _print_json(found)
        return
    columns = ("workflow", "version", "begun by", "steps", "state", "tenant")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for column in (1, 3):
        table.columns[column].justify = "right"
    for column in (1, 3, 4):
        table.columns[column].no_wrap = True
    for one in found:
        table.add_row(
            escape(one["name"]),
            str(one["definitionVersion"]),
            escape(begun_by(one["trigger"])),
            str(len(one["definition"]["steps"])),
            "[bold]paused[/bold]" if one["isPaused"] else "open",
            escape(one["tenantId"] or ""),
        )
    print_table(table)


@workflow.command()
@click.argument("name")
@_JSON
@server_options
def show(url: str, token: str | None, name: str, as_json: bool) -> None:
    """Show a workflow and its definition."""
    found = run(Client(url, token).rest("GET", _path(name)))
    if as_json:
        _print_json(found)
        return
    state = f"paused {_moment(found['pausedAt'])} by {found['pausedBy']}" if found["isPaused"] else "open"
    fields = {
        "name": found["name"],
        "description": found["description"],
        "version": str(found["definitionVersion"]),
        "trigger": _trigger(found),
        "state": state,
        "tenant": found["tenantId"],
        "registered": f"{_moment(found['registeredAt'])} by {found['registeredBy']}",
        "file": found["sourceFile"],
    }
    print_table(fields_table((field, value) for field, value in fields.items() if value is not None))
    click.echo()
    _print_json(found["definition"])


@workflow.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@server_options
def register(url: str, token: str | None, files: tuple[str, ...]) -> None:
    """Register what files define: each a workflow, or a list of them; - is standard input."""
    sources = read_files(files)
    client = Client(url, token)
    for place, source in sources:
        made, is_new = run(_register(client, source, place))
        click.echo(f"{made['name']} is {'registered' if is_new else 'as it was'}, version {made['definitionVersion']}")


@workflow.command("run")
@click.argument("name")
@click.option(
    "--context",
    callback=json_value,
    metavar="JSON",
    help="What the run begins with: an object, @file, or - for standard input.",
)
@click.option("--key", help="The same key of the same workflow is the same run.")
@click.option("--watch", "watched", is_flag=True, help="Show its steps until it ends.")
@_JSON
@server_options
def start(
    url: str,
    token: str | None,
    name: str,
    context: tuple[Any] | None,
    key: str | None,
    watched: bool,
    as_json: bool,
) -> None:
    """Begin a run of a workflow; the status is 1 when it has failed at once, or while it was watched."""
    if key is not None and not key.isprintable():
        raise click.BadParameter("it must not contain control characters", param_hint="--key")
    client = Client(url, token)
    body = context[0] if context else {}
    made = run(client.rest("POST", f"{_path(name)}/run", body, {} if key is None else {"Idempotency-Key": key}))
    if as_json and not watched:
        _print_json(made)
    else:
        click.echo(told(made))
    if watched:
        raise SystemExit(run(watch_run(client, made["id"])))
    if made["status"] == "Failed":
        raise SystemExit(1)


@workflow.command()
@click.option("--workflow", "name", help="Of this workflow.")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(["Running", "Paused", "Completed", "Failed"], case_sensitive=False),
    help="In this state; again for more.",
)
@click.option("--most", default=20, show_default=True, type=click.IntRange(1, 100), help="The newest so many.")
@_JSON
@server_options
def runs(url: str, token: str | None, name: str | None, status: tuple[str, ...], most: int, as_json: bool) -> None:
    """List the newest runs."""
    wanted = [("first", str(most)), *(("status", one) for one in status)]
    if name is not None:
        wanted.append(("workflow", name))
    page = run(Client(url, token).rest("GET", f"/workflows/runs?{urlencode(wanted)}"))
    if as_json:
        _print_json(page["runs"])
        return
    rows = (
        (
            (one["id"], f"[bold]{one['status'].lower()}[/bold]", _time(one["startedAt"]), escape(one["workflow"])),
            [note(one_line(error), is_cut=True) for error in one["errors"]],
        )
        for one in page["runs"]
    )
    print_list(("run", "state", "began, UTC", "workflow"), rows)
    if page["hasMore"]:
        click.echo("… and more; see --most", err=True)


@workflow.command()
@click.argument("run_id", metavar="RUN")
@_JSON
@server_options
def status(url: str, token: str | None, run_id: str, as_json: bool) -> None:
    """Show a run as it stands: its steps, its errors in full, and its context."""
    found = run(Client(url, token).rest("GET", _run_path(run_id)))
    if as_json:
        _print_json(found)
        return
    console = Console(highlight=False)
    click.echo(f"{found['id']} is {found['status'].lower()}")
    console.print(Trimmed(steps_table(found)))
    for error in _errors(found):
        console.print(f"\n[red]{escape(error.strip())}[/red]", soft_wrap=True)
    click.echo("\ncontext:")
    console.print_json(data=found["context"])


@workflow.command()
@click.argument("run_id", metavar="RUN")
@server_options
def watch(url: str, token: str | None, run_id: str) -> None:
    """Show a run's steps until it ends; the status is 1 when it fails."""
    raise SystemExit(run(watch_run(Client(url, token), run_id)))


@workflow.command()
@click.argument("run_id", metavar="RUN")
@click.option("--reason", help="Kept in its errors.")
@server_options
def cancel(url: str, token: str | None, run_id: str, reason: str | None) -> None:
    """End a run, and the jobs that it waits for."""
    click.echo(told(run(Client(url, token).rest("POST", f"{_run_path(run_id)}/cancel", {"reason": reason}))))


@workflow.command()
@click.argument("run_id", metavar="RUN")
@server_options
def retry(url: str, token: str | None, run_id: str) -> None:
    """Go on with a run that has failed, from the step that failed."""
    click.echo(told(run(Client(url, token).rest("POST", f"{_run_path(run_id)}/retry"))))


@workflow.command()
@click.argument("name")
@server_options
def remove(url: str, token: str | None, name: str) -> None:
    """Let no run of it begin any more; those under way go on."""
    run(Client(url, token).rest("DELETE", _path(name)))
    click.echo(f"{name} is removed")


@workflow.command()
@click.argument("name")
@server_options
def pause(url: str, token: str | None, name: str) -> None:
    """Let neither its schedule nor events begin runs; people can."""
    _change(url, token, name, "pause")


@workflow.command()
@click.argument("name")
@server_options
def resume(url: str, token: str | None, name: str) -> None:
    """End a pause of a workflow."""
    _change(url, token, name, "resume")


def begun_by(trigger: Any) -> str:
    """A definition's trigger, in a few words."""
    if not isinstance(trigger, dict) or "Manual" in trigger:
        return "people"
    if "OnEvent" in trigger:
        return f"{trigger['OnEvent']['model']} {trigger['OnEvent']['event_type']}"
    schedule = trigger["Schedule"]
    return f"{schedule['cron']} {schedule.get('timezone', 'UTC')}"


def told(found: Any) -> str:
    """A run in one line."""
    why = "".join(f": {one_line(error)}" for error in found["errors"][-1:])
    return f"{found['id']} is {found['status'].lower()}{why}"


def _trigger(found: Any) -> str:
    """What begins a workflow, and when next."""
    on = "on " if isinstance(found["trigger"], dict) and "OnEvent" in found["trigger"] else ""
    next_at = f", next {_moment(found['nextAt'])}" if found["nextAt"] else ""
    return f"{on}{begun_by(found['trigger'])}{next_at}"


def _errors(found: Any) -> list[str]:
    """A run's errors, and those of its steps that have not become the run's."""
    steps = (f"{step['name']}: {step['error']}" for step in found["steps"] if step["error"])
    return [*found["errors"], *(error for error in steps if error not in found["errors"])]


async def _register(client: Client, source: Any, place: str) -> tuple[Any, bool]:
    """The workflow, and whether that has changed it."""
    before, name = None, source.get("name") if isinstance(source, dict) else None
    if isinstance(name, str) and name.isprintable():  # else it is refused, with its place
        before = (await client.graphql(_VERSION, {"name": name}))["workflow"]
    made = await client.rest("POST", "/workflows", source, at=place)
    return made, before != {"id": made["id"], "version": made["definitionVersion"]}


def _change(url: str, token: str | None, name: str, verb: str) -> None:
    found = run(Client(url, token).rest("POST", f"{_path(name)}/{verb}"))
    click.echo(f"{found['name']} is {'paused' if found['isPaused'] else 'open'}")


def _path(name: str) -> str:
    if name in NO_NAMES:  # they would be another route
        raise click.ClickException(f"no workflow can be called {name!r}")
    return f"/workflows/{segment('workflow', name)}"


def _run_path(run_id: str) -> str:
    return f"/workflows/runs/{segment('run', run_id)}"


def _moment(at: str) -> str:
    return f"{_time(at)} UTC"


def _time(at: str) -> str:
    return at[:19].replace("T", " ")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
