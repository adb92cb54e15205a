"""All that comes before a server can start. It blocks, for a second at the first start, and wants a thread."""

from collections.abc import Callable
from pathlib import Path

from atomo_gql.embedded import cluster, upgrade
from atomo_gql.embedded.account import choose_account
from atomo_gql.embedded.binaries import find_binaries
from atomo_gql.embedded.errors import EmbeddedPostgresError
from atomo_gql.embedded.place import locate, note_place, place
from atomo_gql.embedded.postmaster import Prepared
from atomo_gql.embedded.runtime import usable_binaries


def prepare(data: Path, log: Callable[[str], None], *, may_make: bool) -> Prepared:
    """Find or make everything a server on the data folder needs. The caller holds the lock.

    `may_make` False refuses to make a cluster where there is none: a service that runs must not go on with an empty
    one. Programs and data may be of two versions: see `upgrade`. Raises EmbeddedPostgresError.
    """
    account = choose_account(locate(data).cluster)
    files = place(data, account)
    account = choose_account(files.cluster)
    folder, version = usable_binaries(find_binaries(), account, files.runtime)
    upgrade.finish(files, log)
    if not cluster.exists(files.cluster):
        if not may_make or locate(data).home != data:
            raise EmbeddedPostgresError(
                f"The database of {data} was kept in {files.cluster}, and that folder is gone. Put it back (from a "
                f"backup), or remove all of {data} to begin with an empty database."
            )
        log(f"making an empty database in {files.cluster} (PostgreSQL {version})")
        cluster.make(files, folder, version, account)
    elif files.home != data:
        log(f"the data is in {files.cluster}, for PostgreSQL's user may not enter {data}")
    note_place(files)
    cluster.check(files.cluster, account, log)
    return Prepared(files, folder, version, account)
