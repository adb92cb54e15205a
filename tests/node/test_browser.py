"""A real Chromium on the pages: GraphiQL from the package, and the example."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, token
from tests.node.conftest import CHROMIUM, HERE, NEEDS_CHROMIUM, NEEDS_NODE

pytestmark = [pytest.mark.node, NEEDS_NODE, NEEDS_CHROMIUM, pytest.mark.timeout(120)]
EXAMPLE = HERE.parents[1] / "examples" / "watch.html"


@contextlib.asynccontextmanager
async def looking(server: Server, page: str, folder: Path) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """What the browser says, a word at a time."""
    process = await asyncio.create_subprocess_exec(
        *("node", "browser.mjs", page, server.url, token(), str(folder)),
        cwd=HERE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "CHROMIUM": CHROMIUM or "chromium"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    out = process.stdout

    async def word() -> Any:
        text = await asyncio.wait_for(out.readline(), 60)
        assert text, (await process.communicate())[1].decode()
        return json.loads(text)

    try:
        yield word
        assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def test_graphiql_runs_with_nothing_from_elsewhere(server: Server, packages: None, tmp_path: Path) -> None:
    worker = await server.mint("media-gen")
    async with looking(server, "graphiql", tmp_path) as word:
        assert "Paste a token" in (await word())["without"]
        said = await word()
        assert (said["address"], said["who"][:5]) == (f"{server.url}/graphql", "alice")
        job_id = (await word())["id"]
        assert (await word())["watching"]
        [job] = await worker.lease("media-gen")
        assert job["id"] == job_id
        await worker.report("complete", job, result={"ok": True})
        assert "SUCCEEDED" in (await word())["end"]
        assert await word() == {"elsewhere": [], "broken": []}


async def test_the_example_shows_a_bar_to_the_end(server: Server, packages: None, tmp_path: Path) -> None:
    worker = await server.mint("media-gen")
    async with looking(server, str(EXAMPLE), tmp_path) as word:
        job_id = (await word())["id"]
        [job] = await worker.lease("media-gen")
        assert job["id"] == job_id
        await worker.report("progress", job, percent=0.5, message="half way")
        assert (await word())["half"] == "half way"
        await worker.report("complete", job, result={"asset": "video.mp4"})
        assert json.loads((await word())["end"]) == {"asset": "video.mp4"}
        assert await word() == {"elsewhere": [], "broken": []}


async def test_the_page_and_its_parts_are_served_as_they_should_be(server: Server) -> None:
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with server.http.get(f"{server.url}/graphql", headers=html) as answer:
        page = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    names = [part.split('"')[0] for part in page.split("graphql/assets/")[1:]]
    assert sorted(name.rpartition(".")[2] for name in names) == ["css", "js"]
    for name in [*names, "LICENSES.txt"]:
        async with server.http.get(f"{server.url}/graphql/assets/{name}") as answer:
            assert (answer.status, "immutable" in answer.headers["Cache-Control"]) == (200, True)
            assert len(await answer.read()) == int(answer.headers["Content-Length"]) > 1_000
    for name in ("index.html", "nothing.js", "..%2Fapp.py", "__init__.py"):
        assert (await server.call("GET", f"/graphql/assets/{name}"))[0] == 404
    assert (await server.call("GET", "/graphql?query={__typename}", headers=html))[0] == 401


async def test_pages_of_other_origins_may_call_when_they_are_named(make_server: Any) -> None:
    server = await make_server(allowed_origins=("https://app.example",))
    for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        async with server.http.options(f"{server.url}/graphql", headers=asked) as answer:
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        async with server.http.get(f"{server.url}/healthz", headers={"Origin": origin}) as answer:
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
