"""Documents: parsed, held against the limits and the schema, once for each text."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    MaxIntrospectionDepthRule,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
)

from atomo_gql.api.graphql.limits import over_limits

MAX_TOKENS = 2_000
_MAX_ERRORS = 20
_CACHED = 500  # documents
_CACHED_CHARACTERS = 20_000  # of a document that is worth keeping
_RULES = [*specified_rules, MaxIntrospectionDepthRule]


class DocumentRefused(Exception):
    """The document cannot be run; nothing of it has been."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request wants to run."""

    document: DocumentNode
    definition: OperationDefinitionNode

    @property
    def is_subscription(self) -> bool:
        """Whether it answers more than once."""
        return self.definition.operation is OperationType.SUBSCRIPTION

    @property
    def is_mutation(self) -> bool:
        """Whether it may change something."""
        return self.definition.operation is OperationType.MUTATION


class Documents:
    """The newest few hundred of one schema, so that a client's own few cost nothing after their first time."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._known: OrderedDict[str, DocumentNode] = OrderedDict()

    def operation(self, text: str, name: str | None) -> Operation:
        """The operation of that name, or the only one.

        Raises:
            DocumentRefused: it does not parse, is over a limit, does not fit the schema, or there is no such operation.
        """
        document = self._known.get(text)
        if document is None:
            document = self._read(text)
            if len(text) <= _CACHED_CHARACTERS:
                self._known[text] = document
                while len(self._known) > _CACHED:
                    self._known.popitem(last=False)
        else:
            self._known.move_to_end(text)
        definition = get_operation_ast(document, name)
        if definition is None:
            raise DocumentRefused([GraphQLError(_missing(name))])
        return Operation(document, definition)

    def _read(self, text: str) -> DocumentNode:
        try:
            document = parse(text, no_location=False, max_tokens=MAX_TOKENS)
            errors = over_limits(document) or validate(self._schema, document, _RULES, max_errors=_MAX_ERRORS)
        except GraphQLError as error:
            raise DocumentRefused([error]) from None
        except RecursionError:
            raise DocumentRefused([GraphQLError("the document is nested too deep")]) from None
        if errors:
            raise DocumentRefused(errors)
        return document


def _missing(name: str | None) -> str:
    if name is None:
        return "operationName must say which one to run: the document has none, or several"
    return f"operationName {name[:100]!r} names no operation of the document"
