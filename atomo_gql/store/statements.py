"""The named statements of `sql/queries`, and where `sql/` is."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_HEADER = re.compile(r"^-- name: (\w+)\((.*)\) :(one|many)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: what PostgreSQL runs is `text`, as it stands in the file."""

    name: str
    parameters: tuple[tuple[str, str], ...]  # (name, type), $1 first
    cardinality: str  # "one" or "many" rows
    text: str
    file: str


@cache
def sql_root() -> Path:
    """The folder `sql/`: inside the installed package, or beside it in a checkout.

    Raises:
        FileNotFoundError: neither is there; the installation is broken.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / "schema").is_dir():
            return folder
    raise FileNotFoundError(f"no sql/ folder in {package} or beside it; reinstall atomo-gql")


@cache
def statements() -> dict[str, Statement]:
    """Every named statement, by name."""
    found: dict[str, Statement] = {}
    for file in sorted((sql_root() / "queries").glob("*.sql")):
        text = file.read_text(encoding="utf-8")
        headers = list(_HEADER.finditer(text))
        for header, following in zip(headers, [*headers[1:], None], strict=True):
            name, parameters, cardinality = header.groups()
            if name in found:
                raise ValueError(f"{file.name}: a second statement named {name}")
            body = text[header.end() : following.start() if following else None].strip()
            pairs = tuple((p.split(" ", 1)[0], p.split(" ", 1)[1]) for p in parameters.split(", ") if p)
            found[name] = Statement(name, pairs, cardinality, body, file.name)
    return found
