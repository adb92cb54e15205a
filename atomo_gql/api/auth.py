"""A bearer token to the one who is calling.

Which algorithms are accepted is decided here, never by the token: HS256 with the secret, and RS256, ES256 and EdDSA
with the keys of the JWKS. A key is only ever used with the algorithm it is for.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import jwt

from atomo_gql.domain.errors import BadUserInput, Forbidden, Unauthenticated, Unavailable
from atomo_gql.domain.jobs import Job
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import check_name, parse_id
from atomo_gql.settings import Settings

_ASYMMETRIC = ("RS256", "ES256", "EdDSA")
_CACHE_SIZE = 10_000
_MAX_TOKEN = 16_384  # characters
_MAX_CLAIM = 512


class Authenticator:
    """Verifies JWTs, and remembers those it has verified until they expire."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._keys = jwt.PyJWKClient(settings.jwks_url, cache_keys=True, timeout=10) if settings.jwks_url else None
        self._known: OrderedDict[str, Caller] = OrderedDict()

    async def caller(self, authorization: str | None, tenant_header: str | None = None) -> Caller:
        """Who is calling, from the header `Authorization` (or what stands for it) and `X-Tenant-ID`.

        Raises:
            Unauthenticated: no token, or one that is not valid.
            Forbidden: the header names a tenant that is not the caller's to act for.
        """
        if not authorization:
            raise Unauthenticated("a token is needed: Authorization: Bearer <JWT>")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Authorization must be: Bearer <JWT>")
        caller = await self.verify(token.strip())
        return caller if tenant_header is None else _acting_for(caller, tenant_header)

    async def verify(self, token: str) -> Caller:
        """Whom a token names.

        Raises:
            Unauthenticated: it is not valid; the message says why.
        """
        known = self._known.get(token)
        if known and known.expires_at is not None and known.expires_at > time.time():
            return known
        claims = await self._claims(token)
        caller = _caller_of(claims)
        self._known[token] = caller
        while len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return caller

    def sign_pass(self, caller: Caller, job: Job, seconds: int) -> tuple[str, float]:
        """A token with which to watch that job, and nothing else; and when it ends.

        Raises:
            BadUserInput: this server has no secret to sign with.
        """
        if not self._secret:
            raise BadUserInput("a jobToken needs JWT_SECRET, which this server does not have; it only knows a JWKS")
        now = int(time.time())
        claims = {"sub": caller.subject, "job": str(job.id), "iat": now, "exp": now + seconds}
        optional = {"tenant_id": job.tenant, "iss": self._issuer, "aud": self._audience}
        claims |= {name: value for name, value in optional.items() if value is not None}
        return jwt.encode(claims, self._secret, algorithm="HS256"), float(now + seconds)

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {_MAX_TOKEN} characters")
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            key, allowed = await self._key(token, algorithm)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=allowed,
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise Unavailable("the keys to check tokens with cannot be fetched just now; try again") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise Unauthenticated(f"the token is not valid: {_reason(error)}") from None
        return claims

    async def _key(self, token: str, algorithm: object) -> tuple[Any, list[str]]:
        if algorithm == "HS256" and self._secret:
            return self._secret, ["HS256"]
        if self._keys and algorithm in _ASYMMETRIC:
            found = await asyncio.to_thread(self._keys.get_signing_key_from_jwt, token)
            return found.key, [str(algorithm)]
        raise jwt.InvalidAlgorithmError("its algorithm is not accepted here")


def _reason(error: Exception) -> str:
    text = str(error)
    return (text[:1].lower() + text[1:])[:200] or type(error).__name__


def _caller_of(claims: dict[str, Any]) -> Caller:
    tenant = claims.get("tenant_id")
    try:
        subject = check_name("sub", claims["sub"], _MAX_CLAIM)
        if tenant is not None:
            if not isinstance(tenant, str):
                raise BadUserInput("tenant_id must be a string")
            check_name("tenant_id", tenant)
        only_job = None if claims.get("job") is None else parse_id("job", claims["job"])
    except BadUserInput as error:
        raise Unauthenticated(f"the token is not valid: {error.detail}") from None
    return Caller(
        subject=subject,
        is_admin=claims.get("role") == "admin",
        bound_tenant=tenant,
        only_job=only_job,
        expires_at=float(claims["exp"]),
    )


def _acting_for(caller: Caller, tenant: str) -> Caller:
    check_name("X-Tenant-ID", tenant)
    if caller.only_job is not None:
        raise Forbidden("this token can watch one job, and acts for nobody")
    if caller.bound_tenant == tenant:
        return caller
    if caller.bound_tenant is not None:
        raise Forbidden("X-Tenant-ID names another tenant than the token's")
    if not caller.is_admin:
        raise Forbidden("X-Tenant-ID is for admins, and for tokens of that tenant")
    return replace(caller, acting_tenant=tenant)
