"""The commands for people who look after jobs, run as they run them."""

import asyncio
import json
import sys
from typing import Any

from atomo_gql.domain.errors import Unavailable
from tests.conftest import Server, token


async def run(server: Server, *arguments: str, role: str | None = "admin") -> tuple[int | None, str, str]:
    """Status, standard output and standard error of a command."""
    return await run_at(server.url, *arguments, role=role)


async def run_at(url: str, *arguments: str, role: str | None = "admin") -> tuple[int | None, str, str]:
    """The same, of whatever server there may be."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", *arguments),
        env={"PATH": "", "ATOMO_URL": url, "ATOMO_TOKEN": token(role=role), "COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_jobs_are_listed_cancelled_and_retried(server: Server) -> None:
    job_id = await server.enqueue("media-gen", "video.generate")
    status, out, _ = await run(server, "job", "list", "--queue", "media-gen", "--status", "queued")
    first, why = out.splitlines()
    assert (status, first) == (0, f"{job_id}  queued       0/5  media-gen  video.generate")
    assert why.strip() == "no worker has asked for its queue lately"
    assert (await run(server, "job", "list", "--status", "dead"))[:2] == (0, "")
    status, out, _ = await run(server, "job", "cancel", job_id, "--reason", "not needed")
    assert (status, out) == (0, f"{job_id} is dead: cancelled by user:alice: not needed\n")
    assert (await run(server, "job", "retry", job_id))[:2] == (0, f"{job_id} is queued\n")
    status, out, _ = await run(server, "job", "list", "--json")
    assert [one["id"] for one in json.loads(out)] == [job_id]
    status, _, err = await run(server, "job", "retry", "01900000-0000-7000-8000-000000000000")
    assert (status, "there is no job" in err) == (1, True)


async def test_a_search_in_errors_goes_on_until_it_has_looked_at_all(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr("atomo_gql.service.jobs.MOST_SEARCHED", 2)
    for _ in range(9):
        await server.enqueue("q")
    worker = await server.mint("q")
    jobs = await worker.lease("q", capacity=9)
    for job in jobs:
        error = "needle" if job is jobs[0] or job is jobs[4] else "hay"
        await worker.report("fail", job, error=error, retryable=False)
    wanted = [jobs[4]["id"], jobs[0]["id"]]
    status, out, err = await run(server, "job", "list", "--error", "needle")
    assert (status, [line.split()[0] for line in out.splitlines()[::2]], err) == (0, wanted, "")
    status, out, err = await run(server, "job", "list", "--error", "needle", "--most", "1")
    assert (status, out.split()[0], err) == (0, wanted[0], "… and more; see --most\n")
    real, calls = server.application.services.jobs.page, 0

    async def page(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (3, 4):
            raise Unavailable("the database is away")
        return await real(*arguments, **more)

    monkeypatch.setattr(server.application.services.jobs, "page", page)
    status, out, _ = await run(server, "job", "list", "--error", "needle", "--json")
    assert ([one["id"] for one in json.loads(out)], calls) == (wanted, 5 + 2)


async def test_a_token_of_a_kind_ends_and_is_followed(server: Server) -> None:
    status, out, _ = await run(
        server, "worker-token", "create", "w", "--queue", "q", "--kind", "resize", "--expires-in", "12h"
    )
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (status, shown["queues"], shown["kinds"]) == (0, "q", "resize")
    status, out, _ = await run(server, "worker-token", "rotate", shown["id"], "--grace", "1m", "--quiet")
    assert (status, out.startswith("wkr_")) == (0, True)
    found = json.loads((await run(server, "worker-token", "list", "--json"))[1])
    assert [one["kinds"] for one in found] == [["resize"], ["resize"]]
    status, _, err = await run(server, "worker-token", "create", "w", "--queue", "q", "--expires-in", "soon")
    assert (status, "90s, 15m, 12h or 30d" in err) == (2, True)


async def test_queues_are_listed_paused_and_resumed(server: Server) -> None:
    await server.enqueue("media-gen")
    assert (await run(server, "queue", "pause", "media-gen"))[:2] == (0, "media-gen is paused\n")
    status, out, _ = await run(server, "queue", "list")
    head, line = out.splitlines()
    assert (status, line.split()[:6]) == (0, ["media-gen", "paused", "1", "0", "0", "0"])
    assert len(head) <= 80
    assert (await run(server, "queue", "resume", "media-gen"))[:2] == (0, "media-gen is open\n")
    assert not json.loads((await run(server, "queue", "list", "--json"))[1])[0]["isPaused"]
    status, _, err = await run(server, "queue", "pause", "media-gen", role=None)
    assert (status, err) == (1, 'Error: this needs a token with the claim role: "admin"\n')
