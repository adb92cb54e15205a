"""JSON that the strict reader refuses, read once more to say why: only the path of an error comes here."""

import json
from typing import Any

from atomo_gql.domain.errors import BadUserInput


def loosely(raw: str | bytes) -> Any:
    """The value, lone surrogates and all; None where it is no JSON at all."""
    try:
        return json.loads(raw if isinstance(raw, str) else raw.decode())
    except (ValueError, RecursionError):
        return None


def explained(raw: str | bytes, error: Exception, what: str) -> BadUserInput:
    """Why `what` was refused. msgspec says of a lone surrogate that something was truncated."""
    value = loosely(raw)
    if has_surrogate(value):
        inner = value.items() if isinstance(value, dict) else ()
        field = next((name for name, of_it in inner if has_surrogate(of_it) and not has_surrogate(name)), None)
        return BadUserInput(f"{field or what} must not contain a lone surrogate", field=field)
    text = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
    return BadUserInput(f"{what} must be JSON: {text if text[:2].isupper() else text[:1].lower() + text[1:]}")


def has_surrogate(value: object) -> bool:
    """Whether there is one anywhere in it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
