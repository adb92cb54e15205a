"""Definitions and bindings from files, read and registered when a server starts.

The folders say what there is: what a file no longer defines is removed. A folder that is not there says nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from atomo_gql.domain.actions import NewBinding
from atomo_gql.domain.errors import AtomoError
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.workflows.definition import Definition
from atomo_gql.service.services import Services

Read = TypeVar("Read")
Files = Mapping[str, list[Read]]


class BrokenFile(Exception):
    """A file that cannot be read; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the files of both folders define; None: there is no such folder."""

    definitions: Files[tuple[Definition, Json]] | None
    bindings: Files[NewBinding] | None
    summary: str  # how many there are, for the log


def read_files(services: Services, workflows: Path | None, actions: Path | None) -> Found:
    """Read all files of both folders.

    Raises:
        BrokenFile: names the file, the place in it and the reason.
    """
    definitions = _read_folder(workflows, lambda source: (services.workflows.parse(source), source))
    bindings = _read_folder(actions, services.bindings.parse)
    if workflows is not None and definitions is not None:
        _refuse_doubles(workflows, definitions)
    summary = ", ".join(
        f"{what} in {folder}: {sum(map(len, found.values()))}"
        for found, what, folder in ((definitions, "workflows", workflows), (bindings, "bindings", actions))
        if found is not None
    )
    return Found(definitions, bindings, summary)


async def register_files(services: Services, workflows: Path | None, actions: Path | None) -> str:
    """Read all files of both folders, then register what they hold; what there was, for the log.

    Raises:
        BrokenFile: names the file, the place in it and the reason; nothing is registered.
        Unavailable: the database is out of reach.
    """
    found = read_files(services, workflows, actions)
    if found.definitions is not None:
        await services.workflows.register_files(found.definitions)
    if found.bindings is not None:
        await services.bindings.register_files(found.bindings)
    return found.summary


def _read_folder(folder: Path | None, parse: Callable[[Json], Read]) -> dict[str, list[Read]] | None:
    """What the `*.json` files hold, each one thing or a list of them; None: there is no such folder."""
    if folder is None or not folder.is_dir():
        return None
    found: dict[str, list[Read]] = {}
    try:
        # Not by `glob`: to it, a folder that this user may not list is an empty one, and what it defines would go.
        files = sorted(file for file in folder.iterdir() if file.name.endswith(".json"))
    except OSError as error:
        raise BrokenFile(f"{folder}: {error.strerror or error}") from None
    for file in files:
        try:
            content = orjson.loads(file.read_bytes())
        except OSError as error:
            raise BrokenFile(f"{file}: {error.strerror or error}") from None
        except orjson.JSONDecodeError as error:
            raise BrokenFile(f"{file}: line {error.lineno}, column {error.colno}: {error.msg}") from None
        sources = content if isinstance(content, list) else [content]
        found[file.name] = []
        for index, source in enumerate(sources):
            try:
                found[file.name].append(parse(source))
            except AtomoError as error:
                place = f"[{index}]" if isinstance(content, list) else ""
                raise BrokenFile(f"{file}{place}: {error}") from None
    return found


def _refuse_doubles(folder: Path, files: Files[tuple[Definition, Json]]) -> None:
    named: dict[str, str] = {}
    for file, definitions in files.items():
        for definition, _ in definitions:
            if definition.name in named:
                raise BrokenFile(
                    f"{folder / file}: workflow {definition.name!r} is defined in {named[definition.name]}, too"
                )
            named[definition.name] = file
