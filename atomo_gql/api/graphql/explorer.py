"""GraphiQL, served from the package: no other host is asked for anything. `web/graphiql` is what it is built from."""

from functools import cache
from importlib.resources import files

from starlette.types import Receive, Scope, Send

from atomo_gql.api.http import not_found

_TYPES = {"js": "text/javascript", "css": "text/css", "txt": "text/plain", "html": "text/html"}
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # the editor writes sizes and positions into elements
        "img-src 'self' data:",
        "font-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


@cache
def _assets() -> dict[str, bytes]:
    folder = files("atomo_gql.api.graphql") / "vendor"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}


def wants_page(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether a browser asks to see `/graphql`, rather than a client to be answered."""
    accept = headers.get(b"accept", b"").lower()
    return scope["method"] in ("GET", "HEAD") and b"text/html" in accept and b"query=" not in scope["query_string"]


async def page(scope: Scope, send: Send) -> None:
    """GraphiQL itself. It needs no token; what it asks for does."""
    policy = (b"content-security-policy", _POLICY.encode())
    await _send(scope, send, "index.html", [(b"cache-control", b"no-cache"), policy])


class Assets:
    """`GET /graphql/assets/{name}`: the names change with what is in them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One file."""
        name = scope["path_params"]["name"]
        if name not in _assets() or name == "index.html" or scope["method"] not in ("GET", "HEAD"):
            await not_found(scope, receive, send)
            return
        await _send(scope, send, name, [(b"cache-control", b"public, max-age=31536000, immutable")])


async def _send(scope: Scope, send: Send, name: str, extra: list[tuple[bytes, bytes]]) -> None:
    body = _assets()[name]
    headers = [
        (b"content-type", f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8".encode()),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        *extra,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
