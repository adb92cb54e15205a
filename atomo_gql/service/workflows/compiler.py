"""What a template may say: each node of Jinja's tree that is allowed becomes a function, all others are refused.

Nothing of Jinja runs: a function here sees JSON values alone, by keys of objects and indices of lists.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import nodes

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.rules import check_json
from atomo_gql.service.workflows.filters import FILTERS
from atomo_gql.service.workflows.paths import Evaluate, label, member, variable
from atomo_gql.service.workflows.values import COMPARISONS, compare, constant, default, is_defined, text

MAX_NODES = 1_000
MAX_DEPTH = 20  # expressions in expressions

_MAY = "a template may name variables and filters; it must not"


class Refused(Exception):
    """A template that is not allowed; the message is the rule."""


class Compiler:
    """Makes functions of one tree; `count` is of how many nodes. `stand_in` stands for a carriage return in it."""

    def __init__(self, stand_in: str = "") -> None:
        self.count = 0
        self._stand_in = stand_in
        self._depth = 0

    def template(self, tree: nodes.Template) -> Evaluate:
        """What fills in the whole: one expression alone keeps its type, all else is text."""
        pieces: list[str | Evaluate] = []
        for node in (node for output in tree.body for node in _output(output)):
            if isinstance(node, nodes.TemplateData):
                pieces.append(self._restore(node.data))
            else:
                pieces.append(self.expression(node))
        if len(pieces) == 1 and callable(whole := pieces[0]):
            return lambda frame: frame.insert(whole(frame))
        return text(pieces)

    def expression(self, node: nodes.Node) -> Evaluate:
        """The value of an expression."""
        self._enter()
        build = _ALLOWED.get(type(node))
        if build is None:
            raise Refused(f"{_MAY} {_REFUSED.get(type(node), 'calculate')}")
        self._depth += 1
        evaluate = build(self, node)
        self._depth -= 1
        return evaluate

    def _enter(self) -> None:
        self.count += 1
        if self.count > MAX_NODES:
            raise Refused(f"a template must have at most {MAX_NODES} parts")
        if self._depth >= MAX_DEPTH:
            raise Refused(f"a template must not be nested deeper than {MAX_DEPTH} expressions")

    def _restore(self, text: str) -> str:
        return text.replace(self._stand_in, "\r") if self._stand_in else text

    def _const(self, node: nodes.Const) -> Evaluate:
        return constant(_checked(self._restore(node.value) if isinstance(node.value, str) else node.value))

    def _negative(self, node: nodes.Neg) -> Evaluate:
        value = node.node.value if isinstance(node.node, nodes.Const) else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Refused(f"{_MAY} calculate")
        return constant(_checked(-value))

    def _name(self, node: nodes.Name) -> Evaluate:
        return constant(None) if node.name == "null" else variable(node.name)

    def _path(self, node: nodes.Node) -> Evaluate:
        keys: list[str | int | Evaluate] = []
        labels: list[str] = []
        while isinstance(node, nodes.Getattr | nodes.Getitem):  # a.b.c is as deep as it is long, so no recursion here
            self._enter()
            key: Any = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
            if isinstance(node, nodes.Getattr) and node.attr.startswith(
                "__"
            ):  # it would find nothing; better said soon
                raise Refused(
                    f"{_MAY} reach for {node.attr[:100]}; a field of that name is written ['{node.attr[:100]}']"
                )
            if isinstance(key, str | int) and not isinstance(key, bool):
                key = _checked(self._restore(key) if isinstance(key, str) else key)
                labels.append(label(key))
            elif isinstance(node, nodes.Getitem):
                key = self.expression(node.arg)
                labels.append("[…]")
            keys.append(key)
            node = node.node
        base: str | Evaluate
        if isinstance(node, nodes.Name) and node.name != "null":
            base, written = node.name, node.name
        else:
            base, written = self.expression(node), "(…)"
        return member(base, keys[::-1], [written, *labels[::-1]])

    def _list(self, node: nodes.List) -> Evaluate:
        items = [self.expression(item) for item in node.items]
        return lambda frame: [item(frame) for item in items]

    def _dict(self, node: nodes.Dict) -> Evaluate:
        items: dict[str, Evaluate] = {}
        for pair in node.items:
            if not isinstance(pair.key, nodes.Const) or not isinstance(pair.key.value, str):
                raise Refused("a template may hold an object whose keys are strings in quotes, and no other")
            items[_checked(self._restore(pair.key.value))] = self.expression(pair.value)
        return lambda frame: {key: item(frame) for key, item in items.items()}

    def _choice(self, node: nodes.CondExpr) -> Evaluate:
        if node.expr2 is None:
            raise Refused("a template must say what else: {{ a if b else c }}")
        test, then, other = map(self.expression, (node.test, node.expr1, node.expr2))
        return lambda frame: then(frame) if test(frame) else other(frame)

    def _and(self, node: nodes.And) -> Evaluate:
        left, right = self.expression(node.left), self.expression(node.right)
        return lambda frame: left(frame) and right(frame)

    def _or(self, node: nodes.Or) -> Evaluate:
        left, right = self.expression(node.left), self.expression(node.right)
        return lambda frame: left(frame) or right(frame)

    def _not(self, node: nodes.Not) -> Evaluate:
        inner = self.expression(node.node)
        return lambda frame: not inner(frame)

    def _compare(self, node: nodes.Compare) -> Evaluate:
        if len(node.ops) != 1 or node.ops[0].op not in COMPARISONS:
            raise Refused("a template may compare two values by ==, !=, <, <=, > or >=, and by nothing else")
        left, right = self.expression(node.expr), self.expression(node.ops[0].expr)
        name = node.ops[0].op
        return lambda frame: compare(name, left(frame), right(frame))

    def _test(self, node: nodes.Test) -> Evaluate:
        if node.name not in ("defined", "none") or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            raise Refused("a template may ask whether a value is defined or is none, and nothing else")
        inner = self.expression(node.node)
        return is_defined(inner) if node.name == "defined" else lambda frame: inner(frame) is None

    def _filter(self, node: nodes.Filter) -> Evaluate:
        if node.node is None or node.name not in FILTERS:
            raise Refused(f'a template knows no filter "{node.name[:100]}"; there are {", ".join(FILTERS)}')
        apply, least, most = FILTERS[node.name]
        if node.kwargs or node.dyn_args or node.dyn_kwargs or not least <= len(node.args) <= most:
            counts = f"{least}" if least == most else f"{least} to {most}"
            raise Refused(f"the filter {node.name} takes {counts} arguments, without names")
        value, *arguments = map(self.expression, (node.node, *node.args))
        if node.name == "default":
            return default(value, *arguments)
        return lambda frame: apply(frame, value(frame), *[argument(frame) for argument in arguments])


_ALLOWED: dict[type[nodes.Node], Callable[[Compiler, Any], Evaluate]] = {
    nodes.And: Compiler._and,
    nodes.Compare: Compiler._compare,
    nodes.CondExpr: Compiler._choice,
    nodes.Const: Compiler._const,
    nodes.Dict: Compiler._dict,
    nodes.Filter: Compiler._filter,
    nodes.Getattr: Compiler._path,
    nodes.Getitem: Compiler._path,
    nodes.List: Compiler._list,
    nodes.Name: Compiler._name,
    nodes.Neg: Compiler._negative,
    nodes.Not: Compiler._not,
    nodes.Or: Compiler._or,
    nodes.Test: Compiler._test,
}
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Call: "call functions",
    nodes.Slice: "cut slices",
    nodes.Tuple: "hold tuples; a list is written [a, b]",
    nodes.Concat: "join by ~; text beside {{ … }} does that",
}


def _output(node: nodes.Node) -> list[nodes.Expr]:
    if not isinstance(node, nodes.Output):
        raise Refused("a template may hold {{ … }}; it must not hold {% … %}")
    return node.nodes


def _checked(value: Json) -> Json:
    try:
        return check_json("a template", value)
    except BadUserInput as error:
        raise Refused(error.detail) from None
