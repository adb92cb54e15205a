"""What it takes to begin a run: for people, for the clock, and for events."""

import orjson

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.rules import check_json
from atomo_gql.domain.workflows.parsing import RESERVED
from atomo_gql.service.workflows.definitions import Workflow
from atomo_gql.store.runs import RunRow


def run_row(
    workflow: Workflow,
    *,
    tenant: str,
    actor: str,
    trace: str | None,
    key: str | None,
    trigger: bytes,
    context: bytes,
) -> RunRow:
    """A run of that workflow, ready to be begun."""
    return RunRow(
        workflow_id=workflow.row.id,
        workflow=workflow.row.name,
        definition_version=workflow.row.definition_version,
        tenant=tenant,
        actor=actor,
        trace=trace,
        key=key,
        via=b"[]",
        timeout_secs=workflow.definition.timeout_secs,
        trigger=trigger,
        context=context,
    )


def check_context(context: Json) -> None:
    """Refuse what no context can be.

    Raises:
        BadUserInput: no object, or a name that is taken.
    """
    if not isinstance(context, dict):
        raise BadUserInput("context must be an object", field="context")
    for name in RESERVED:
        if name in context:
            raise BadUserInput(f"context.{name} is taken: it stands for the run itself", field=f"context.{name}")
    check_json("context", context)


def as_trigger(kind: str, **more: Json) -> bytes:
    """What began a run, as it is kept."""
    return orjson.dumps({"kind": kind, **more})
