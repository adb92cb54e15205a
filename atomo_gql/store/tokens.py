"""`sql/queries/tokens.sql`."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from atomo_gql.domain.principals import WorkerToken
from atomo_gql.store import rows
from atomo_gql.store.database import Database


async def mint(
    database: Database,
    *,
    tenant: str,
    name: str,
    queues: Sequence[str],
    kinds: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    token_hash: bytes,
    created_by: str,
) -> WorkerToken:
    """Keep a new token, by its hash."""
    row = await database.fetch_one(
        "token_mint",
        tenant,
        name,
        list(queues),
        token_hash,
        created_by,
        None if kinds is None else list(kinds),
        expires_at,
    )
    return rows.worker_token(row)


async def rotate(
    database: Database, token_id: UUID, tenant: str | None, token_hash: bytes, actor: str, grace_secs: int | None
) -> WorkerToken | None:
    """Keep a successor of a live token, which ends after the grace, if there is one; None: there is no such token."""
    row = await database.fetch_one("token_rotate", token_id, tenant, token_hash, actor, grace_secs)
    return None if row is None else rows.worker_token(row)


async def used(database: Database, ids: Sequence[UUID]) -> None:
    """Note that these tokens were used just now."""
    await database.fetch("token_used", list(ids))


async def find(database: Database, token_hashes: Sequence[bytes]) -> list[WorkerToken | None]:
    """The live token of each hash."""
    found = await database.dispatch("token_find", list(token_hashes))
    by_hash = {bytes(row["token_hash"]): rows.worker_token(row) for row in found}
    return [by_hash.get(token_hash) for token_hash in token_hashes]


async def live(database: Database, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the tokens that are neither revoked nor over."""
    return {row["id"] for row in await database.dispatch("token_live", list(set(ids)))}


async def all_of(database: Database, tenant: str | None) -> list[WorkerToken]:
    """The tokens of a tenant ('': those without one; None: all), oldest first."""
    return [rows.worker_token(row) for row in await database.fetch("token_list", tenant)]


async def page(
    database: Database, tenant: str | None, *, above: UUID | None, below: UUID | None, descending: bool, most: int
) -> list[WorkerToken]:
    """At most so many tokens between two ids, in the order of their making."""
    found = await database.fetch("token_page", tenant, above, below, descending, most)
    return [rows.worker_token(row) for row in found]


async def get(database: Database, token_id: UUID, tenant: str | None) -> WorkerToken | None:
    """A token that the tenant may see."""
    row = await database.fetch_one("token_get", token_id, tenant)
    return None if row is None else rows.worker_token(row)


async def revoke(database: Database, token_id: UUID, tenant: str | None, actor: str) -> bool:
    """Revoke; False when there is none to revoke."""
    return await database.fetch_one("token_revoke", token_id, tenant, actor) is not None
