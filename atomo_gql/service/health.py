"""Whether this process can do its work."""

from atomo_gql.domain.errors import Unavailable
from atomo_gql.service.context import Resources
from atomo_gql.store.migrations import misfit, newest_version


class HealthService:
    """Readiness, and the numbers for Prometheus."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._newest = newest_version()

    async def check_ready(self) -> None:
        """Return when the database answers and has the schema this version speaks.

        Raises:
            Unavailable: it does not, and why.
        """
        row = await self._database.fetch_one("schema_version")
        if why := misfit(row["version"], row["oldest_server"], row["made_by"], self._newest):
            raise Unavailable(why)
