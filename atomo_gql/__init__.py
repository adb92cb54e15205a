"""atomo_gql: a durable job service. This module imports nothing, so that the worker SDK stays light."""

__version__ = "0.1.0"
