"""The one place where the parts are put together."""

from collections.abc import Awaitable

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from atomo_gql.api.auth import Authenticator
from atomo_gql.api.graphql import explorer
from atomo_gql.api.graphql.app import GraphQLApp
from atomo_gql.api.http import RequestLog, not_found
from atomo_gql.api.realtime import RealtimeSocket
from atomo_gql.api.rest.endpoint import Doors
from atomo_gql.api.rest.routes import rest_routes
from atomo_gql.background.loops import make_loops
from atomo_gql.realtime.hub import Hub
from atomo_gql.realtime.transport import CHANNEL, GAP, Transport, database_transport, url_transport
from atomo_gql.service.context import Limits, Resources
from atomo_gql.service.housekeeping import Retention
from atomo_gql.service.services import Services, make_services
from atomo_gql.settings import Settings
from atomo_gql.store.database import Database
from atomo_gql.store.listener import Listener


class _Shortcut:
    """In front of the router: a path without parameters is looked up, not matched against one route after another."""

    def __init__(self, router: Router) -> None:
        self._router = router
        plain = [r for r in router.routes if isinstance(r, Route) and "{" not in r.path]
        self._routes = {route.path: route for route in plain}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """As the router would."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            return self._router(scope, receive, send)
        scope["route"] = route
        return route.app(scope, receive, send)


class UnfitWay(Exception):
    """The way to the database is not one that the settings can work with; the message says what to set."""


class Application:
    """A server's parts, from settings and the address of a migrated database."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        self.database = Database(
            dsn, dispatch_size=max(2, settings.pool_size * 5 // 8), query_size=max(2, settings.pool_size * 3 // 8)
        )
        listen_dsn = settings.listen_url or dsn
        self._listen_url = settings.listen_url
        self._has_wire = settings.broadcast_url is not None
        self.hub = Hub(_transport(settings, self.database, listen_dsn))
        # What is enqueued by SQL is told on the database's channel, whatever the wire between the replicas is.
        hub = self.hub
        self._ear: Listener | None = None
        if settings.broadcast_url:
            self._ear = Listener(listen_dsn, CHANNEL, hub.take_in, lambda: hub.take_in(GAP))
        limits = Limits(
            max_body=settings.max_body,
            max_waiting=settings.max_waiting,
            max_subscriptions=settings.max_subscriptions,
            spare_deliveries=settings.spare_deliveries,
        )
        self.services: Services = make_services(Resources(self.database, self.hub, limits), retention(settings))
        self._loops = make_loops(self.services, settings.reclaim_interval)
        self._origins = settings.allowed_origins
        doors = Doors(
            self.services, Authenticator(settings), settings.max_body, max(settings.max_body, settings.max_batch)
        )
        self._graphql = GraphQLApp(doors)
        self.asgi = self._asgi(doors, settings.max_connections)

    async def start(self) -> None:
        """Connect, and begin what runs by itself.

        Raises:
            Unavailable: the database cannot be reached.
            UnfitWay: nothing could be heard on this way to it.
        """
        await self.database.open()
        await self.check_way()
        self.database.watch()
        await self.hub.start()
        if self._ear:
            await self._ear.start()
        self.services.leases.room.start()
        for loop in self._loops:
            loop.start()

    def let_nobody_wait(self) -> None:
        """The server is about to end: long polls are answered now, and streams of events are cut."""
        self.services.leases.room.close()
        self._graphql.end_streams()

    async def check_way(self) -> None:
        """See that notifications can be heard, or need not be: a pooler in transaction mode passes none on.

        Raises:
            Unavailable: the database cannot be reached.
            UnfitWay: they cannot, and nothing stands in for them.
        """
        if self._listen_url:
            if reason := await self.database.check_listening(self._listen_url):
                raise UnfitWay(f"ATOMO_LISTEN_URL {reason}; set it to a direct address of the same database")
            return
        if not (await self.database.way()).is_shared:
            return
        if not self._has_wire:
            raise UnfitWay(
                "DATABASE_URL leads through a pooler in transaction mode, where nothing can be listened to: set "
                "ATOMO_LISTEN_URL to a direct address of the same database, or ATOMO_BROADCAST_URL to redis://…"
            )
        self._ear = None  # jobs that are enqueued by SQL are found by looking, within a second

    async def stop(self) -> None:
        """End in good order: those who wait are answered first."""
        await self.services.leases.room.stop()
        for loop in self._loops:
            await loop.stop()
        if self._ear:
            await self._ear.stop()
        await self.hub.stop()
        await self.database.close()

    def _asgi(self, doors: Doors, most: int) -> ASGIApp:
        router = Router(
            [
                *rest_routes(doors),
                Route("/graphql", self._graphql),
                WebSocketRoute("/graphql", self._graphql),
                Route("/graphql/assets/{name}", explorer.Assets()),
                WebSocketRoute("/realtime/ws", RealtimeSocket(doors)),
            ],
            redirect_slashes=False,
            default=not_found,
        )
        return RequestLog(self._cross_origin(_Shortcut(router)), most)

    def _cross_origin(self, app: ASGIApp) -> ASGIApp:
        if not self._origins:
            return app
        return CORSMiddleware(
            app,
            allow_origins=self._origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "authorization",
                "content-type",
                "x-tenant-id",
                "x-worker-token",
                "x-request-id",
                "idempotency-key",
                "traceparent",
            ],
            expose_headers=["x-request-id", "retry-after"],
            max_age=600,
        )


def retention(settings: Settings) -> Retention:
    """How long the settings say that what has ended is kept."""
    return Retention(settings.retention_succeeded_days, settings.retention_dead_days, settings.retention_events_days)


def _transport(settings: Settings, database: Database, listen_dsn: str) -> Transport:
    if settings.broadcast_url:
        return url_transport(settings.broadcast_url)
    return database_transport(lambda channel, hear, gap: Listener(listen_dsn, channel, hear, gap), database.notify)
