"""The command line. Each command lives in a module that is loaded when it is called, so that those which a worker's
machine needs work without the server's packages."""

import importlib

import click

from atomo_gql import __version__

# The command, the module it is in, and what of it is the command.
COMMANDS = {
    "action": ("action", "action"),
    "bench": ("bench.command", "bench"),
    "check": ("check", "check"),
    "conformance": ("conformance", "conformance"),
    "conformance-worker": ("conformance", "conformance_worker"),
    "dev": ("dev", "dev"),
    "enqueue": ("job", "enqueue"),
    "event": ("action", "event"),
    "housekeeping": ("housekeeping", "housekeeping"),
    "job": ("job", "job"),
    "migrate": ("database", "migrate"),
    "move": ("move", "move"),
    "queue": ("queue", "queue"),
    "rebuild": ("database", "rebuild"),
    "schedule": ("schedule", "schedule"),
    "schema": ("schema", "schema"),
    "serve": ("serve", "serve"),
    "token": ("token", "token"),
    "worker": ("worker", "worker"),
    "worker-token": ("worker_token", "worker_token"),
    "workflow": ("workflow", "workflow"),
}


class _Lazy(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """By name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(f"atomo_gql.cli.{module}"), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("atomo_gql"):
                raise
            message = f"{cmd_name} needs the server ({error.name} is missing): pip install 'atomo-gql[server]'"

            @click.command(
                cmd_name, short_help="needs atomo-gql[server]", context_settings={"ignore_unknown_options": True}
            )
            @click.argument("rest", nargs=-1)
            def missing(rest: tuple[str, ...]) -> None:
                raise click.ClickException(message)

            return missing
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="atomo-gql")
def main() -> None:
    """A durable job service on PostgreSQL alone."""
