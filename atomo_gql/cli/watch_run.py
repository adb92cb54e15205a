"""A run of a workflow, live, in the terminal."""

import asyncio
from datetime import datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from atomo_gql.cli.http import Client, segment
from atomo_gql.cli.lines import Trimmed, one_line

_PAUSE_SECS = 0.5  # between two looks
_STYLES = {"completed": "green", "failed": "red", "cancelled": "red", "passed": "yellow", "pending": "dim"}


async def watch_run(client: Client, run_id: str) -> int:
    """Show the steps until the run ends; the exit status: 0 completed, 1 failed."""
    console = Console(highlight=False)
    path = f"/workflows/runs/{segment('run', run_id)}"
    async with client.lasting() as server:
        found = await server.rest("GET", path)
        with Live(_shown(found), console=console, auto_refresh=False, transient=True) as live:
            while found["status"] not in ("Completed", "Failed"):
                await asyncio.sleep(_PAUSE_SECS)
                found = await server.rest("GET", path)
                if console.is_terminal:
                    live.update(_shown(found), refresh=True)
    console.print(_shown(found))
    for error in found["errors"]:
        console.print(f"[red]{escape(one_line(error))}[/red]", soft_wrap=True)
    return 0 if found["status"] == "Completed" else 1


def steps_table(found: Any) -> Table:
    """The steps of a run, in order."""
    table = Table("step", "state", "took", "job", "", box=None, pad_edge=False, header_style="dim")
    table.columns[2].justify = "right"
    for column in (1, 2, 3):
        table.columns[column].no_wrap = True
    for step in found["steps"]:
        state = step["status"] + (f" ({step['attempt']})" if step["attempt"] > 1 else "")
        table.add_row(
            escape(step["name"]),
            Text(state, _STYLES.get(step["status"], "bold")),
            _took(step),
            step["jobId"] or "",
            _words(step),
        )
    return table


def _shown(found: Any) -> Group:
    line = Text.assemble(found["workflow"], "  ", (found["status"].lower(), "bold"))
    return Group(line, Trimmed(steps_table(found)))


def _took(step: Any) -> str:
    if step["endedAt"] is None:
        return ""
    took = datetime.fromisoformat(step["endedAt"]) - datetime.fromisoformat(step["beganAt"])
    return f"{took.total_seconds():,.1f} s"


def _words(step: Any) -> Text:
    until = f"until {step['until'][:19].replace('T', ' ')}" if step["until"] else ""
    error = one_line(step["error"] or "").removeprefix(f"job {step['jobId']} is dead: ")  # it has its own column
    return Text("; ".join(part for part in (until, error) if part), "dim", no_wrap=True, overflow="ellipsis")
