"""`atomo-gql worker`."""

import importlib
import sys
from pathlib import Path

import click

from atomo_gql.cli.reload import Reloader, own_command
from atomo_gql.worker import Worker, WorkerRejected
from atomo_gql.worker.signals import end_process_after_run


@click.command()
@click.argument("target", metavar="MODULE:NAME")
@click.option("--reload", "is_reloading", is_flag=True, help="Start anew when a Python file here changes.")
def worker(target: str, is_reloading: bool) -> None:
    """Run a worker: the Worker called NAME in the Python module MODULE, as in `pipeline:worker`.

    Where it works and with which token is said in the module, or by ATOMO_URL and ATOMO_WORKER_TOKEN.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise click.BadParameter("write MODULE:NAME, as in pipeline:worker", param_hint="MODULE:NAME")
    if is_reloading:
        raise SystemExit(Reloader(own_command("worker", target), Path.cwd()).run())
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            raise
        raise click.ClickException(f"there is no module {module} here or on the Python path") from None
    except AttributeError:
        raise click.ClickException(f"the module {module} has no {name}") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not isinstance(found, Worker):
        raise click.ClickException(f"{target} is a {type(found).__name__}, not a Worker")
    end_process_after_run()
    try:
        found.run()
    except WorkerRejected as error:
        raise click.ClickException(str(error)) from None
