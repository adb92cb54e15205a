"""What npm installs for these tests, once."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MISSING = [name for name in ("node", "npm") if shutil.which(name) is None]
# CI installs what is missing, and skips nothing.
NEEDS_NODE = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get("CI"), reason=f"needs Node.js: {' and '.join(MISSING)} missing"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="needs Chromium: chromium is missing"
)


@pytest.fixture(scope="session")
def packages() -> None:
    """What package-lock.json names."""
    stamp = HERE / "node_modules" / ".package-lock.json"
    with (HERE / ".npm-ci.lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
            done = subprocess.run(["npm", "ci", "--silent"], cwd=HERE, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
