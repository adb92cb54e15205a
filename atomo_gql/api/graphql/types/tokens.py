"""Worker tokens, and what mutations answer, as GraphQL shows them."""

from datetime import datetime

import strawberry

from atomo_gql.api.graphql.types.paging import PageInfo, cursor_of
from atomo_gql.domain import principals as domain
from atomo_gql.domain.paging import Page
from atomo_gql.service import manage

SORT = "token"


@strawberry.type(description="A worker's credential, without its secret.")
class WorkerToken:
    """Scoped to queues, and perhaps to a tenant."""

    id: strawberry.ID = strawberry.field(description="What it is revoked by.")
    name: str = strawberry.field(description="For people.")
    queues: list[str] = strawberry.field(description='What it may lease; ["*"]: any.')
    tenant_id: str | None = strawberry.field(description="Whose jobs it may lease; null: everybody's.")
    is_revoked: bool = strawberry.field(description="Whether it opens nothing any more.")
    created_at: datetime = strawberry.field(description="When it was minted.")
    created_by: str = strawberry.field(description="Who minted it.")
    revoked_at: datetime | None = strawberry.field(description="When it was revoked.")
    kinds: list[str] | None = strawberry.field(description="What kinds it may lease; null: any.")
    expires_at: datetime | None = strawberry.field(description="When it ends by itself; null: never.")
    last_used_at: datetime | None = strawberry.field(description="When it was last used, give or take a minute.")

    @classmethod
    def of(cls, token: domain.WorkerToken) -> "WorkerToken":
        """From the domain."""
        return cls(
            id=strawberry.ID(str(token.id)),
            name=token.name,
            queues=list(token.queues),
            tenant_id=token.tenant,
            is_revoked=token.is_revoked,
            created_at=token.created_at,
            created_by=token.created_by,
            revoked_at=token.revoked_at,
            kinds=None if token.kinds is None else list(token.kinds),
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
        )


@strawberry.type(description="A new worker token. Its secret is shown this once.")
class MintedWorkerToken:
    """What `mintWorkerToken` and `rotateWorkerToken` answer."""

    id: strawberry.ID = strawberry.field(description="What it is revoked by.")
    token: str = strawberry.field(description="The secret: wkr_…; it is kept nowhere.")
    name: str = strawberry.field(description="For people.")
    queues: list[str] = strawberry.field(description='What it may lease; ["*"]: any.')
    tenant_id: str | None = strawberry.field(description="Whose jobs it may lease; null: everybody's.")
    kinds: list[str] | None = strawberry.field(description="What kinds it may lease; null: any.")
    expires_at: datetime | None = strawberry.field(description="When it ends by itself; null: never.")

    @classmethod
    def of(cls, token: domain.WorkerToken, secret: str) -> "MintedWorkerToken":
        """From the domain."""
        return cls(
            id=strawberry.ID(str(token.id)),
            token=secret,
            name=token.name,
            queues=list(token.queues),
            tenant_id=token.tenant,
            kinds=None if token.kinds is None else list(token.kinds),
            expires_at=token.expires_at,
        )


@strawberry.type(description="A worker token in a list.")
class WorkerTokenEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque.")
    node: WorkerToken = strawberry.field(description="The token.")


@strawberry.type(description="A page of worker tokens, newest first (Relay).")
class WorkerTokenConnection:
    """Relay's own shape."""

    edges: list[WorkerTokenEdge] = strawberry.field(description="The tokens, each with its cursor.")
    nodes: list[WorkerToken] = strawberry.field(description="The tokens.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")

    @classmethod
    def of(cls, page: Page[domain.WorkerToken]) -> "WorkerTokenConnection":
        """From the domain."""
        edges = [WorkerTokenEdge(cursor=cursor_of(SORT, str(t.id)), node=WorkerToken.of(t)) for t in page.items]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo.of(page, [edge.cursor for edge in edges]),
        )


@strawberry.type(description="A token with which to watch one job, and nothing else; for a page.")
class JobToken:
    """What `jobToken` answers."""

    token: str = strawberry.field(description="A JWT for jobProgress and /realtime/ws.")
    expires_at: datetime = strawberry.field(description="When it ends.")


@strawberry.type(description="What a change of many jobs came to.")
class BulkChange:
    """What `retryJobs` and `cancelJobs` answer."""

    count: int = strawberry.field(description="Jobs changed; in a dry run, those that would be.")
    ids: list[strawberry.ID] = strawberry.field(description="Which.")
    has_more: bool = strawberry.field(description="Whether more match, beyond the limit.")
    is_dry_run: bool = strawberry.field(description="Whether nothing was changed.")

    @classmethod
    def of(cls, change: manage.BulkChange, *, dry_run: bool) -> "BulkChange":
        """From the service."""
        return cls(
            count=len(change.ids),
            ids=[strawberry.ID(str(job_id)) for job_id in change.ids],
            has_more=change.has_more,
            is_dry_run=dry_run,
        )
