"""The version before this one: its files, from this repository's history, and a virtual environment that runs it."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PREVIOUS = "c8930dfe41dd61d3a65cdb0984ed8898a78b625c"
"""The commit of the last release. A release moves it to its own commit (docs/adr/0014)."""

ROOT = Path(__file__).parents[2]
_CACHE = ROOT / ".cache"


class NoPreviousVersion(Exception):
    """The version before this one cannot be had here; the message is one sentence that says why."""


def files_under(folder: str) -> dict[str, str]:
    """The text of each file under a folder of the previous version, by its path in the repository.

    Raises:
        NoPreviousVersion: there is no git, no history, or a shallow one without that commit.
    """
    paths = _git("ls-tree", "-r", "--name-only", PREVIOUS, "--", folder).decode().splitlines()
    return {path: _git("show", f"{PREVIOUS}:{path}").decode() for path in paths}


def python_of_previous() -> Path:
    """The interpreter of a virtual environment where the previous version is installed as a wheel, with what its lock
    pins. The first call makes it, which takes about half a minute; it is kept in `.cache`.

    Raises:
        NoPreviousVersion: as `files_under`, or no registry of packages can be reached.
    """
    home = _CACHE / f"previous-{PREVIOUS}"
    python, finished = home / "bin" / "python", home / "finished"
    if finished.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)  # one that was interrupted
    with tempfile.TemporaryDirectory() as folder:
        source, wheels = Path(folder, "source"), Path(folder, "wheels")
        source.mkdir()
        subprocess.run(["tar", "-x", "-C", source], input=_git("archive", "--format=tar", PREVIOUS), check=True)
        # The build backend is the present one, pinned by the present lock: no registry is asked for it.
        _pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        _pip(python, "install", "--no-compile", "--no-deps", "--require-hashes", "-r", source / "requirements.lock")
        _pip(python, "install", "--no-compile", "--no-deps", *wheels.iterdir())
    finished.touch()
    return python


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise NoPreviousVersion("git is not installed, so the previous version cannot be read") from None
    except subprocess.CalledProcessError as error:
        raise NoPreviousVersion(_why_not(error.stderr.decode().strip())) from None


def _why_not(words: str) -> str:
    shallow = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--is-shallow-repository"], capture_output=True, text=True, check=False
    )
    if shallow.stdout.strip() == "true":
        return f"this clone is shallow and lacks the previous version, {PREVIOUS[:7]}: run git fetch --unshallow"
    return f"the previous version, {PREVIOUS[:7]}, is not in this folder's git history: {words}"


def _pip(python: str | Path, *arguments: str | Path) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it did not say why"]
        raise NoPreviousVersion(f"pip could not install the previous version, {PREVIOUS[:7]}: {last[0]}")
