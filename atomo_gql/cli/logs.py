"""What is written down, and how."""

import logging
import sys
from typing import Any

import structlog

from atomo_gql.settings import Settings


def set_up_logs(settings: Settings, *, server: int | None = None) -> None:
    """Structured lines on standard error: for people, or as JSON; each with the number of the server, if it has one."""

    def say_which(_: object, __: str, event: dict[str, Any]) -> dict[str, Any]:
        return event if server is None else {**event, "server": server}

    shared: list[Any] = [
        say_which,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Any]
    if settings.log_format == "json":
        final = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The plain traceback shows no local variables: tokens and payloads are among them.
        plain: Any = structlog.dev.plain_traceback
        final = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[settings.log_level.upper()]))
    logging.getLogger("atomo_gql").setLevel(settings.log_level.upper())
    # uvicorn says so of every upgrade that is refused with an answer, which is in order.
    refused = "ASGI callable returned without completing handshake."
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.getMessage() != refused)
    # asyncio says so of every write to a client that has gone, after the fifth.
    logging.getLogger("asyncio").addFilter(lambda record: record.getMessage() != "socket.send() raised exception.")
    # The driver says so, with a traceback, of every connection that a database on its way down did not give it; whoever
    # needs one says it.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
