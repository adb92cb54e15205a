"""`atomo-gql token`: a JWT for trying out."""

import time

import click
import jwt

from atomo_gql.cli.http import seconds
from atomo_gql.cli.start import settings_or_exit
from atomo_gql.settings import Settings


def sign(settings: Settings, subject: str, *, role: str | None, tenant: str | None, lasts: int) -> str:
    """A token signed with this installation's secret."""
    if not settings.jwt_secret:
        raise click.ClickException(
            "tokens come from ATOMO_JWT_JWKS_URL's issuer here; there is no JWT_SECRET to sign with"
        )
    now = int(time.time())
    claims: dict[str, object] = {"sub": subject, "iat": now, "exp": now + lasts}
    optional = {"role": role, "tenant_id": tenant, "iss": settings.jwt_issuer, "aud": settings.jwt_audience}
    claims.update({name: value for name, value in optional.items() if value})
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256")


@click.command()
@click.option("--sub", default="cli", show_default=True, help="Whom it names.")
@click.option("--role", help='"admin" for an operator.')
@click.option("--tenant", help="Bind it to a tenant.")
@click.option("--expires-in", "lasts", default="12h", show_default=True, callback=seconds, help="90s, 15m, 12h, 30d …")
def token(sub: str, role: str | None, tenant: str | None, lasts: int) -> None:
    """Sign a JWT with this installation's secret, and print it."""
    click.echo(sign(settings_or_exit(), sub, role=role, tenant=tenant, lasts=lasts))
