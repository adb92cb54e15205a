"""The steps that bring a schema from one version to the next, and which versions a server can work with."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from atomo_gql.store.statements import sql_root

BASELINE = 13
"""The version before the first step in `sql/migrations`."""

_OLDEST_SERVER = re.compile(r"^-- oldest server: (\d+)$", re.MULTILINE)


class SchemaError(Exception):
    """The database's schema is not one this version can work with; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A step from one version to the next."""

    version: int
    name: str
    text: str

    @property
    def is_online(self) -> bool:
        """Whether its statements commit one by one, beside a running service."""
        return self.text.startswith("-- online")

    @property
    def oldest_server(self) -> int:
        """The lowest schema version whose servers can work with what it makes."""
        found = _OLDEST_SERVER.search(self.text)
        return int(found[1]) if found else self.version

    @property
    def checksum(self) -> str:
        """SHA-256 of its text."""
        return checksum_of(self.text)


def known_migrations(folder: Path | None = None) -> list[Migration]:
    """The steps that this version brings, in order.

    Raises:
        SchemaError: their numbers have a gap; the installation is broken.
    """
    files = sorted((folder or sql_root() / "migrations").glob("[0-9]*.sql"))
    steps = [Migration(int(f.stem[:4]), f.stem[5:], f.read_text(encoding="utf-8")) for f in files]
    if [step.version for step in steps] != list(range(BASELINE + 1, BASELINE + 1 + len(steps))):
        raise SchemaError(
            f"the files in sql/migrations are not numbered {BASELINE + 1:04}, {BASELINE + 2:04} …: "
            f"{[f.name for f in files]}"
        )
    return steps


def newest_version(steps: list[Migration] | None = None) -> int:
    """The version of the schema that this version speaks."""
    steps = known_migrations() if steps is None else steps
    return steps[-1].version if steps else BASELINE


def misfit(version: int, oldest_server: int, made_by: str | None, newest: int | None = None) -> str | None:
    """Why a server of this version cannot work with a schema of that one; None: it can.

    A server works with its own schema, and with a later one that says so: `oldest_server` is the lowest schema version
    whose servers can work with it.
    """
    newest = newest_version() if newest is None else newest
    if version < newest:
        return f"the schema is version {version}, this server needs {newest}: run atomo-gql migrate"
    if oldest_server > newest:
        by = f", made by atomo-gql {made_by}" if made_by else ""
        return (
            f"the schema is version {version}{by}, and needs servers of schema version {oldest_server} or later; "
            f"this one is of {newest}: start a newer atomo-gql"
        )
    return None


def checksum_of(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
