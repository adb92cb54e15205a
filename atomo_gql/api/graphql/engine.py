"""Running operations: from what a client sent to what it is told, the same for HTTP, SSE and WebSocket.

Strawberry makes the schema; graphql-core, which is under it, runs it. See docs/adr/0005.
"""

import inspect
import logging
import re
import sys
import weakref
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from graphql import ExecutionResult, GraphQLError, GraphQLSchema, execute, subscribe
from graphql.execution.incremental.incremental_executor import IncrementalExecutor
from graphql.type.definition import GraphQLResolveInfoHelpers

from atomo_gql.api.errors import internal
from atomo_gql.api.graphql.context import Budget, Context
from atomo_gql.api.graphql.documents import DocumentRefused, Documents, Operation
from atomo_gql.domain.errors import AtomoError, BadUserInput, PayloadTooLarge

log = logging.getLogger("atomo_gql.graphql")

Reply = dict[str, Any]  # {"data": …, "errors": […]}, ready for JSON
MAX_DOCUMENT = 100_000  # characters
_MAX_TEXT = 1_000  # characters of an error
_QUOTED = re.compile(r"(?:[,.;]? [Ff]ound(?:: .*?)?|: \{.*?\})(?=; A DateTime|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for, by any transport."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


def request_of(value: object) -> Request:
    """The request in a JSON body, a WebSocket's payload, or a query string's parameters.

    Raises:
        BadUserInput: it is of another shape; names the field.
        PayloadTooLarge: the document is too long.
    """
    if isinstance(value, list):
        raise BadUserInput("the body must be one request, not a list: batches are not taken")
    if not isinstance(value, dict):
        raise BadUserInput("the request must be a JSON object with query, variables and operationName")
    query, variables, name = (value.get(field) for field in ("query", "variables", "operationName"))
    if not isinstance(query, str) or not query.strip():
        raise BadUserInput("query must be a GraphQL document", field="query")
    if len(query) > MAX_DOCUMENT:
        raise PayloadTooLarge(f"query must have at most {MAX_DOCUMENT} characters, not {len(query)}", field="query")
    if variables is not None and not isinstance(variables, dict):
        raise BadUserInput("variables must be a JSON object", field="variables")
    if name is not None and not isinstance(name, str):
        raise BadUserInput("operationName must be a string", field="operationName")
    return Request(query, variables, name or None)


class Refused(Exception):
    """Nothing was run, or a subscription ended in an error. `errors` are ready for JSON."""

    def __init__(self, errors: list[Reply]) -> None:
        super().__init__(errors[0]["message"])
        self.errors = errors


class _Executor(IncrementalExecutor):
    """One that does not refer to itself: its variables, and all it was told, would stay until a collection, and those
    are rare (host.calm_the_collector)."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        this: Any = weakref.ref(self)
        self.async_helpers = GraphQLResolveInfoHelpers(
            gather=lambda values: this().gather_async_work(values), track=lambda values: this().track_async_work(values)
        )


class Engine:
    """One schema, and its documents."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._documents = Documents(schema)

    def prepare(self, request: Request) -> Operation:
        """The operation to run.

        Raises:
            Refused: the document does not fit.
        """
        try:
            return self._documents.operation(request.query, request.operation_name)
        except DocumentRefused as refused:
            raise Refused(errors_of(refused.errors)) from None

    async def run(self, operation: Operation, request: Request, context: Context) -> Reply:
        """Run a query or a mutation."""
        running = execute(
            self._schema,
            operation.document,
            variable_values=request.variables,
            operation_name=request.operation_name,
            context_value=context,
            executor_class=_Executor,
        )
        try:
            return _reply(await running if inspect.isawaitable(running) else running)
        finally:
            context.loaders.clear()

    async def stream(self, operation: Operation, request: Request, context: Context) -> AsyncGenerator[Reply]:
        """Run a subscription: a reply for each of its events.

        Raises:
            Refused: it could not begin, or it broke off.
        """
        context.budget = Budget(sys.maxsize)  # each of its events is one answer, and a small one
        started = subscribe(
            self._schema,
            operation.document,
            variable_values=request.variables,
            operation_name=request.operation_name,
            context_value=context,
            executor_class=_Executor,
        )
        source = await started if inspect.isawaitable(started) else started
        if isinstance(source, ExecutionResult):
            raise Refused(errors_of(source.errors or ()))
        try:
            async with aclosing(cast("Any", source)) as results:
                async for result in results:
                    yield _reply(result)
        except Exception as error:
            raise Refused(errors_of([GraphQLError(str(error), original_error=error)])) from None


def refusal(error: AtomoError) -> Reply:
    """One of our own errors, as GraphQL has them."""
    return {"message": error.detail, "extensions": error.extensions}


def errors_of(errors: Iterable[GraphQLError]) -> list[Reply]:
    """Errors with their codes; what is a fault of ours goes to the log, and is not told."""
    told = []
    for error in errors:
        told.append(_coded(error))
        original: BaseException | None = error
        while original is not None:  # a traceback's frames hold the error, and all that the request brought
            original.__traceback__ = None
            original = getattr(original, "original_error", None)
    return told


def _reply(result: ExecutionResult) -> Reply:
    reply: Reply = {"data": result.data}
    if result.errors:
        reply["errors"] = errors_of(result.errors)
    return reply


def _coded(error: GraphQLError) -> Reply:
    original = error.original_error
    while isinstance(original, GraphQLError):
        original = original.original_error
    told = cast("Reply", error.formatted)
    if isinstance(original, AtomoError):
        told |= refusal(original)
    elif original is None or (error.path is None and isinstance(original, (ValueError, TypeError))):
        # The document or its variables are wrong: graphql-core's own errors, or those of a scalar's parser.
        told["message"] = _plain(told["message"])
        told["extensions"] = {"code": BadUserInput.code, **told.get("extensions", {})}
    else:
        log.error("a resolver failed at %s", error.path, exc_info=original)
        told |= refusal(internal())
    return told


def _plain(text: str) -> str:
    """Without the caller's own value, which graphql-core quotes as Python writes it, and of bounded length."""
    text = _QUOTED.sub("", text).replace(" not to be None.", " not to be null.")
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
