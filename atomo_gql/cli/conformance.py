"""`atomo-gql conformance` and `atomo-gql conformance-worker`."""

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from atomo_gql.cli.http import own_token, run
from atomo_gql.conformance.peer import Peer
from atomo_gql.conformance.rules import Finding, RuleBook, Verdict, find_all, find_together
from atomo_gql.conformance.server import SERVER
from atomo_gql.conformance.worker import WORKER, Troupe

_SIGNS = {Verdict.KEPT: "[green]✓[/]", Verdict.BROKEN: "[red]✗[/]", Verdict.SKIPPED: "[yellow]–[/]"}
_ONLY = click.option("--only", multiple=True, metavar="RULE", help="Only this rule; may be repeated.")
_LIST = click.option("--list", "is_list", is_flag=True, help="Print the rules, and try none.")
_JSON = click.option("--json", "is_json", is_flag=True, help="Print the findings as JSON.")


@click.command()
@click.option("--url", envvar="ATOMO_URL", default="http://127.0.0.1:3000", show_default=True, help="The server.")
@click.option("--token", envvar="ATOMO_WORKER_TOKEN", help="A worker token for the queue (ATOMO_WORKER_TOKEN).")
@click.option("--jwt", envvar="ATOMO_TOKEN", help="To enqueue with (ATOMO_TOKEN); on the server's own machine, signed.")
@click.option("--queue", default="conformance", show_default=True, help="Nobody else may use it meanwhile.")
@_ONLY
@_LIST
@_JSON
def conformance(
    url: str, token: str | None, jwt: str | None, queue: str, only: tuple[str, ...], is_list: bool, is_json: bool
) -> None:
    """Whether a server keeps the worker protocol, rule by rule. Exits with 1 when one is broken."""
    if is_list:
        _print_rules(SERVER)
        return
    rules = _chosen(SERVER, only)
    if not token:
        raise click.UsageError("--token or ATOMO_WORKER_TOKEN is missing: make one with atomo-gql worker-token create")
    if jwt is None:
        try:
            jwt = own_token()
        except click.ClickException:
            jwt = None

    async def findings() -> AsyncIterator[Finding]:
        async with Peer(url, token, jwt, queue) as peer:
            try:
                await peer.clean()
            except Exception as error:
                raise click.ClickException(f"nothing can be tried: {error}") from None
            async for finding in find_all(rules, peer):
                yield finding
                try:
                    await peer.clean()
                except Exception as error:
                    raise click.ClickException(f"the queue cannot be emptied after {finding.id}: {error}") from None

    _report(run(_collect(findings(), is_json=is_json)), is_json=is_json)


@click.command(context_settings={"ignore_unknown_options": True})
@_ONLY
@_LIST
@_JSON
@click.argument("command", nargs=-1, metavar="-- COMMAND…")
def conformance_worker(command: tuple[str, ...], only: tuple[str, ...], is_list: bool, is_json: bool) -> None:
    """Whether a worker keeps the protocol: plays a server with troubles, and starts COMMAND once for each rule.

    The worker reads ATOMO_URL, ATOMO_WORKER_TOKEN, ATOMO_QUEUES, ATOMO_CONCURRENCY, ATOMO_VISIBILITY_SECS and
    ATOMO_DRAIN_SECS, and handles four kinds: conformance.echo returns its payload, conformance.sleep sleeps for
    payload.seconds, conformance.fail raises payload.message, conformance.fatal does so for good. Exits with 1 when a
    rule is broken.
    """
    if is_list:
        _print_rules(WORKER)
        return
    rules = _chosen(WORKER, only)
    if not command:
        raise click.UsageError("which worker? write its command after --, as in: conformance-worker -- node worker.mjs")
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"there is no command {command[0]}")
    found = run(_collect(find_together(rules, Troupe(command)), is_json=is_json))
    _report(found, is_json=is_json)


async def _collect(findings: AsyncIterator[Finding], *, is_json: bool) -> list[Finding]:
    """Each is printed as it comes."""
    console, found = Console(highlight=False, soft_wrap=True), []
    async for finding in findings:
        found.append(finding)
        if not is_json:
            console.print(
                f"{_SIGNS[finding.verdict]} {finding.id:<4}{escape(finding.sentence)} [dim]{finding.seconds:.1f} s[/]"
            )
            if finding.detail:
                console.print(f"      {escape(finding.detail)}")
    return found


def _report(found: list[Finding], *, is_json: bool) -> None:
    counts = {verdict: sum(f.verdict is verdict for f in found) for verdict in Verdict}
    if is_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        click.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    if counts[Verdict.BROKEN]:
        raise SystemExit(1)


def _print_rules(book: RuleBook[Any]) -> None:
    for rule in book.rules:
        click.echo(f"{rule.id:<4}{rule.sentence}")


def _chosen(book: RuleBook[Any], only: tuple[str, ...]) -> list[Any]:
    try:
        return book.chosen(only)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--only") from None
