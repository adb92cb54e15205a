"""Data folders that every user can reach, unlike pytest's own below a closed folder; a log that can be waited on."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atomo_gql.embedded import EmbeddedPostgres

from .helpers import Diary


@pytest.fixture(scope="session")
async def pattern() -> AsyncIterator[Path]:
    """A data folder that was used and stopped, to copy: that is quicker than to make each."""
    folder = Path(tempfile.mkdtemp(prefix="atomo-embedded-")).resolve()
    folder.chmod(0o755)
    postgres = EmbeddedPostgres(folder)
    await postgres.start()
    await postgres.stop()
    for name in ("postgres.port", "postgres.log"):
        (folder / name).unlink()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="atomo-embedded-")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def fresh(place: Path) -> Path:
    """A data folder that does not exist yet."""
    return place / "data"


@pytest.fixture
def folder(pattern: Path, place: Path) -> Path:
    """A data folder that has a cluster, with no server on it and no port yet."""
    # Copied as root it is root's; the start gives it back, as it does after a restored backup.
    return shutil.copytree(pattern, place / "data")


@pytest.fixture
def diary() -> Diary:
    """A log that can be waited on."""
    return Diary()


@pytest.fixture
def python() -> str:
    """A Python that every user can run."""
    found = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    check = [found or "false", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if found is None or subprocess.run(check, check=False).returncode:
        pytest.skip("no Python 3.11 that every user can run")
    return found
