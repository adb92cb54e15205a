"""`python -m tests.guard`: measure, and make it the baseline on purpose."""

import os
import subprocess
import sys

from tests.guard.baseline import FILE, RENEWING

if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "-q", str(FILE.parent), "-k", "test_no_hot_path_is_costlier"]
    if status := subprocess.run(command, env={**os.environ, RENEWING: "1"}).returncode:
        sys.exit(status)
    print(f"{FILE.name} is new; commit it with the change that moved it")
