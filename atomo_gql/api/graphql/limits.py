"""How large a document may be, when its fragments are put where they are spread.

Each fragment is measured once, however often it is spread: a document of a few hundred characters can unfold into more
fields than there are atoms, and measuring it must not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
)

MAX_DEPTH = 12
MAX_ALIASES = 30
# A rule of the schema compares fields of the same name with each other, and all that is below them.
MAX_SELECTED = 200  # in one pair of braces
MAX_NAMESAKES = 60  # fields with braces of their own
_MANY = 1_000_000  # and no more is counted


@dataclass(frozen=True, slots=True)
class _Size:
    depth: int = 0
    aliases: int = 0


class _Measure:
    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._namesakes: Counter[str] = Counter()
        self._known: dict[str, _Size | None] = {}  # None: being measured, so that it is spread in itself

    def of(self, selections: Sequence[SelectionNode]) -> _Size:
        """Of what stands in one pair of braces."""
        if len(selections) > MAX_SELECTED:
            raise GraphQLError(
                f"a selection must have at most {MAX_SELECTED} fields, not {len(selections)}", selections[MAX_SELECTED]
            )
        sizes = [self._of_one(selection) for selection in selections]
        return _Size(max((size.depth for size in sizes), default=0), min(_MANY, sum(size.aliases for size in sizes)))

    def _of_one(self, node: SelectionNode) -> _Size:
        if isinstance(node, FieldNode):
            return self._of_field(node)
        if isinstance(node, FragmentSpreadNode):
            return self.of_fragment(node.name.value)
        assert isinstance(node, InlineFragmentNode)  # noqa: S101  # there is no fourth
        return self.of(node.selection_set.selections)

    def _of_field(self, node: FieldNode) -> _Size:
        inner = _Size()
        if node.selection_set:
            name = (node.alias or node.name).value
            self._namesakes[name] += 1
            if self._namesakes[name] > MAX_NAMESAKES:
                raise GraphQLError(f"{name} must stand at most {MAX_NAMESAKES} times in a document", node)
            inner = self.of(node.selection_set.selections)
        # What is asked of the schema itself is deep by nature, and has a rule of its own.
        depth = 0 if node.name.value.startswith("__") else inner.depth + 1
        return _Size(depth, min(_MANY, inner.aliases + (node.alias is not None)))

    def of_fragment(self, name: str) -> _Size:
        """Of what stands in a fragment."""
        if name not in self._known:
            self._known[name] = None
            fragment = self._fragments.get(name)
            self._known[name] = self.of(fragment.selection_set.selections) if fragment else _Size()
        return self._known[name] or _Size()  # one in itself, or one that is not there: validation says so


def over_limits(document: DocumentNode) -> list[GraphQLError]:
    """Which limits a document is over, in the caller's words; none: it may be validated.

    Raises:
        GraphQLError: a selection is too long.
    """
    measure = _Measure(document)
    errors: list[GraphQLError] = []
    for node in document.definitions:
        if not isinstance(node, OperationDefinitionNode | FragmentDefinitionNode):
            continue
        if isinstance(node, FragmentDefinitionNode):
            size = measure.of_fragment(node.name.value)
        else:
            size = measure.of(node.selection_set.selections)
        if size.depth - 1 > MAX_DEPTH:
            errors.append(GraphQLError(f"fields must be nested at most {MAX_DEPTH} deep, not {size.depth - 1}", node))
        if size.aliases > MAX_ALIASES:
            counted = "more than a million" if size.aliases == _MANY else str(size.aliases)
            errors.append(
                GraphQLError(
                    f"there must be at most {MAX_ALIASES} aliases, counted at each spread of a fragment; not {counted}",
                    node,
                )
            )
    return errors[:1]
