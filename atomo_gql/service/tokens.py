"""Worker tokens: minting, listing, revoking, and recognising them."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from atomo_gql.domain.errors import BadUserInput, Forbidden, NotFound, Unauthenticated
from atomo_gql.domain.paging import Page, Window
from atomo_gql.domain.principals import Caller, WorkerToken
from atomo_gql.domain.rules import MAX_GRACE_SECS, check_kinds, check_moment, check_name, check_queues, check_range
from atomo_gql.service.access import require_admin, visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.store import tokens as store
from atomo_gql.store.batching import Batcher

PREFIX = "wkr_"
_CACHE_SECS = 30.0
_CACHE_SIZE = 10_000


class TokenService:
    """The admin's verbs on worker tokens, and the worker plane's authentication."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._seen = resources.seen
        self._finding: Batcher[bytes, WorkerToken | None] = Batcher(lambda hashes: store.find(self._database, hashes))
        self._living: Batcher[UUID, bool] = Batcher(self._are_live)
        self._known: OrderedDict[bytes, tuple[float, WorkerToken]] = OrderedDict()

    async def mint(
        self,
        caller: Caller,
        name: str,
        queues: Sequence[str],
        *,
        tenant: str | None = None,
        kinds: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[WorkerToken, str]:
        """A new token, and its secret, which is shown this once and kept nowhere.

        A tenant-bound admin's token is for that tenant; another admin may name one. `kinds` None: any.

        Raises:
            Forbidden: not an admin, or another tenant's.
            BadUserInput: a field breaks a rule.
        """
        require_admin(caller)
        check_name("name", name)
        checked = check_queues("queues", queues)
        if tenant is not None:
            check_name("tenantId", tenant)
            if caller.tenant is not None and tenant != caller.tenant:
                raise Forbidden("tenantId must be your own tenant")
        if expires_at is not None and check_moment("expiresAt", expires_at) <= datetime.now(UTC):
            raise BadUserInput("expiresAt must lie ahead", field="expiresAt")
        secret = _new_secret()
        token = await store.mint(
            self._database,
            tenant=caller.tenant or tenant or "",
            name=name,
            queues=checked,
            kinds=check_kinds("kinds", kinds),
            expires_at=expires_at,
            token_hash=_digest(secret),
            created_by=caller.actor,
        )
        return token, secret

    async def all_of(self, caller: Caller) -> list[WorkerToken]:
        """The tokens the caller may see, oldest first.

        Raises:
            Forbidden: not an admin.
        """
        require_admin(caller)
        return await store.all_of(self._database, visible_tenant(caller))

    async def page(self, caller: Caller, window: Window[UUID]) -> Page[WorkerToken]:
        """A page of the tokens the caller may see, newest first.

        Raises:
            Forbidden: not an admin.
        """
        require_admin(caller)
        return window.page(
            await store.page(
                self._database,
                visible_tenant(caller),
                **window.walk(ascending=False),
            )
        )

    async def get(self, caller: Caller, token_id: UUID) -> WorkerToken:
        """A token, live or revoked.

        Raises:
            Forbidden: not an admin.
            NotFound: unknown, or another tenant's.
        """
        require_admin(caller)
        token = await store.get(self._database, token_id, visible_tenant(caller))
        if token is None:
            raise NotFound(f"there is no worker token {token_id}")
        return token

    async def rotate(self, caller: Caller, token_id: UUID, grace_secs: int | None = None) -> tuple[WorkerToken, str]:
        """A successor with the same name and scope, and its secret. The old token goes on until it is revoked, or for
        `grace_secs` more.

        Raises:
            Forbidden: not an admin.
            NotFound: unknown, dead already, or another tenant's.
            BadUserInput: the grace is out of range.
        """
        require_admin(caller)
        if grace_secs is not None:
            check_range("graceSecs", grace_secs, 0, MAX_GRACE_SECS)
        secret = _new_secret()
        token = await store.rotate(
            self._database, token_id, visible_tenant(caller), _digest(secret), caller.actor, grace_secs
        )
        if token is None:
            raise NotFound(f"there is no live worker token {token_id}")
        return token, secret

    async def revoke(self, caller: Caller, token_id: UUID) -> None:
        """End a token, at once and on every replica.

        Raises:
            Forbidden: not an admin.
            NotFound: unknown, already revoked, or another tenant's.
        """
        require_admin(caller)
        if not await store.revoke(self._database, token_id, visible_tenant(caller), caller.actor):
            raise NotFound(f"there is no live worker token {token_id}")

    async def authenticate(self, secret: str) -> WorkerToken:
        """The token of this secret, perhaps as it was some seconds ago.

        What a token may do never changes, so it is remembered for a while. That it still lives is decided by the
        statements that act with it, in their own transaction; `require_live` asks where none does.

        Raises:
            Unauthenticated: it opens nothing.
        """
        if not secret.startswith(PREFIX) or len(secret) > 200:
            raise Unauthenticated("X-Worker-Token must be a worker token: wkr_…")
        key = _digest(secret)
        known = self._known.get(key)
        if known and known[0] > time.monotonic():
            self._seen.token(known[1].id)
            return known[1]
        token = await self._finding.submit(key)
        if token is None:
            self._known.pop(key, None)
            raise Unauthenticated("the worker token is unknown, revoked or expired")
        self._known[key] = (time.monotonic() + _CACHE_SECS, token)
        while len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        self._seen.token(token.id)
        return token

    async def require_live(self, token: WorkerToken) -> None:
        """Refuse a token that has been revoked or is over.

        Raises:
            Unauthenticated: it is.
        """
        if not await self._living.submit(token.id):
            for key in [key for key, (_, known) in self._known.items() if known.id == token.id]:
                del self._known[key]
            raise Unauthenticated("the worker token is unknown, revoked or expired")

    async def _are_live(self, ids: Sequence[UUID]) -> list[bool]:
        live = await store.live(self._database, ids)
        return [token_id in live for token_id in ids]


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _digest(secret: str) -> bytes:
    try:
        return hashlib.sha256(secret.encode()).digest()
    except UnicodeEncodeError:
        raise BadUserInput("X-Worker-Token must be plain text", field="X-Worker-Token") from None
