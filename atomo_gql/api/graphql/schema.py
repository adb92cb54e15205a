"""The schema: its operations, its limits, and what callers learn of errors."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import strawberry
from graphql import ASTValidationRule, GraphQLError
from strawberry.extensions import (
    AddValidationRules,
    MaxTokensLimiter,
    ParserCache,
    SchemaExtension,
    ValidationCache,
)
from strawberry.extensions.max_aliases import create_validator as max_aliases
from strawberry.extensions.query_depth_limiter import create_validator as max_depth
from strawberry.schema.config import StrawberryConfig
from strawberry.types.graphql import OperationType

from atomo_gql.api.errors import internal
from atomo_gql.api.graphql.operations import Mutation, Query, Subscription
from atomo_gql.domain.errors import AtomoError, BadUserInput

log = logging.getLogger("atomo_gql.graphql")

MAX_TOKENS = 2_000
MAX_DEPTH = 12
MAX_ALIASES = 30

# Made once: the validation cache is keyed by the rules, and rules made anew for each request would never hit it.
_LIMITS: list[type[ASTValidationRule]] = [max_depth(MAX_DEPTH, None, None), max_aliases(MAX_ALIASES)]


class CodedErrors(SchemaExtension):
    """Gives every error its code, and keeps our own faults to the log."""

    def on_operation(self) -> Iterator[None]:
        """After a query or a mutation."""
        self._streamed = False
        yield
        if self._streamed:
            return
        result: Any = self.execution_context.result
        is_subscription = self.execution_context.operation_type is OperationType.SUBSCRIPTION
        errors = getattr(result, "errors", None)
        if is_subscription and errors and isinstance(errors[0].original_error, TypeError):
            # Run over plain HTTP, it fails for want of a stream, which is no fault of ours.
            result.errors = [GraphQLError("a subscription needs a WebSocket, or Accept: text/event-stream")]
        _code(result)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        """Before each frame of a subscription."""
        self._streamed = True
        _code(result)
        yield None


def _code(result: Any) -> None:
    if errors := getattr(result, "errors", None):
        result.errors = [_coded(error) for error in errors]


def _coded(error: GraphQLError) -> GraphQLError:
    original = error.original_error
    if isinstance(original, AtomoError):
        return error
    if original is None or isinstance(original, GraphQLError):  # the document or its variables are wrong
        error.extensions = {"code": BadUserInput.code, **(error.extensions or {})}
        return error
    log.error("a resolver failed at %s", error.path, exc_info=original)
    hidden = internal()
    return GraphQLError(hidden.detail, nodes=error.nodes, path=error.path, extensions=dict(hidden.extensions))


class Schema(strawberry.Schema):
    """Errors are coded here too: those of a document that is never executed do not reach the extension."""

    def process_errors(self, errors: Iterable[GraphQLError], execution_context: Any = None) -> None:
        """Called for every list of errors, before it is shown."""
        for error in errors:
            if error.original_error is None or isinstance(error.original_error, GraphQLError):
                error.extensions = {"code": BadUserInput.code, **(error.extensions or {})}


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(disable_field_suggestions=False),
    extensions=[
        CodedErrors,
        lambda: MaxTokensLimiter(MAX_TOKENS),
        lambda: ParserCache(maxsize=500),
        lambda: AddValidationRules(_LIMITS),
        lambda: ValidationCache(maxsize=500),
    ],
)


def schema_text() -> str:
    """`schema.graphql`."""
    return schema.as_str().rstrip() + "\n"
