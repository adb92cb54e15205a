"""Reading environment variables: their values, the files that hold them, and names that mean nothing to us.

Every variable of `settings.VARIABLES` can also come from a file, which its name with `_FILE` names.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from atomo_gql.address import parse_address

FROM_FILE = "_FILE"
"""The end of the name of a variable that names a file with the value."""

CLIENT_VARIABLES = (
    *("ATOMO_URL", "ATOMO_TOKEN", "ATOMO_WORKER_TOKEN"),
    *("ATOMO_QUEUES", "ATOMO_CONCURRENCY", "ATOMO_VISIBILITY_SECS", "ATOMO_DRAIN_SECS"),  # by the conformance kit
)
"""What clients and workers read; a server that finds them in its environment says nothing."""

_MAX_FILE_BYTES = 65_536
_SIMILARITY = 0.6  # of two names, 0 to 1: from here on the one may be meant by the other
_PREFIX = "ATOMO_"

# Kubernetes tells every container of the services beside it: of one that is called `atomo`, in variables such as these.
_KUBERNETES = re.compile(
    r"ATOMO_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")


def read_texts(names: Collection[str], environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The text of each variable that is set, from the environment or a file; and a line for each that is wrong.

    A variable that is empty counts as absent. White space around a value is cut.
    """
    texts: dict[str, str] = {}
    wrong: list[str] = []
    for name in names:
        text = environment.get(name, "").strip()
        file = environment.get(name + FROM_FILE, "").strip()
        try:
            if text and file:
                raise ValueError(f"and {name}{FROM_FILE} are both set: unset one of them")
            text.encode()  # what is no UTF-8 cannot be encoded again
        except UnicodeEncodeError:
            wrong.append(f"{name} must be UTF-8 text")
            continue
        except ValueError as error:
            wrong.append(f"{name} {error}")
            continue
        try:
            if found := text or (file and _read_file(file)):
                texts[name] = found
        except ValueError as error:
            wrong.append(f"{name}{FROM_FILE} {error}")
    return texts, wrong


def _read_file(name: str) -> str:
    path = expanded(name)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"names {path}, which cannot be read: {error.strerror or error}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"names {path}, which has more than {_MAX_FILE_BYTES // 1024} KiB: no setting is so long")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"names {path}, which must be UTF-8 text") from None
    if "\0" in text:
        raise ValueError(f"names {path}, which must be text without NUL")
    text = text.strip()
    if not text:
        raise ValueError(f"names {path}, which is empty: write the value into it, or unset the variable")
    return text


def unknown_names(names: Collection[str], environment: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that begin with ATOMO_ and are no setting, each with the setting that may have been meant."""
    known = {*names, *(name + FROM_FILE for name in names), *CLIENT_VARIABLES}
    return {
        name: _nearest(name.upper(), known)
        for name, value in sorted(environment.items())
        if name.upper().startswith(_PREFIX) and name not in known and not _is_of_kubernetes(name, value)
    }


def _is_of_kubernetes(name: str, value: str) -> bool:
    if name.endswith("_PORT") and not name.endswith("_SERVICE_PORT"):
        return bool(_KUBERNETES_PORT.match(value))  # ATOMO_PORT=3000 is somebody's mistake for PORT
    return bool(_KUBERNETES.fullmatch(name))


def _nearest(name: str, known: Collection[str]) -> str | None:
    if name in known:
        return name  # but for small letters
    if (bare := name.removeprefix(_PREFIX)) in known:
        return bare
    found = difflib.get_close_matches(name, sorted(known), 1, _SIMILARITY)
    return found[0] if found else None


def expanded(name: str) -> Path:
    """The path, with `~` as the home folder: a `.env` file or a manifest knows no shell that would expand it."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ValueError(f"is {name}, and there is no such home folder: write the whole path") from None


def text(value: str) -> str:
    """Any text."""
    return value


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return number

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """A number within bounds."""

    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return number

    return read


def choice(*allowed: str) -> Callable[[str], str]:
    """One of some words."""

    def read(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return read


def yes_or_no(value: str) -> bool:
    """`true` or `false`, in letters of any case."""
    if value.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return value.lower() == "true"


def url(*schemes: str) -> Callable[[str], str]:
    """A URL of one of these schemes."""

    def read(value: str) -> str:
        try:
            scheme = urlsplit(value).scheme
        except ValueError:
            raise ValueError("cannot be read: percent-encode signs such as [ # / % in its password") from None
        if scheme not in schemes:
            raise ValueError(f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}")
        return value

    return read


def database_address(value: str) -> str:
    """The address of a PostgreSQL."""
    parse_address(value)
    return value


def server_url(*schemes: str) -> Callable[[str], str]:
    """A URL of one of these schemes, whose port, if it names one, is a port."""
    read_url = url(*schemes)

    def read(value: str) -> str:
        read_url(value)
        try:
            _ = urlsplit(value).port
        except ValueError:
            raise ValueError(
                "must have a whole number from 0 to 65535 as its port; percent-encode signs such as [ # / % in its "
                "password"
            ) from None
        return value

    return read


def folder(value: str) -> Path:
    """A folder that is there, and that this user may list."""
    path = expanded(value)
    try:
        next(path.iterdir(), None)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"must be a folder; there is none at {path}") from None
    except OSError as error:
        raise ValueError(f"names {path}, which cannot be read: {error.strerror or error}") from None
    return path


def origins(value: str) -> tuple[str, ...]:
    """Origins of pages, parted by commas, or `*`."""
    found = tuple(origin.strip() for origin in value.split(",") if origin.strip())
    for origin in found:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError(f"must be origins such as https://app.example, parted by commas, or *; not {origin!r}")
    return found


def secret(value: str) -> str:
    """Enough bytes for HS256."""
    if len(value.encode()) < 32:
        raise ValueError("must have at least 32 bytes; make one with: openssl rand -hex 32")
    return value
