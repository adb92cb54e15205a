"""JSON that somebody names on the command line."""

import json
import sys
from pathlib import Path
from typing import Any

import click


def json_value(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Any] | None:
    """JSON as it stands, @file, or - for standard input; in a tuple, for null is a value, too."""
    if value is None:
        return None
    try:
        text = value
        if value == "-":
            text = sys.stdin.read()
        elif value.startswith("@"):
            text = Path(value[1:]).read_text(encoding="utf-8")
        return (json.loads(text),)
    except OSError as error:
        raise click.BadParameter(f"{value[1:]}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from None


def read_files(files: tuple[str, ...]) -> list[tuple[str, Any]]:
    """What these files hold, each one thing or a list of them: the place, for messages, and the thing."""
    found: list[tuple[str, Any]] = []
    for file in files:
        try:
            content = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror or error}") from None
        except json.JSONDecodeError as error:
            raise click.ClickException(f"{file}: line {error.lineno}, column {error.colno}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise click.ClickException(f"{file}: not JSON: {error}") from None
        if isinstance(content, list):
            found += [(f"{file}[{index}]", item) for index, item in enumerate(content)]
        else:
            found.append((file, content))
    return found
