"""How the strings of a step are filled in from the context of its run: the seam, without the language."""

from collections.abc import Mapping
from typing import Protocol

from atomo_gql.domain.jobs import Json


class RenderError(Exception):
    """A template that cannot be filled in; the message names the variable, or the rule."""


class Renderer(Protocol):
    """A language of templates inside JSON values."""

    def check(self, field: str, value: Json) -> None:
        """Look at every template of a value, before any context is known.

        Raises:
            BadUserInput: one of them is not allowed; its `field` is `field` with the path into the value.
        """

    def render(self, value: Json, scope: Mapping[str, Json]) -> Json:
        """The value with its templates filled in. What it takes over from `scope` is shared with it, not copied.

        Raises:
            RenderError: one of them cannot be filled in.
        """
