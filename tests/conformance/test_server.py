"""The kit passes on our server, and finds what is wrong with a broken one."""

import asyncio
import json
import sys
from typing import Any

import pytest

from atomo_gql.conformance.peer import Peer
from atomo_gql.conformance.rules import Verdict, find
from atomo_gql.conformance.server import SERVER
from tests.conformance.tamper import Exchange, Tamper, broken
from tests.conftest import MakeServer, Server, token


async def test_our_server_keeps_every_rule(make_server: MakeServer) -> None:
    server = await make_server(reclaim_interval=0.5)
    minted = await server.mint("conformance")
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "conformance", "--json"),
        *("--url", server.url, "--token", minted.token, "--jwt", token()),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await done.communicate()
    found = json.loads(out)
    assert [f for f in found if f["verdict"] != "kept"] == []
    assert len(found) == len(SERVER.rules)
    assert done.returncode == 0


def _lets_anybody_in(e: Exchange) -> None:
    e.memory.setdefault("token", e.headers.get("X-Worker-Token", ""))
    e.headers["X-Worker-Token"] = e.memory["token"]


def _counts_attempts_from_0(e: Exchange) -> None:
    for job in (e.answer or {}).get("jobs", []):
        job["attempts"] -= 1


def _leases_twice(e: Exchange) -> None:
    if e.path == "/jobs/lease" and e.status == 200:
        if not e.answer["jobs"] and e.memory.get("last"):
            e.answer = {"jobs": e.memory.pop("last")}
        else:
            e.memory["last"] = e.answer["jobs"]


def _serves_the_lowest_first(e: Exchange) -> None:
    if e.path == "/jobs/lease" and e.status == 200:
        e.answer["jobs"].reverse()


def _gives_more_than_asked(e: Exchange) -> None:
    if e.path == "/jobs/lease" and isinstance(e.body, dict) and e.body.get("queues"):
        e.body["capacity"] = 3


def _never_waits(e: Exchange) -> None:
    if e.path == "/jobs/lease" and isinstance(e.body, dict):
        e.body.pop("waitSecs", None)


def _takes_stale_reports(e: Exchange) -> None:
    if e.status == 409:
        e.status = 204


def _counts_a_release(e: Exchange) -> None:
    if e.path.endswith("/release"):
        e.path = e.path.replace("/release", "/fail")
        e.body["retryAfterSecs"] = 0


def _forgets_requests(e: Exchange) -> None:
    if isinstance(e.body, dict):
        e.body.pop("requestId", None)


def _lets_one_spoil_the_rest(e: Exchange) -> None:
    if e.path == "/jobs/reports" and any(o["status"] == 409 for o in (e.answer or {}).get("outcomes", [])):
        e.status, e.answer = 409, {"status": 409, "title": "t", "detail": "d", "code": "LEASE_LOST"}
        e.media_type = "application/problem+json"


def _trips_over_bad_input(e: Exchange) -> None:
    if e.status == 400:
        e.status, e.answer, e.media_type = 500, {"error": "oops"}, "application/json"


def _loses_results(e: Exchange) -> None:
    if e.path.endswith("/complete") and isinstance(e.body, dict):
        e.body.pop("result", None)


def _ignores_retry_after(e: Exchange) -> None:
    if isinstance(e.body, dict):
        e.body.pop("retryAfterSecs", None)


BROKEN: dict[str, tuple[str, Tamper | None, Tamper | None]] = {
    "lets anybody in": ("S1", _lets_anybody_in, None),
    "counts attempts from 0": ("S2", None, _counts_attempts_from_0),
    "leases twice": ("S3", None, _leases_twice),
    "serves the lowest first": ("S4", None, _serves_the_lowest_first),
    "gives more than asked": ("S5", _gives_more_than_asked, None),
    "never waits": ("S6", _never_waits, None),
    "takes stale reports": ("S8", None, _takes_stale_reports),
    "loses results": ("S9", _loses_results, None),
    "counts a release": ("S11", _counts_a_release, None),
    "trips over bad input": ("S14", None, _trips_over_bad_input),
    "forgets requests": ("S16", _forgets_requests, None),
    "lets one spoil the rest": ("S17", None, _lets_one_spoil_the_rest),
    "ignores retryAfterSecs": ("S19", _ignores_retry_after, None),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_server_is_found_out(server: Server, name: str) -> None:
    rule_id, before, after = BROKEN[name]
    minted = await server.mint("conformance")
    [rule] = SERVER.chosen([rule_id])
    async with (
        broken(server.url, before=before, after=after) as url,
        Peer(url, minted.token, token(), "conformance") as peer,
    ):
        await peer.call("/jobs/lease", {"queues": ["conformance"]})
        finding = await find(rule, peer)
    assert finding.verdict is Verdict.BROKEN, finding
    assert finding.detail


async def test_without_a_jwt_what_needs_jobs_is_skipped(server: Server) -> None:
    minted = await server.mint("conformance")
    async with Peer(server.url, minted.token, None, "conformance") as peer:
        found: list[Any] = [await find(rule, peer) for rule in SERVER.chosen(["S1", "S2", "S15"])]
    assert [f.verdict for f in found] == [Verdict.KEPT, Verdict.SKIPPED, Verdict.KEPT]
    assert "--jwt" in found[1].detail
