"""Bindings: registered by admins, or read from files at boot.

As with workflows, a binding of a tenant's admin is that tenant's; one of an unbound admin, and of a file, is the
service's and fires on every tenant's events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from atomo_gql.domain.actions import Binding, NewBinding
from atomo_gql.domain.errors import NotFound
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.model_rules import parse_binding
from atomo_gql.domain.paging import Page, Window
from atomo_gql.domain.principals import Caller
from atomo_gql.service.access import acting_tenant, require_admin, visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.store import actions as store

BOOT = "system:boot"
MAX_BINDING = 65_536  # bytes


class BindingService:
    """Registers and lists bindings, removes them, and resumes those that were set aside."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._bell = resources.log_bell

    @staticmethod
    def parse(source: Json) -> NewBinding:
        """Read a binding.

        Raises:
            BadUserInput: names the field and the rule.
            PayloadTooLarge: it is larger than a binding may be.
        """
        encode("binding", source, MAX_BINDING)
        return parse_binding(source)

    async def register(self, caller: Caller, source: Json, *, trace: str | None = None) -> Binding:
        """Have an action fire from now on. The same binding again is the same.

        Raises:
            Forbidden: not an admin.
            BadUserInput, PayloadTooLarge: as `parse`.
        """
        require_admin(caller)
        what = self.parse(source)
        return (await store.put(self._database, acting_tenant(caller), what, caller.actor, trace, None))[0]

    async def register_files(self, files: Mapping[str, Sequence[NewBinding]]) -> None:
        """Keep what files bind, and remove what files that are gone had bound."""
        kept = set()
        for file, bindings in files.items():
            for what in bindings:
                kept.add((await store.put(self._database, "", what, BOOT, None, file))[0].id)
        async with self._database.transaction() as connection:
            gone = [
                binding.id
                for binding in await store.bindings(connection, None)
                if binding.source_file is not None and binding.id not in kept
            ]
            if gone:
                await store.change(connection, gone, None, "removed", BOOT)

    async def listed(self, caller: Caller) -> list[Binding]:
        """Those that the caller can see, oldest first."""
        async with self._database.transaction() as connection:
            found = await store.bindings(connection, visible_tenant(caller))
        return [_shown(caller, binding) for binding in found]

    async def page(self, caller: Caller, window: Window[UUID]) -> Page[Binding]:
        """A page of them."""
        found = await store.page(
            self._database,
            visible_tenant(caller),
            **window.walk(ascending=True),
        )
        return window.page([_shown(caller, binding) for binding in found])

    async def remove(self, caller: Caller, binding_id: UUID, *, trace: str | None = None) -> Binding:
        """Have it fire no more.

        Raises:
            Forbidden: not an admin.
            NotFound: there is none, or none of the caller's tenant.
        """
        return await self._change(caller, binding_id, "removed", trace, skips=False)

    async def resume(
        self, caller: Caller, binding_id: UUID, *, skip: bool = False, trace: str | None = None
    ) -> Binding:
        """Have one that was set aside go on from the event that it failed on; with `skip`, from now on.

        Raises:
            Forbidden: not an admin.
            NotFound: there is none that was set aside, or none of the caller's tenant.
        """
        return await self._change(caller, binding_id, "resumed", trace, skips=skip)

    async def _change(self, caller: Caller, binding_id: UUID, type_: str, trace: str | None, *, skips: bool) -> Binding:
        require_admin(caller)
        tenant = visible_tenant(caller)
        async with self._database.transaction() as connection:
            changed = await store.change(connection, [binding_id], tenant, type_, caller.actor, trace, skips=skips)
        if not changed:
            what = "that was set aside " if type_ == "resumed" else ""
            raise NotFound(f"there is no binding {binding_id} {what}of yours")
        self._bell.ring()
        return changed[0]


def _shown(caller: Caller, binding: Binding) -> Binding:
    """Without the error of one that is everybody's: it names the event of some tenant, and what was wrong with it."""
    is_own = caller.sees_all or binding.tenant is not None
    return binding if is_own else replace(binding, error=None)
