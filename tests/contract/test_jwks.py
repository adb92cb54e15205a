"""Tokens signed by an issuer whose public keys are at a URL."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.conftest import SECRET, MakeServer, Server, token

KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
_ALGORITHMS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


@pytest.fixture
async def jwks_url() -> AsyncIterator[str]:
    """An issuer that listens."""
    keys = [
        {**json.loads(_ALGORITHMS[name].to_jwk(key.public_key())), "kid": name, "alg": name, "use": "sig"}
        for name, key in KEYS.items()
    ]

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"keys": keys})

    app = web.Application()
    app.router.add_get("/jwks.json", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    await runner.cleanup()


def _signed(name: str, **claims: Any) -> str:
    full = {"sub": "alice", "exp": int(time.time()) + 60, "iss": "https://issuer", "aud": "atomo", **claims}
    return jwt.encode(full, KEYS[name], algorithm=name, headers={"kid": name})


async def _status(server: Server, bearer: str) -> int:
    headers = {"Authorization": f"Bearer {bearer}"}
    return (await server.call("POST", "/jobs", {"queue": "q", "kind": "k"}, headers=headers))[0]


async def test_each_algorithm_opens_the_app_plane(make_server: MakeServer, jwks_url: str) -> None:
    server = await make_server(jwks_url=jwks_url, jwt_secret="", jwt_issuer="https://issuer", jwt_audience="atomo")
    for name in KEYS:
        assert await _status(server, _signed(name)) == 201
        assert await _status(server, _signed(name, iss="https://stranger")) == 401
        assert await _status(server, _signed(name, aud="another")) == 401
        assert await _status(server, _signed(name, exp=int(time.time()) - 5)) == 401
    assert await _status(server, token(iss="https://issuer", aud="atomo")) == 401, "HS256 is not configured"


async def test_a_public_key_is_no_secret_to_sign_with(make_server: MakeServer, jwks_url: str) -> None:
    server = await make_server(jwks_url=jwks_url, jwt_secret=SECRET)
    stranger = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    claims = {"sub": "mallory", "exp": int(time.time()) + 60}
    assert await _status(server, jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": "RS256"})) == 401
    assert await _status(server, jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": "none"})) == 401
    assert await _status(server, token()) == 201, "the secret is configured too"


async def test_keys_that_cannot_be_fetched_are_no_fault_of_the_token(make_server: MakeServer) -> None:
    server = await make_server(jwks_url="http://127.0.0.1:1/none", jwt_secret="")
    assert await _status(server, _signed("RS256")) == 503
