"""Holds every answer of the REST routes against the server's own OpenAPI document."""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from atomo_gql.api.rest.openapi import document
from atomo_gql.api.rest.routes import ROUTES

PROBLEM = "application/problem+json"
_ROOT = "urn:openapi"


@dataclass(frozen=True)
class Answer:
    """What a server sent back."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def media_type(self) -> str:
        """Content-Type without its parameters; '' when there is none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def body(self) -> Any:
        """The JSON, or else the text."""
        return json.loads(self.raw) if "json" in self.media_type and self.raw else self.raw.decode()


class Contract:
    """An OpenAPI 3.1 document that answers are held against."""

    def __init__(self, openapi: Any) -> None:
        self._paths: dict[str, Any] = openapi["paths"]
        # Of two templates that fit, the one with fewer parameters is meant; of two alike, the first.
        self._templates = [
            (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path)
            for path in sorted(self._paths, key=lambda path: path.count("{"))
        ]
        resource = DRAFT202012.create_resource(_closed(openapi))
        self._registry = Registry().with_resource(_ROOT, resource)
        self._validators: dict[tuple[str, ...], Any] = {}

    def check(self, method: str, path: str, answer: Answer) -> None:
        """Fail unless the document describes this answer. Paths that it does not name are passed over.

        `path` is decoded, and has no query.
        """
        template = next((template for shape, template in self._templates if shape.fullmatch(path)), None)
        if template is None:
            return
        what = f"{method} {template} answered {answer.status}"
        operations = self._paths[template]
        name = "get" if method == "HEAD" and "get" in operations else method.lower()
        assert (answer.status == 405) is (name not in operations), f"{what}, but has {sorted(operations)}"
        for operation in [name] if name in operations else operations:
            responses = operations[operation]["responses"]
            assert str(answer.status) in responses, f"{what}, documented are {sorted(responses)}: {answer.body}"
            content = responses[str(answer.status)].get("content", {})
            if not content:
                assert (answer.raw, answer.media_type) == (b"", ""), f"{what} with a body, documented is none"
                continue
            assert answer.media_type in content, f"{what} as {answer.media_type!r}, documented is {sorted(content)}"
            if method != "HEAD":
                self._check_body(what, (template, operation, str(answer.status), answer.media_type), answer)
        assert method != "HEAD" or answer.raw == b"", f"{what} with a body"

    def _check_body(self, what: str, place: tuple[str, str, str, str], answer: Answer) -> None:
        validator = self._validators.get(place)
        if validator is None:
            template, operation, status, media_type = (part.replace("~", "~0").replace("/", "~1") for part in place)
            pointer = f"#/paths/{template}/{operation}/responses/{status}/content/{media_type}/schema"
            validator = self._validators[place] = Draft202012Validator(
                {"$ref": _ROOT + pointer},
                registry=self._registry,
                format_checker=Draft202012Validator.FORMAT_CHECKER,
            )
        error = best_match(validator.iter_errors(answer.body))
        assert error is None, f"{what} with a body that its schema refuses: {error}"
        if answer.media_type == PROBLEM:
            assert answer.body["status"] == answer.status, f"{what}, and {answer.body['status']} in the body"


def _closed(schema: Any) -> Any:
    """The same schema, but an object with named properties may have no others."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        closed["additionalProperties"] = False
    return closed


@functools.cache
def contract() -> Contract:
    """The document of this version, made once and without a server."""
    return Contract(json.loads(document(ROUTES)))
