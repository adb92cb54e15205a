"""`GET /openapi.json`, made from the route table and the shapes it names."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from atomo_gql import __version__
from atomo_gql.api.errors import STATUS
from atomo_gql.api.http import ALWAYS_OPEN
from atomo_gql.api.rest import bodies, schemas
from atomo_gql.api.rest.endpoint import Method, Plane

_REFERENCES = "#/components/schemas/{name}"
_SECURITY: dict[Plane, list[dict[str, list[str]]]] = {
    Plane.APP: [{"jwt": []}],
    Plane.ADMIN: [{"jwt": []}],
    Plane.WORKER: [{"workerToken": []}],
    Plane.OPEN: [],
}
_PLANES = {
    Plane.APP: "App plane.",
    Plane.ADMIN: 'Admin plane: the JWT has `role: "admin"`.',
    Plane.WORKER: "Worker plane.",
    Plane.OPEN: "Open.",
}


def document(routes: Mapping[str, Mapping[str, Method]]) -> bytes:
    """The OpenAPI 3.1 document."""
    return orjson.dumps(_describe(routes), option=orjson.OPT_INDENT_2)


def _describe(routes: Mapping[str, Mapping[str, Method]]) -> dict[str, Any]:
    methods = [method for by_name in routes.values() for method in by_name.values()]
    shapes = {m.shape for m in methods if m.shape} | {
        shape for m in methods for shape in (m.answers or {}).values() if shape
    }
    ordered = sorted(shapes | {schemas.Problem, bodies.ReportBody}, key=str)
    references, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCES)
    reference_of = dict(zip(ordered, references, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "atomo_gql",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "A durable job service: applications enqueue, workers lease over HTTP, pages watch.",
        },
        "paths": {
            path: {name.lower(): _operation(path, name, method, reference_of) for name, method in by_name.items()}
            for path, by_name in routes.items()
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "workerToken": {"type": "apiKey", "in": "header", "name": "X-Worker-Token"},
            },
        },
    }


def _operation(path: str, name: str, method: Method, reference_of: Mapping[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{method.handle.__module__.rsplit('.', 1)[-1]}_{method.handle.__name__.strip('_')}",
        "summary": method.summary,
        "description": _PLANES[method.plane],
        "security": _SECURITY[method.plane],
        "responses": {},
    }
    parameters: list[dict[str, Any]] = [
        {"name": found, "in": "path", "required": True, "schema": {"type": "string"}}
        for found in re.findall(r"\{(\w+)\}", path)
    ]
    if method.plane in (Plane.APP, Plane.ADMIN):
        parameters.append(
            {
                "name": "X-Tenant-ID",
                "in": "header",
                "required": False,
                "description": "The tenant an unbound admin acts for.",
                "schema": {"type": "string"},
            }
        )
    for header, told in (method.headers or {}).items():
        schema = {"type": "string"}
        parameters.append({"name": header, "in": "header", "required": False, "description": told, "schema": schema})
    for query, schema in (method.query or {}).items():
        parameters.append({"name": query, "in": "query", "required": False, "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    if method.shape:
        operation["requestBody"] = {
            "required": not method.is_optional,
            "content": {"application/json": {"schema": reference_of[method.shape]}},
        }
    for status, shape in (method.answers or {}).items():
        response: dict[str, Any] = {"description": method.summary}
        if shape is not None:
            media_type = "text/plain" if shape is str else "application/json"
            response["content"] = {media_type: {"schema": reference_of[shape]}}
        operation["responses"][str(status)] = response
    problem = {"application/problem+json": {"schema": reference_of[schemas.Problem]}}
    for code, status in sorted(_refusals(path, method).items(), key=lambda item: item[1]):
        operation["responses"][str(status)] = {"description": code, "content": problem}
    return operation


def _refusals(path: str, method: Method) -> dict[str, int]:
    """The errors a method may answer, by code."""
    codes = {"INTERNAL", "METHOD_NOT_ALLOWED"}
    if path not in ALWAYS_OPEN:
        codes.add("TOO_MANY_REQUESTS")
    if method.plane is not Plane.OPEN:
        codes |= {"UNAUTHENTICATED", "FORBIDDEN", "UNAVAILABLE", "BAD_USER_INPUT"}
    if path == "/readyz":
        codes.add("UNAVAILABLE")
    if method.shape:
        codes |= {"PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}
    if "{" in path:
        codes.add("LEASE_LOST" if method.plane is Plane.WORKER else "NOT_FOUND")
    return {code: STATUS[code] for code in codes}
