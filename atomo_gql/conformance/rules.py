"""A rule of the protocol, and what became of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

Setting = TypeVar("Setting")

_TOGETHER = 3


class Verdict(StrEnum):
    """What became of a rule."""

    KEPT = "kept"
    BROKEN = "broken"
    SKIPPED = "skipped"


class Broken(Exception):
    """The rule is broken; the message says by what."""


class Skipped(Exception):
    """The rule does not apply here; the message says why."""


@dataclass(frozen=True, slots=True)
class Rule(Generic[Setting]):
    """A sentence that must be true, and how to find out."""

    id: str
    sentence: str
    check: Callable[[Setting], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule and its verdict."""

    id: str
    sentence: str
    verdict: Verdict
    detail: str
    seconds: float


class RuleBook(Generic[Setting]):
    """Rules in the order of their numbers."""

    def __init__(self, letter: str) -> None:
        self._letter = letter
        self.rules: list[Rule[Setting]] = []

    def rule(
        self, sentence: str
    ) -> Callable[[Callable[[Setting], Awaitable[None]]], Callable[[Setting], Awaitable[None]]]:
        """Decorator: the function raises Broken where the sentence is not true."""

        def register(check: Callable[[Setting], Awaitable[None]]) -> Callable[[Setting], Awaitable[None]]:
            self.rules.append(Rule(f"{self._letter}{len(self.rules) + 1}", sentence, check))
            return check

        return register

    def chosen(self, only: Sequence[str]) -> list[Rule[Setting]]:
        """Those of these ids; all when none is named.

        Raises ValueError for an id that there is not.
        """
        if unknown := set(only) - {rule.id for rule in self.rules}:
            raise ValueError(
                f"there is no rule {', '.join(sorted(unknown))}; there are {self.rules[0].id} to {self.rules[-1].id}"
            )
        return [rule for rule in self.rules if not only or rule.id in only]


async def find(rule: Rule[Setting], setting: Setting) -> Finding:
    """Try one rule. What the check itself trips over counts as broken: an answer that is not the protocol's."""
    began = time.monotonic()
    verdict, detail = Verdict.KEPT, ""
    try:
        await rule.check(setting)
    except Skipped as why:
        verdict, detail = Verdict.SKIPPED, str(why)
    except Broken as why:
        verdict, detail = Verdict.BROKEN, str(why)
    except Exception as error:
        verdict, detail = Verdict.BROKEN, f"{type(error).__name__}: {error}"
    return Finding(rule.id, rule.sentence, verdict, detail, time.monotonic() - began)


async def find_all(rules: Sequence[Rule[Setting]], setting: Setting) -> AsyncIterator[Finding]:
    """One after another."""
    for rule in rules:
        yield await find(rule, setting)


async def find_together(rules: Sequence[Rule[Setting]], setting: Setting) -> AsyncIterator[Finding]:
    """Some at a time, each in a setting that the others do not touch; the findings in order."""
    turns = asyncio.Semaphore(_TOGETHER)

    async def in_turn(rule: Rule[Setting]) -> Finding:
        async with turns:
            return await find(rule, setting)

    tasks = [asyncio.create_task(in_turn(rule)) for rule in rules]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def must(condition: object, detail: str) -> None:
    """Raises Broken unless the condition is true."""
    if not condition:
        raise Broken(detail)


def shown(value: Any, most: int = 200) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
