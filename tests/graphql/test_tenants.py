"""A tenant can neither see nor guess another's job, through any door."""

import base64
from typing import Any

import pytest

from tests.conftest import Server, WorkerClient, admin, bearer, token
from tests.graphql.helpers import as_admin, ask, refused, subscribed

ABSENT = "01900000-0000-7000-8000-000000000000"


class World:
    """Two tenants with a job each, one of them known by everything about it."""

    def __init__(self, server: Server, theirs: str, mine: str, worker: WorkerClient) -> None:
        self.server, self.theirs, self.mine, self.worker = server, theirs, mine, worker


@pytest.fixture
async def world(server: Server) -> World:
    """`theirs` is acme's: dead, with an idempotency key, an error and a payload that must not leak."""
    worker = await server.mint("*")
    theirs = await server.enqueue(
        "secret-queue", "secret-kind", headers=bearer(tenant_id="acme"), payload="SECRET", idempotencyKey="secret-key"
    )
    [job] = await worker.lease("secret-queue")
    await worker.report("fail", job, error="SECRET error", retryable=False)
    mine = await server.enqueue("q", headers=bearer(tenant_id="other"))
    return World(server, theirs, mine, worker)


CALLERS: dict[str, dict[str, str]] = {
    "another tenant": bearer(tenant_id="other"),
    "another tenant's admin": admin(tenant_id="other"),
    "somebody without a tenant": bearer(),
    "an operator acting for another": admin() | {"X-Tenant-ID": "other"},
}


@pytest.mark.parametrize("who", CALLERS)
async def test_every_query_is_blind_to_it(world: World, who: str) -> None:
    server, headers = world.server, CALLERS[who]
    cursor = base64.urlsafe_b64encode(f"job:{world.theirs}".encode()).decode().rstrip("=")
    everything = "id queue kind payload error result events { data } attemptHistory { error } waitingFor { message }"
    for query in (
        f'{{ job(id: "{world.theirs}") {{ {everything} }} }}',
        f"{{ jobs {{ nodes {{ {everything} }} totalCount {{ value }} }} }}",
        f'{{ jobs(filter: {{idempotencyKey: "secret-key"}}) {{ nodes {{ {everything} }} totalCount {{ value }} }} }}',
        f'{{ jobs(filter: {{error: "SECRET"}}) {{ nodes {{ {everything} }} totalCount {{ value }} }} }}',
        f'{{ jobs(filter: {{queue: "secret-queue"}}) {{ nodes {{ {everything} }} totalCount {{ value }} }} }}',
        f'{{ jobs(filter: {{kind: "secret-kind"}}) {{ nodes {{ {everything} }} totalCount {{ value }} }} }}',
        f"{{ jobs(filter: {{status: [DEAD]}}) {{ nodes {{ {everything} }} totalCount {{ value }} }} }}",
        f'{{ jobs(before: "{cursor}") {{ nodes {{ {everything} }} }} }}',
        f"{{ jobs(orderBy: OLDEST_FIRST) {{ nodes {{ {everything} }} }} }}",
        "{ queues { nodes { name depth { dead } } } }",
        f'{{ events(streamId: "{world.theirs}") {{ nodes {{ streamId data job {{ {everything} }} }} }} }}',
        "{ events { nodes { streamId data } } }",
    ):
        told = str(await ask(server, query, headers))
        assert world.theirs not in told, query
        assert "secret" not in told.lower(), query
    queue = await ask(server, '{ queue(name: "secret-queue") { depth { dead queued } workers { id } } }', headers)
    assert queue["queue"]["depth"] == {"dead": 0, "queued": 0}
    refusal = await refused(server, '{ jobs(filter: {tenantId: "acme"}) { nodes { id } } }', headers)
    assert refusal == "FORBIDDEN", "the same for a tenant that is not there"
    assert await refused(server, '{ jobs(filter: {tenantId: "nobody"}) { nodes { id } } }', headers) == refusal


@pytest.mark.parametrize("who", CALLERS)
async def test_every_mutation_answers_as_if_it_were_not_there(world: World, sql: Any, who: str) -> None:
    server, headers = world.server, CALLERS[who]
    events = await sql.fetchval("SELECT count(*) FROM events")
    for name, fields in (("retryJob", "id"), ("cancelJob", "id"), ("jobToken", "token")):
        query = f"mutation ($id: ID!) {{ {name}(id: $id) {{ {fields} }} }}"
        answers = [await server.graphql(query, {"id": job_id}, headers=headers) for job_id in (world.theirs, ABSENT)]
        told = [str(a).replace(world.theirs, ABSENT) for a in answers]
        assert told[0] == told[1], "somebody else's and nobody's are the same"
        assert "NOT_FOUND" in told[0]
    for name in ("retryJobs", "cancelJobs"):
        query = f'mutation {{ {name}(filter: {{queue: "secret-queue"}}) {{ count ids }} }}'
        answer = await server.graphql(query, headers=headers)
        assert (answer.get("data") or {}).get(name) in (None, {"count": 0, "ids": []})
    assert await sql.fetchval("SELECT count(*) FROM events") == events
    again = await server.enqueue("secret-queue", "secret-kind", headers=headers, idempotencyKey="secret-key")
    assert again != world.theirs, "the same key of another tenant is another key"
    assert (await as_admin(server, f'{{ job(id: "{world.theirs}") {{ status }} }}'))["job"]["status"] == "DEAD"


@pytest.mark.parametrize("claims", [{"tenant_id": "other"}, {"tenant_id": "other", "role": "admin"}, {}])
async def test_every_subscription_is_blind_to_it(world: World, claims: Any) -> None:
    server, authorization = world.server, f"Bearer {token(**claims)}"
    watch = "subscription ($id: ID!) { jobProgress(id: $id) { status } }"
    for job_id in (world.theirs, ABSENT):
        async with subscribed(server, watch, authorization=authorization, id=job_id) as following:
            assert await following.next() == {"error": "NOT_FOUND"}
    follow = 'subscription { jobEvents(after: "0.0") { jobId } }'
    async with subscribed(server, follow, authorization=authorization) as following:
        mine = await server.enqueue("q", headers={"Authorization": authorization})
        seen = {(await following.next())["jobEvents"]["jobId"]}
        while mine not in seen:
            seen.add((await following.next())["jobEvents"]["jobId"])
        assert world.theirs not in seen
    stats = 'subscription { queueStats(queues: ["secret-queue"]) { name depth { dead } } }'
    async with subscribed(server, stats, authorization=authorization) as following:
        assert (await following.next())["queueStats"] == [{"name": "secret-queue", "depth": {"dead": 0}}]


async def test_their_tokens_are_not_there_either(world: World) -> None:
    minted = await world.server.mint("*", headers=admin(tenant_id="acme"))
    headers = admin(tenant_id="other")
    listed = await ask(world.server, "{ workerTokens { nodes { id } } }", headers)
    assert listed["workerTokens"]["nodes"] == []
    revoke = "mutation ($id: ID!) { revokeWorkerToken(id: $id) { id } }"
    assert await refused(world.server, revoke, headers, id=minted.token_id) == "NOT_FOUND"
    pauses = "{ events(streams: [QUEUE, WORKER_TOKEN]) { nodes { data } } }"
    assert (await ask(world.server, pauses, headers))["events"]["nodes"] == []
