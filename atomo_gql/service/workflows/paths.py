"""Paths into the context, such as `deal.items[0].id`: keys of objects and indices of lists, and never anything else."""

from collections.abc import Callable

from atomo_gql.domain.jobs import Json
from atomo_gql.service.workflows.frame import Frame, Missing, kind

Evaluate = Callable[[Frame], Json]
_MOST = 200  # characters of a path in a sentence


def variable(name: str) -> Evaluate:
    """The variable of that name."""

    def evaluate(frame: Frame) -> Json:
        try:
            return frame.scope[name]
        except KeyError:
            raise Missing(_sentence(name, f'there is no "{_cut(name)}"')) from None

    return evaluate


def member(base: str | Evaluate, keys: list[str | int | Evaluate], labels: list[str]) -> Evaluate:
    """What the keys lead to from a variable, or from another value.

    `labels` is how the base and each key are written; together they are the path.
    """

    def evaluate(frame: Frame) -> Json:
        if not isinstance(base, str):
            value = base(frame)
        elif base in frame.scope:
            value = frame.scope[base]
        else:
            raise Missing(_sentence("".join(labels), f'there is no "{_cut(base)}"'))
        for index, step in enumerate(keys):
            key = step(frame) if callable(step) else step
            try:
                value = _step(value, key)
            except LookupError:
                broken = f"{_cut(''.join(labels[: index + 1]))} {_lack(value, key)}"
                raise Missing(_sentence("".join(labels), broken)) from None
        return value

    return evaluate


def label(key: str | int) -> str:
    """How a key is written in a path."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _step(value: Json, key: Json) -> Json:
    if isinstance(value, dict):
        if isinstance(key, str):
            return value[key]
        if isinstance(key, int) and not isinstance(key, bool):
            return value[str(key)]
    elif isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool):
        return value[key]
    raise LookupError


def _lack(value: Json, key: Json) -> str:
    if not isinstance(key, str | int) or isinstance(key, bool):
        return f"is asked for {kind(key)}, which is neither a key nor an index"
    named = f'"{_cut(key)}"' if isinstance(key, str) else f"[{key}]"
    if isinstance(value, dict):
        return f"has no {named}"
    if isinstance(value, list):
        return f"is a list of {len(value)}, and has no {named}"
    return f"is {kind(value)}, and has no {named}"


def _sentence(path: str, broken: str) -> str:
    return f"{_cut(path)} is not in the context: {broken}"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"
