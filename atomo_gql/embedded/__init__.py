"""An embedded PostgreSQL: found, made, started, watched and stopped by this process, with no question asked."""

from atomo_gql.embedded.binaries import find_binaries
from atomo_gql.embedded.errors import EmbeddedPostgresError
from atomo_gql.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "find_binaries"]
