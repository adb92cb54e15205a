"""`atomo-gql schema`."""

import click

from atomo_gql.api.graphql.schema import schema_text
from atomo_gql.api.rest.openapi import document
from atomo_gql.api.rest.routes import ROUTES


@click.command()
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document instead.")
def schema(openapi: bool) -> None:
    """Print the GraphQL schema."""
    click.echo(document(ROUTES).decode() if openapi else schema_text(), nl=openapi)
