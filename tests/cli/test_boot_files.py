"""Definitions and bindings in files, read by `atomo-gql serve` when it starts."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from atomo_gql.service.boot import BrokenFile, register_files
from tests.conftest import SECRET, Server, admin, bearer, until

BINDING = {"model": "Deal", "event": "updated", "action": "deal.notify"}


def _flow(name: str, *keys: str) -> dict[str, Any]:
    return {"name": name, "steps": [{"name": k, "action": {"SetVariable": {"key": k, "value": 1}}} for k in keys]}


class Boot:
    """Two folders, and servers that read them when they start."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self._folder = folder
        self._dsn = dsn
        for name in ("workflows", "actions"):
            (folder / name).mkdir()

    def write(self, name: str, content: Any) -> Path:
        """A file, as it stands when it is bytes."""
        file = self._folder / name
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return file

    async def _start(self) -> asyncio.subprocess.Process:
        kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        more = {
            "DATABASE_URL": self._dsn,
            "JWT_SECRET": SECRET,
            "ATOMO_DATA_DIR": str(self._folder),
            "ATOMO_WORKFLOWS_DIR": str(self._folder / "workflows"),
            "ATOMO_ACTIONS_DIR": str(self._folder / "actions"),
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atomo_gql", "serve", "--port", "0"),
            env={**kept, **more},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    @contextlib.asynccontextmanager
    async def server(self) -> AsyncIterator["Served"]:
        """A server that has started."""
        process = await self._start()
        assert process.stdout is not None
        log = ""
        try:
            while not (found := re.search(r"listening on (\S+)", log)):
                line = await process.stdout.readline()
                assert line, log
                log += line.decode()
            async with aiohttp.ClientSession(found[1]) as http:
                yield Served(http, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()

    async def refused(self) -> str:
        """What a server says that does not start."""
        process = await self._start()
        out, _ = await asyncio.wait_for(process.communicate(), 240)
        assert process.returncode == 1, out.decode()
        return out.decode()


class Served:
    """A server, and what it wrote until it listened."""

    def __init__(self, http: aiohttp.ClientSession, log: str) -> None:
        self._http = http
        self.log = log

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON of an answer."""
        async with self._http.request(method, path, json=body, headers=headers or bearer()) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json() if answer.status != 204 else None

    async def found(self) -> dict[str, tuple[int, str]]:
        """The version and the file of each workflow."""
        listed = (await self.call("GET", "/workflows"))["workflows"]
        return {one["name"]: (one["definitionVersion"], one["sourceFile"]) for one in listed}


@pytest.fixture
def boot(tmp_path: Path, dsn: str) -> Boot:
    """Empty folders, and the test's database."""
    return Boot(tmp_path, dsn)


_JOB = {"name": "s", "action": {"Job": {"queue": "q", "kind": ""}}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("workflows/a.json", b'{\n  "name": "f",\n  "steps": [,]\n}', "a.json: line 3, column 13: "),
        ("workflows/a.json", b"", "a.json: line 1, column 1: "),
        ("workflows/a.json", b'{"name": "\xff"}', "a.json: line 1, column "),
        ("workflows/a.json", {"name": "f", "steps": [_JOB]}, "a.json: steps[0].action.Job.kind must not be blank"),
        ("workflows/a.json", [_flow("f", "a"), {"name": "g"}], "a.json[1]: steps is required"),
        ("workflows/a.json", [_flow("f", "a"), _flow("f", "b")], "a.json: workflow 'f' is defined in a.json, too"),
        ("workflows/z.json", _flow("good", "a"), "z.json: workflow 'good' is defined in good.json, too"),
        ("workflows/a.json", _flow("f", *["k" * 200] * 2), "a.json: steps[1].name must be unique"),
        ("actions/a.json", b"[1, 2", "a.json: line 1, column 6: "),
        ("actions/a.json", {**BINDING, "condition": {"changedAny": "stage"}}, "a.json: condition.changedAny must be"),
        ("actions/a.json", [BINDING, {**BINDING, "event": "won"}], "a.json[1]: event must be one of created"),
    ],
)
async def test_a_broken_file_stops_the_boot_with_its_name_and_reason(
    boot: Boot, sql: Any, name: str, content: Any, said: str
) -> None:
    boot.write("workflows/good.json", _flow("good", "a"))
    boot.write("actions/good.json", BINDING)
    file = boot.write(name, content)
    out = await boot.refused()
    assert f"Error: {file.parent}/{said}" in out
    assert "Traceback" not in out
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


async def test_a_file_that_cannot_be_read_stops_the_boot(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "workflows" / "a.json").mkdir()
    assert f"Error: {tmp_path}/workflows/a.json: Is a directory" in await boot.refused()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
async def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(server: Server, tmp_path: Path) -> None:
    closed = tmp_path / "workflows"
    closed.mkdir(mode=0o311)
    for folder in tmp_path.parents:  # pytest's own are for root alone
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o711)
    tmp_path.chmod(0o711)
    os.seteuid(65_534)
    try:
        with pytest.raises(BrokenFile, match="workflows: Permission denied"):
            await register_files(server.application.services, closed, None)
    finally:
        os.seteuid(0)


async def test_two_servers_that_boot_at_once_register_what_files_say_once(boot: Boot, sql: Any) -> None:
    boot.write("workflows/many.json", [_flow(f"f{n}", "a") for n in range(20)])
    boot.write("workflows/notes.txt", b"nobody reads this")
    boot.write("actions/many.json", [{**BINDING, "action": f"a{n}"} for n in range(20)])
    async with contextlib.AsyncExitStack() as stack:
        here, there = await asyncio.gather(*(stack.enter_async_context(boot.server()) for _ in range(2)))
        assert ": 20" in here.log
        expected = {f"f{n}": (1, "many.json") for n in range(20)}
        assert await here.found() == await there.found() == expected
        bindings = (await here.call("GET", "/actions"))["bindings"]
        assert sorted(one["action"] for one in bindings) == sorted(f"a{n}" for n in range(20))
    rows = await sql.fetch("SELECT stream::text, type::text, count(*) FROM events GROUP BY 1, 2 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("Binding", "registered", 20), ("Definition", "registered", 20)]


async def test_a_changed_file_is_a_new_version_and_runs_under_way_keep_theirs(boot: Boot) -> None:
    wait = {"name": "wait", "action": {"Job": {"queue": "q", "kind": "k", "wait": True}}}
    old, new = _flow("f", "old"), _flow("f", "new")
    for definition in (old, new):
        definition["steps"].insert(0, wait)
    boot.write("workflows/f.json", old)
    async with boot.server() as server:
        assert await server.found() == {"f": (1, "f.json")}
        before = await server.call("POST", "/workflows/f/run")
        token = (await server.call("POST", "/jobs/workers", {"name": "w", "queues": ["*"]}, **admin()))["token"]

    boot.write("workflows/f.json", new)
    async with boot.server() as server:
        assert await server.found() == {"f": (2, "f.json")}
        after = await server.call("POST", "/workflows/f/run")
        worker = {"X-Worker-Token": token}
        jobs = (await server.call("POST", "/jobs/lease", {"queues": ["q"], "capacity": 5}, **worker))["jobs"]
        for job in jobs:
            await server.call("POST", f"/jobs/{job['id']}/complete", {"leaseId": job["leaseId"]}, **worker)

        async def ended(run: Any) -> Any:
            found = await server.call("GET", f"/workflows/runs/{run['id']}")
            return found if found["status"] == "Completed" else None

        for run, version, key in ((before, 1, "old"), (after, 2, "new")):
            found = await until(lambda run=run: ended(run))  # type: ignore[misc]
            assert found["definitionVersion"] == version
            assert set(found["context"]) == {"job_id", "job_result", key}


async def test_what_a_file_no_longer_says_is_removed_and_what_was_registered_otherwise_stays(boot: Boot) -> None:
    boot.write("workflows/two.json", [_flow("one", "a"), _flow("two", "a")])
    gone = boot.write("workflows/gone.json", _flow("gone", "a"))
    bound = boot.write("actions/gone.json", [BINDING, {**BINDING, "action": "b"}])
    async with boot.server() as server:
        assert set(await server.found()) == {"one", "two", "gone"}
        await server.call("POST", "/workflows", _flow("by hand", "a"), **admin())
        await server.call("POST", "/actions", {**BINDING, "action": "by hand"}, **admin())

    boot.write("workflows/two.json", [_flow("two", "a")])
    gone.unlink()
    bound.unlink()
    boot.write("actions/kept.json", {**BINDING, "action": "b"})
    async with boot.server() as server:
        assert await server.found() == {"two": (1, "two.json"), "by hand": (1, None)}
        bindings = (await server.call("GET", "/actions"))["bindings"]
        assert [one["action"] for one in bindings] == ["b", "by hand"]

    gone = boot.write("workflows/gone.json", _flow("gone", "a"))
    async with boot.server() as server:
        assert (await server.found())["gone"] == (2, "gone.json")
        assert (await server.call("POST", "/workflows/gone/run"))["status"] == "Completed"
