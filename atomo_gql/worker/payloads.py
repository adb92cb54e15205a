"""Payloads as the handler's own types."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from atomo_gql.worker.errors import NonRetryableError

Convert = Callable[[Any], Any]


def converter_of(function: Callable[..., Any]) -> Convert | None:
    """What makes the handler's second argument of a job's payload; None: it takes the context alone.

    Its annotation says how: a dataclass, a TypedDict, a pydantic model, or any other type that msgspec knows. Without
    an annotation it is the payload as it came.

    Raises ValueError for a handler that takes no context, or more than two arguments, or whose annotation is not known.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a builtin
        return None
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()):
        return None
    if not positional or len(required) > 2:
        raise ValueError(f"a handler takes the context, and perhaps the payload; {_name(function)} takes {signature}")
    if len(positional) < 2:
        return None
    wanted = _annotation(function, positional[1])
    if wanted in (inspect.Parameter.empty, Any):
        return lambda payload: payload
    if hasattr(wanted, "model_validate"):
        return _checked(wanted, wanted.model_validate)
    try:
        msgspec.json.schema(wanted)
    except TypeError as error:
        raise ValueError(f"the payload of {_name(function)} cannot be {wanted!r}: {error}") from error
    return _checked(wanted, lambda payload: msgspec.convert(payload, wanted))


def _checked(wanted: Any, convert: Convert) -> Convert:
    name = getattr(wanted, "__name__", str(wanted))

    def checked(payload: Any) -> Any:
        try:
            return convert(payload)
        except (msgspec.ValidationError, ValueError) as error:  # pydantic's is a ValueError
            raise NonRetryableError(f"the payload is no {name}: {error}") from error

    return checked


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    try:
        called = function if inspect.isroutine(function) else type(function).__call__
        return typing.get_type_hints(called).get(parameter.name, parameter.annotation)
    except NameError as error:
        raise ValueError(f"the annotations of {_name(function)} cannot be read: {error}") from error


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
