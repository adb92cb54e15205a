"""Whether this process can do its work."""

from atomo_gql.domain.errors import Unavailable
from atomo_gql.service.context import Resources
from atomo_gql.store.migrations import SchemaError, known_migrations


class HealthService:
    """Readiness, and the numbers for Prometheus."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database

    async def check_ready(self) -> None:
        """Return when the database answers and has the schema this version speaks.

        Raises:
            Unavailable: it does not, and why.
        """
        try:
            row = await self._database.fetch_one("schema_version")
            steps = known_migrations()
        except SchemaError as error:
            raise Unavailable(str(error)) from error
        expected = steps[-1].version if steps else 1
        if row["version"] != expected or row["unfinished"]:
            raise Unavailable(
                f"the schema is version {row['version']}, this server needs {expected}: run atomo-gql migrate"
            )
