"""What docs/workflows.md, actions.md and examples-workflows.md show is so: their snippets run as they stand."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from atomo_gql import cli
from atomo_gql.api.rest.routes import ROUTES
from atomo_gql.domain import actions
from atomo_gql.domain.model_rules import parse_binding
from atomo_gql.domain.workflows import definition, parsing
from atomo_gql.domain.workflows.condition import Operator
from atomo_gql.domain.workflows.runs import RunStatus, StepStatus
from atomo_gql.service.boot import register_files
from atomo_gql.service.workflows import compiler, definitions, expressions, schedules, templates
from atomo_gql.service.workflows.filters import FILTERS
from atomo_gql.service.workflows.templates import Templates
from tests.conftest import SECRET, Server, admin, bearer, token

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("workflows", "actions", "examples-workflows")}
DEAL = {"deal": {"id": 7, "tags": ["a", "b"], "note": None}}


def _tested(page: str, name: str) -> list[str]:
    found = re.findall(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGES[page], re.DOTALL)
    assert found, f"{page}: {name}"
    return found


async def _run(server: Server, script: str, tmp_path: Path) -> list[str]:
    """The lines that a shell script of the docs prints."""
    script = script.replace("http://127.0.0.1:3000", server.url).replace(
        ".venv/bin/atomo-gql", f"{sys.executable} -m atomo_gql"
    )
    environment = {**os.environ, "JWT_SECRET": SECRET, "ATOMO_DATA_DIR": str(tmp_path), "JWT": token()}
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, err = (text.decode() for text in await process.communicate())
    assert process.returncode == 0, out + err
    return out.strip().splitlines()


@pytest.fixture
async def examples(server: Server) -> AsyncIterator[Server]:
    """A server that has read the examples."""
    await register_files(server.application.services, ROOT / "examples" / "workflows", ROOT / "examples" / "actions")
    yield server


async def test_the_first_workflow_runs_as_it_stands(server: Server, tmp_path: Path) -> None:
    [script] = _tested("workflows", "first run")
    registered, asked, said = await _run(server, script, tmp_path)
    assert orjson.loads(registered)["definitionVersion"] == 1
    assert asked == "Hello, Ada"
    assert said == "Hello, Ada. Nice to meet you."


async def test_the_first_action_fires_as_it_stands(server: Server, tmp_path: Path) -> None:
    [script] = _tested("actions", "first action")
    first, again, given = await _run(server, script, tmp_path)
    assert orjson.loads(first) == {"eventId": "order-7-paid", "isNew": True}
    assert orjson.loads(again) == {"eventId": "order-7-paid", "isNew": False}
    assert given == "{'number': 7, 'customer.email': 'ada@example.com'}"


async def test_the_examples_begin_as_they_are_called(examples: Server, tmp_path: Path) -> None:
    [script] = _tested("examples-workflows", "media pipeline")
    [answer] = await _run(examples, script, tmp_path)
    run = orjson.loads(answer)
    assert (run["status"], run["steps"][0]["status"]) == ("Paused", "waiting")
    [script] = _tested("examples-workflows", "order")
    [answer] = await _run(examples, script, tmp_path)
    assert orjson.loads(answer) == {"eventId": "order-7-paid", "isNew": True}
    [job] = await (await examples.mint("billing")).lease("billing", waitSecs=10)
    assert job["payload"]["input"] == {"number": 7, "total": 99, "customer.email": "ada@example.com"}


def test_what_is_shown_of_definitions_and_bindings_is_accepted(server: Server) -> None:
    parse = server.application.services.workflows.parse
    plain = {"name": "s", "action": {"SetVariable": {"key": "a", "value": 1}}}
    for text in _tested("workflows", "step"):
        parse({"name": "w", "steps": [orjson.loads(text)]})
    for text in _tested("workflows", "condition"):
        parse({"name": "w", "steps": [{**plain, "condition": orjson.loads(text)}]})
    for text in _tested("workflows", "trigger"):
        parse({"name": "w", "trigger": orjson.loads(text), "steps": [plain]})
    for text in _tested("actions", "binding"):
        parse_binding(orjson.loads(text))
    for text in re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        parse(orjson.loads(text))


async def test_the_payload_of_an_action_has_the_fields_that_are_shown(server: Server) -> None:
    await server.call("POST", "/actions", orjson.loads(_tested("actions", "binding")[0]), headers=admin())
    answer = await server.graphql(_tested("actions", "record")[0])
    assert answer == {"data": {"recordEvent": {"eventId": "order-8-paid", "isNew": True}}}
    [job] = await (await server.mint("billing")).lease("billing", waitSecs=10)
    assert set(job["payload"]) == set(orjson.loads(_tested("actions", "payload")[0]))
    assert job["payload"]["timestamp"].endswith("Z")


async def test_what_is_shown_in_graphql_can_be_asked(server: Server) -> None:
    steps = [{"name": "s", "action": {"Delay": {"seconds": 1000}}}]
    await server.call("POST", "/workflows", {"name": "welcome", "steps": steps}, headers=admin())
    _, run = await server.call("POST", "/workflows/welcome/run", {}, headers=bearer())

    async def ask(page: str, name: str, operation: str, **more: Any) -> Any:
        [text] = _tested(page, name)
        body = {"query": text, "operationName": operation, "variables": {"id": run["id"]}, **more}
        _, answer = await server.call("POST", "/graphql", body, headers=admin())
        return answer

    stopped = (await ask("workflows", "cancel and retry", "Stop"))["data"]["cancelWorkflowRun"]
    assert stopped == {"status": "FAILED", "errors": ["cancelled by user:root: the customer has left"]}
    [failed] = (await ask("workflows", "look back", "Failed"))["data"]["workflowRuns"]["nodes"]
    assert failed["id"] == run["id"]
    assert (await ask("workflows", "cancel and retry", "GoOn"))["data"]["retryWorkflowRun"] == {"status": "PAUSED"}
    story = (await ask("workflows", "look back", "Story"))["data"]["workflowRun"]
    assert [event["type"] for event in story["events"]] == [
        "RUN_STARTED",
        "STEP_WAITING",
        "CANCELLED",
        "RETRIED",
        "STEP_WAITING",
    ]
    assert (await ask("actions", "resume", "Aside"))["data"] == {"bindings": {"nodes": []}}
    refused = await ask("actions", "resume", "GoOn")
    assert refused["errors"][0]["extensions"]["code"] == "NOT_FOUND"


async def test_the_subscription_that_is_shown_tells_a_run_to_its_end(server: Server) -> None:
    steps = [{"name": "s", "action": {"SetVariable": {"key": "a", "value": 1}}}]
    await server.call("POST", "/workflows", {"name": "w", "steps": steps}, headers=admin())
    _, run = await server.call("POST", "/workflows/w/run", {}, headers=bearer())
    [text] = _tested("workflows", "watch")
    body = {"query": text, "variables": {"id": run["id"]}}
    headers = {**bearer(), "accept": "text/event-stream"}
    async with server.http.post(server.url + "/graphql", json=body, headers=headers) as answer:
        told = (await answer.read()).decode()
    [line] = re.findall(r"^data: ?(\{.*\})$", told, re.MULTILINE)
    assert orjson.loads(line)["data"]["workflowRun"]["status"] == "COMPLETED"


def test_each_template_becomes_what_the_page_says() -> None:
    rows = re.findall(r'^\| `"(.*\{\{.*)"` \| (.*) \|$', PAGES["workflows"], re.MULTILINE)
    assert len(rows) == 11
    for template, said in rows:
        text = template.replace(r"\|", "|")
        if said.startswith("an error"):
            with pytest.raises(Exception, match="is not in the context") as caught:
                Templates().render(text, DEAL)
            assert str(caught.value) == re.findall("`(.*)`", said)[0]
            continue
        assert Templates().render(text, DEAL) == orjson.loads(re.findall("`(.*?)`", said)[0]), text


def test_every_field_word_and_filter_is_documented() -> None:
    flows, acts = PAGES["workflows"], PAGES["actions"]
    job = definition.JobAction.__dataclass_fields__
    whole = {"name", "description", "trigger", "timeout_secs", "steps", "condition", "on_failure", "parallel"}
    for name in [*job, *whole, "key", "value", "seconds", "cron", "timezone", "missed"]:
        assert f"`{name}`" in flows or f'"{name}"' in flows, name
    for word in [*Operator, *StepStatus, *(status.value for status in RunStatus), *FILTERS]:
        assert re.search(rf"`{word}\b", flows), word
    for word in [*(type_.value for type_ in actions.TRANSITIONS), "created", "updated", "deleted"]:
        assert f"`{word}`" in acts, word


def test_the_bounds_that_the_pages_name_are_those_of_the_code() -> None:
    flows, acts = PAGES["workflows"], PAGES["actions"]
    assert (parsing.MAX_STEPS, parsing.MAX_BRANCHES, definitions.MAX_DEFINITION) == (200, 50, 262_144)
    assert parsing.MAX_DELAY_SECS == parsing.MAX_RUN_SECS == 31_536_000
    assert (templates.MAX_CHARACTERS, templates.MAX_PARTS, expressions.MAX_TEXT) == (262_144, 5_000, 65_536)
    assert (compiler.MAX_NODES, compiler.MAX_DEPTH, schedules.MOST_MISSED) == (1_000, 20, 100)
    for number in ("262,144", "31,536,000", "65,536", "5,000", "1,000 parts", "20 expressions", "the last 100"):
        assert number in flows, number
    assert actions.MAX_CHAIN == 16
    assert "at most 16 long" in acts


def test_every_door_that_is_named_is_there() -> None:
    schema = (ROOT / "schema.graphql").read_text()
    for page in ("workflows", "actions"):
        table = PAGES[page].split("## Every door")[1]
        for method, path in re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", table):
            assert method in ROUTES[path], path
        for name in re.findall(r"`([a-z]+[A-Z]\w+)`", table):
            assert re.search(rf"^  {name}[(:]", schema, re.MULTILINE), name
        for command, verb in re.findall(r"`(workflow|schedule|action|event) ([a-z]+)[ `]", table):
            group = cli.main.get_command(None, command)  # type: ignore[arg-type]
            assert verb in group.commands, f"{command} {verb}"  # type: ignore[union-attr]


def test_every_link_between_the_pages_leads_somewhere() -> None:
    for page, text in PAGES.items():
        for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
            file = ROOT / "docs" / (target or f"{page}.md")
            assert file.exists(), f"{page}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page}: #{anchor}"
