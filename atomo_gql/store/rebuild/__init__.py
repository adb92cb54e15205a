"""`sql/queries/rebuild.sql`: proving the projection from the events, and making it anew."""

from atomo_gql.store.rebuild.log import Difference
from atomo_gql.store.rebuild.projection import Made, Proof, estimate, rebuild, verify

__all__ = ["Difference", "Made", "Proof", "estimate", "rebuild", "verify"]
