"""Workflows and actions, and what tests ask of them."""

from typing import Any

from tests.conftest import Server, WorkerClient, admin, bearer
from tests.graphql.helpers import ask, subscribed

FILM = {
    "name": "film",
    "description": "Cut a film, and tell.",
    "timeout_secs": 3_600,
    "steps": [
        {"name": "title", "action": {"SetVariable": {"key": "title", "value": "{{ film.name }}!"}}},
        {
            "name": "cut",
            "action": {"Job": {"queue": "media", "kind": "cut", "payload": {"title": "{{ title }}"}, "wait": True}},
        },
        {
            "name": "tell",
            "condition": {"field": "film.quiet", "operator": "neq", "value": True},
            "action": {"Job": {"queue": "mail", "kind": "notify", "payload": {"of": "{{ job_result }}"}}},
        },
    ],
}
REGISTER = "mutation ($definition: JSON!) { registerWorkflow(definition: $definition) { id name version tenantId } }"
RUN = """mutation ($name: String!, $context: JSON, $key: String) {
  runWorkflow(name: $name, context: $context, idempotencyKey: $key) { id status stepsRun errors context } }"""
GET = "query ($id: ID!) { workflowRun(id: $id) { id status stepsRun errors version steps { name status } } }"
WATCH = "subscription ($id: ID!) { workflowRun(id: $id) { status version steps { name status } } }"

RECORD = """mutation ($model: String! = "Deal", $event: String! = "created", $id: ID! = "7", $data: JSON,
                      $previousData: JSON, $origin: String, $eventId: String) {
  recordEvent(model: $model, event: $event, id: $id, data: $data, previousData: $previousData, origin: $origin,
              eventId: $eventId) { eventId isNew } }"""
BIND = """mutation ($binding: JSON!) { registerBinding(binding: $binding) {
  id model event action queue condition input registeredBy isSetAside error tenantId } }"""
REMOVE = "mutation ($id: ID!) { removeBinding(id: $id) { id } }"
RESUME = "mutation ($id: ID!, $skip: Boolean! = false) { resumeBinding(id: $id, skip: $skip) { isSetAside error } }"
MAIL = {"model": "Deal", "event": "created", "action": "mail.send"}


def waiting(name: str = "wait", **more: Any) -> dict[str, Any]:
    """A workflow of one step, which waits for its job on the queue `media`."""
    job = {"queue": "media", "kind": "cut", "wait": True, "max_attempts": 1}
    return {"name": name, "steps": [{"name": "cut", "action": {"Job": job}}], **more}


async def register(server: Server, definition: Any, headers: dict[str, str] | None = None) -> Any:
    """A workflow; of an operator, unless somebody else is named."""
    return (await ask(server, REGISTER, headers or admin(), definition=definition))["registerWorkflow"]


async def run(
    server: Server, name: str, context: Any = None, headers: dict[str, str] | None = None, key: str | None = None
) -> Any:
    """A run that has begun; as alice, unless somebody else is named."""
    return (await ask(server, RUN, headers or bearer(), name=name, context=context, key=key))["runWorkflow"]


async def work(worker: WorkerClient, queue: str = "media", *, result: Any = None, error: str | None = None) -> Any:
    """The next job of a queue, completed, or failed for good."""
    [job] = await worker.lease(queue, waitSecs=30)
    if error is None:
        assert (await worker.report("complete", job, result=result))[0] == 204
    else:
        assert (await worker.report("fail", job, error=error, retryable=False))[0] == 200
    return job


async def ended(server: Server, run_id: str, *, authorization: str | None = None) -> Any:
    """A run once it has ended, as it was watched to its end."""
    told = None
    async with subscribed(server, WATCH, authorization=authorization, id=run_id) as watching:
        while (event := await watching.next()) is not None:
            told = event["workflowRun"]
    assert told is not None
    return told
