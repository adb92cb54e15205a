"""What can be done with workflows, their runs, and actions."""

from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.bindings import Binding, RecordedEvent
from atomo_gql.api.graphql.types.paging import argument
from atomo_gql.api.graphql.types.runs import WorkflowRun
from atomo_gql.api.graphql.types.workflows import Workflow
from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.rules import parse_id

_NAME = argument("The workflow's name.")
_RUN = argument("The run's id.")
_BINDING = argument("The binding's id.")


@strawberry.type
class WorkflowMutations:
    """A part of `Mutation`."""

    @strawberry.mutation(
        description="Keep a definition as the newest version of its name; the same one again is no new version. Runs "
        "under way keep theirs. For admins: a tenant's is that tenant's own, an operator's is for every tenant."
    )
    async def register_workflow(
        self, info: Info, definition: Annotated[JSON, argument("As docs/workflows.md has it.")]
    ) -> Workflow:
        """`registerWorkflow(definition)`."""
        context = info.context
        return Workflow.of(await context.services.workflows.register(context.caller, definition, trace=context.trace))

    @strawberry.mutation(description="Let no run of a workflow begin any more; those under way go on. For admins.")
    async def remove_workflow(self, info: Info, name: Annotated[str, _NAME]) -> Workflow:
        """`removeWorkflow(name)`."""
        context = info.context
        return Workflow.of(await context.services.workflows.remove(context.caller, name, trace=context.trace))

    @strawberry.mutation(description="Let neither its schedule nor events begin a workflow; people can. For admins.")
    async def pause_workflow(self, info: Info, name: Annotated[str, _NAME]) -> Workflow:
        """`pauseWorkflow(name)`."""
        context = info.context
        return Workflow.of(await context.services.workflows.pause(context.caller, name, trace=context.trace))

    @strawberry.mutation(
        description="End the pause of a workflow. What would have begun it meanwhile is passed over. For admins."
    )
    async def resume_workflow(self, info: Info, name: Annotated[str, _NAME]) -> Workflow:
        """`resumeWorkflow(name)`."""
        context = info.context
        return Workflow.of(await context.services.workflows.resume(context.caller, name, trace=context.trace))

    @strawberry.mutation(description="Begin a run, and carry it on as far as it goes without waiting.")
    async def run_workflow(
        self,
        info: Info,
        name: Annotated[str, _NAME],
        context: Annotated[JSON | None, argument("Its variables to begin with: an object; {} when left out.")] = None,
        idempotency_key: Annotated[str | None, argument("The same key of the same workflow is the same run.")] = None,
    ) -> WorkflowRun:
        """`runWorkflow(name, context, idempotencyKey)`."""
        at = info.context
        return WorkflowRun.of(
            await at.services.runs.start(at.caller, name, context, key=idempotency_key, trace=at.trace)
        )

    @strawberry.mutation(
        description="End a run that has not ended, and the jobs that it waits for. One that has failed stays so."
    )
    async def cancel_workflow_run(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _RUN],  # noqa: A002  # as in cancelJob
        reason: Annotated[str | None, argument("Kept in its errors.")] = None,
    ) -> WorkflowRun:
        """`cancelWorkflowRun(id, reason)`."""
        context = info.context
        run_id = parse_id("id", id)
        return WorkflowRun.of(await context.services.runs.cancel(context.caller, run_id, reason, trace=context.trace))

    @strawberry.mutation(
        description="Go on with a run that has failed, from the step that failed. One that has not ended stays so."
    )
    async def retry_workflow_run(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _RUN],  # noqa: A002  # as in retryJob
    ) -> WorkflowRun:
        """`retryWorkflowRun(id)`."""
        context = info.context
        return WorkflowRun.of(
            await context.services.runs.retry(context.caller, parse_id("id", id), trace=context.trace)
        )

    @strawberry.mutation(
        description="Record what has happened to a model of yours: bindings and workflows that match begin."
    )
    async def record_event(
        self,
        info: Info,
        model: Annotated[str, argument("What kind of thing; not Job, whose events the service records.")],
        event: Annotated[str, argument("created, updated or deleted.")],
        id: Annotated[strawberry.ID, argument("Which thing; its events keep their order.")],  # noqa: A002  # the contract's word
        data: Annotated[JSON | None, argument("As it is now.")] = None,
        previous_data: Annotated[JSON | None, argument("As it was before: an object.")] = None,
        origin: Annotated[str | None, argument("The action that did it; it does not fire again.")] = None,
        event_id: Annotated[str | None, argument("The same id is the same event; default: a new one.")] = None,
    ) -> RecordedEvent:
        """`recordEvent(…)`."""
        context = info.context
        new = NewEvent(
            model=model,
            event=event,
            entity_id=id,
            data=data,
            previous=previous_data,
            origin=origin,
            event_id=event_id,
        )
        return RecordedEvent.of(await context.services.records.record(context.caller, new, trace=context.trace))

    @strawberry.mutation(
        description="Have an action fire on events from now on; the same binding again is the same. For admins: a "
        "tenant's fires on that tenant's events, an operator's on every tenant's."
    )
    async def register_binding(
        self,
        info: Info,
        binding: Annotated[JSON, argument("{model, event, action, condition?, input?, queue?}.")],
    ) -> Binding:
        """`registerBinding(binding)`."""
        context = info.context
        return Binding.of(await context.services.bindings.register(context.caller, binding, trace=context.trace))

    @strawberry.mutation(description="Have a binding fire no more; for admins.")
    async def remove_binding(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _BINDING],  # noqa: A002  # as in REST
    ) -> Binding:
        """`removeBinding(id)`."""
        context, binding_id = info.context, parse_id("id", id)
        return Binding.of(await context.services.bindings.remove(context.caller, binding_id, trace=context.trace))

    @strawberry.mutation(
        description="Have a binding that was set aside go on from the event that it failed on; for admins."
    )
    async def resume_binding(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _BINDING],  # noqa: A002  # as in REST
        skip: Annotated[bool, argument("Go on from now instead, and pass over what came since.")] = False,
    ) -> Binding:
        """`resumeBinding(id, skip)`."""
        context, binding_id = info.context, parse_id("id", id)
        return Binding.of(
            await context.services.bindings.resume(context.caller, binding_id, skip=skip, trace=context.trace)
        )
