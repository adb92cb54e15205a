"""A job's progress, live, in the terminal."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from atomo_gql.cli.http import Client
from atomo_gql.cli.lines import one_line

_PROGRESS = """
subscription ($id: ID!) { jobProgress(id: $id) { status attempts percent message result error } }"""


async def watch_job(client: Client, job_id: str) -> int:
    """Show a bar until the job ends; the exit status: 0 succeeded, 1 dead."""
    columns = (
        TextColumn("[bold]{task.fields[status]:<9}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    console = Console(highlight=False)
    last: dict[str, Any] = {}
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(job_id, total=1.0, status="", message="")
        async for data in client.subscribe(_PROGRESS, {"id": job_id}):
            last = data["jobProgress"]
            done = 1.0 if last["status"] == "SUCCEEDED" else _fraction(last["percent"])
            progress.update(bar, completed=done, status=last["status"].lower(), message=_words(last))
    if last.get("status") == "SUCCEEDED":
        console.print("result:", end=" ")
        console.print_json(data=last["result"], indent=None)
        return 0
    console.print(f"[red]dead:[/red] {escape(str(last.get('error')))}")
    return 1


def _fraction(percent: float | None) -> float:
    """The bar's place: workers count to 1, or to 100."""
    if percent is None:
        return 0.0
    return min(1.0, max(0.0, percent / 100 if percent > 1 else percent))


def _words(update: dict[str, Any]) -> str:
    match update["status"]:
        case "QUEUED" if update["error"]:
            return escape(f"attempt {update['attempts']} failed: {one_line(update['error'], 80)}; waits for its retry")
        case "QUEUED":
            return "waits for a worker"
        case "LEASED":
            return escape((update["message"] or "")[:80])
        case _:
            return ""
