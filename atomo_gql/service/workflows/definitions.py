"""Definitions of workflows: registered by admins, or read from files at boot.

A definition of a tenant's admin is that tenant's; one of an unbound admin, and of a file, is the service's and runs for
every tenant. A tenant's own goes before the service's of the same name.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from atomo_gql.domain.errors import AtomoError, BadUserInput, NotFound, Unavailable
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.paging import Page, Window
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import check_name, check_range
from atomo_gql.domain.workflows.condition import same
from atomo_gql.domain.workflows.definition import Definition, Manual, OnEvent, Schedule, Trigger
from atomo_gql.domain.workflows.parsing import parse_definition
from atomo_gql.domain.workflows.rendering import Renderer
from atomo_gql.service.access import acting_tenant, require_admin, visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.service.workflows.cron import Cron
from atomo_gql.service.workflows.templates import Templates
from atomo_gql.store import workflows as store
from atomo_gql.store.workflows import WorkflowRow

BOOT = "system:boot"
MAX_DEFINITION = 262_144  # bytes
_CACHED = 1_000  # definitions kept in memory
WorkflowKey = tuple[str, str]  # a name and a tenant
_Version = tuple[UUID, int]
Registered = store.DefinitionRow  # a version, with who registered it and when


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow in its newest version."""

    row: WorkflowRow
    definition: Definition


class DefinitionService:
    """Registers, lists, and loads definitions."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self.renderer: Renderer = Templates(most_bytes=resources.limits.max_body)
        self._known: OrderedDict[_Version, Definition] = OrderedDict()

    def parse(self, source: Json) -> Definition:
        """Read a definition.

        Raises:
            BadUserInput: names the step, the field and the rule.
            PayloadTooLarge: it is larger than a definition may be.
        """
        encode("definition", source, MAX_DEFINITION)
        definition = parse_definition(source, self.renderer)
        if isinstance(definition.trigger, Schedule):
            Cron.parse(definition.trigger.cron, definition.trigger.timezone)
        return definition

    async def register(self, caller: Caller, source: Json, *, trace: str | None = None) -> Workflow:
        """Keep a definition as the newest version of its name. The same one again is no new version.

        Raises:
            Forbidden: not an admin.
            BadUserInput, PayloadTooLarge: as `parse`.
        """
        require_admin(caller)
        definition = self.parse(source)
        return await self._register(acting_tenant(caller), definition, source, caller.actor, trace, None)

    async def register_files(self, files: Mapping[str, Sequence[tuple[Definition, Json]]]) -> None:
        """Keep what files define, and remove what files that are gone had defined."""
        named = set()
        for file, definitions in files.items():
            for definition, source in definitions:
                await self._register("", definition, source, BOOT, None, file)
                named.add(definition.name)
        for row in await store.listed(self._database, ""):
            if row.tenant == "" and row.source_file is not None and row.name not in named:
                await self._change(row, "removed", BOOT, None)

    async def _register(
        self, tenant: str, definition: Definition, source: Json, actor: str, trace: str | None, file: str | None
    ) -> Workflow:
        async with self._database.transaction() as connection:
            row = await self._lock(connection, tenant, definition.name, actor, file)
            if same(row.source, source) and row.removed_at is None:
                if file is not None and row.source_file != file:
                    await store.adopt(connection, row.id, file)
                return Workflow(row, definition)
            trigger = definition.trigger
            put = await store.put(
                connection,
                row.id,
                source,
                actor=actor,
                trace=trace,
                source_file=file,
                model=trigger.model if isinstance(trigger, OnEvent) else None,
                event_type=trigger.event_type if isinstance(trigger, OnEvent) else None,
                is_scheduled=isinstance(trigger, Schedule),
                next_at=self._next_at(row, definition),
                timeout_secs=definition.timeout_secs,
            )
            return Workflow(replace(put, source=source), definition)

    async def _lock(self, connection: Any, tenant: str, name: str, actor: str, file: str | None) -> WorkflowRow:
        """The workflow of that name, locked; its source is read after that, so that of replicas that register the same
        at once the later ones see what the first has made."""
        row = await store.lock(connection, tenant, name, actor, file)
        found = await store.versions(connection, [(row.id, row.definition_version)])
        return replace(row, source=found[0].source) if found else row

    def _next_at(self, row: WorkflowRow, definition: Definition) -> datetime | None:
        """When a new version ticks next. A pause goes on, and an unchanged schedule loses none of its ticks."""
        assert row.now is not None  # noqa: S101  # the statement tells
        if row.removed_at is not None or row.source is None:
            return next_tick(definition, row.now)
        if row.paused_at is not None:
            return None
        before = self._parsed((row.id, row.definition_version), row.source)
        if (
            row.next_at is not None
            and isinstance(before, Definition)
            and _same_clock(before.trigger, definition.trigger)
        ):
            return row.next_at
        return next_tick(definition, row.now)

    async def find(self, caller: Caller, name: str) -> Workflow:
        """The workflow of that name that the caller can run.

        Raises:
            NotFound: there is none.
        """
        with contextlib.suppress(BadUserInput):  # what breaks a rule is no workflow's name
            check_name("name", name)
            return await self._find(caller, name)
        raise NotFound(f"there is no workflow {name[:200]!r}")

    async def _find(self, caller: Caller, name: str) -> Workflow:
        row = (await store.find(self._database, [name], acting_tenant(caller))).get(name)
        if row is None:
            raise NotFound(f"there is no workflow {name[:200]!r}")
        return self._workflow(row)

    async def of_runs(self, versions: Iterable[_Version]) -> dict[_Version, Definition | Unavailable]:
        """The definitions of runs that the caller has been shown, by workflow and version."""
        wanted = set(versions)
        if wanted <= self._known.keys():
            return {version: self._known[version] for version in wanted}
        async with self._database.transaction() as connection:
            return await self.load(connection, wanted)

    async def listed(self, caller: Caller) -> list[Workflow]:
        """Those that the caller can see, by name."""
        return [self._workflow(row) for row in await store.listed(self._database, visible_tenant(caller))]

    async def page(self, caller: Caller, window: Window[WorkflowKey], *, is_scheduled: bool = False) -> Page[Workflow]:
        """A page of those that the caller can see, by name, or of those with a schedule."""
        rows = await store.page(
            self._database,
            visible_tenant(caller),
            is_scheduled=is_scheduled,
            **window.walk(ascending=True),
        )
        return window.page([self._workflow(row) for row in rows])

    async def history(self, ids: Sequence[UUID], most: int) -> dict[UUID, list[Registered]]:
        """The versions of these workflows, which the caller has been shown, newest first, without the definitions."""
        check_range("first", most, 1, 100)
        return await store.history(self._database, ids, most)

    async def remove(self, caller: Caller, name: str, *, trace: str | None = None) -> Workflow:
        """Let no run of it begin any more; those under way go on.

        Raises:
            Forbidden: not an admin, or not the admin of its tenant.
            NotFound: there is none.
        """
        return await self._by_admin(caller, name, "removed", trace)

    async def pause(self, caller: Caller, name: str, *, trace: str | None = None) -> Workflow:
        """Let neither its schedule nor events begin runs; people can.

        Raises:
            Forbidden, NotFound: as `remove`.
            BadUserInput: nothing but people begins it.
        """
        return await self._by_admin(caller, name, "paused", trace)

    async def resume(self, caller: Caller, name: str, *, trace: str | None = None) -> Workflow:
        """End a pause. What would have begun it meanwhile is passed over.

        Raises:
            Forbidden, NotFound, BadUserInput: as `pause`.
        """
        return await self._by_admin(caller, name, "resumed", trace)

    async def _by_admin(self, caller: Caller, name: str, type_: str, trace: str | None) -> Workflow:
        require_admin(caller)
        tenant = acting_tenant(caller)
        workflow = await self.find(caller, name)
        if workflow.row.tenant != tenant:
            raise NotFound(f"there is no workflow {name[:200]!r} of this tenant; the service's own is its operator's")
        if type_ != "removed" and not isinstance(workflow.definition.trigger, Schedule | OnEvent):
            raise BadUserInput(f"workflow {name!r} has neither a schedule nor an event that begins it", field="name")
        changed = await self._change(workflow.row, type_, caller.actor, trace)
        return workflow if changed is None else self._workflow(changed)

    async def _change(self, row: WorkflowRow, type_: str, actor: str, trace: str | None) -> WorkflowRow | None:
        async with self._database.transaction() as connection:
            row = await self._lock(connection, row.tenant, row.name, actor, None)
            next_at = None
            if type_ == "resumed":
                next_at = next_tick(self.parse(row.source), await store.now(connection))
            changed = await store.change(connection, row.id, type_, actor, trace, next_at)
        return None if changed is None else replace(changed, source=row.source)

    async def sources(self, wanted: Sequence[_Version], most_bytes: int) -> dict[_Version, Json]:
        """These versions, of workflows or runs that the caller has been shown, as they were given.

        Raises:
            AnswerTooLarge: all together are larger than so many bytes.
        """
        return await store.sources(self._database, wanted, most_bytes)

    async def load(self, connection: Any, wanted: Iterable[_Version]) -> dict[_Version, Definition | Unavailable]:
        """These versions; an error in the place of one that cannot be read."""
        wanted = set(wanted)
        missing = [version for version in wanted if version not in self._known]
        found: dict[_Version, Definition | Unavailable] = {}
        if missing:
            for row in await store.versions(connection, missing):
                found[row.workflow_id, row.version] = self._parsed((row.workflow_id, row.version), row.source)
        for version in wanted:
            if version in self._known:
                self._known.move_to_end(version)
                found[version] = self._known[version]
        return {version: found.get(version, Unavailable("its definition is gone")) for version in wanted}

    def _parsed(self, version: _Version, source: Json) -> Definition | Unavailable:
        try:
            definition = self.parse(source)
        except AtomoError as error:  # it was good when it was registered
            return Unavailable(f"its definition cannot be read any more: {error}")
        self._known[version] = definition
        while len(self._known) > _CACHED:
            self._known.popitem(last=False)
        return definition

    def _workflow(self, row: WorkflowRow) -> Workflow:
        known = self._known.get((row.id, row.definition_version))
        definition = known or self._parsed((row.id, row.definition_version), row.source)
        if not isinstance(definition, Definition):  # it hides no other, and can be removed, or registered anew
            definition = Definition(name=row.name, trigger=Manual(), steps=(), description=str(definition))
        return Workflow(row, definition)


def _same_clock(one: Trigger, other: Trigger) -> bool:
    return (
        isinstance(one, Schedule)
        and isinstance(other, Schedule)
        and (one.cron, one.timezone) == (other.cron, other.timezone)
    )


def next_tick(definition: Definition, after: datetime) -> datetime | None:
    """When its schedule next begins it; None: it has none."""
    if not isinstance(definition.trigger, Schedule):
        return None
    return Cron.parse(definition.trigger.cron, definition.trigger.timezone).next_after(after)
