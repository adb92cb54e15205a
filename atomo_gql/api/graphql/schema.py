"""The schema, and its text."""

import strawberry
from graphql import GraphQLSchema

from atomo_gql.api.graphql.mutations import Mutation, enqueue_many
from atomo_gql.api.graphql.queries import Query
from atomo_gql.api.graphql.subscriptions import Subscription

schema = strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription)


def core_schema() -> GraphQLSchema:
    """The schema as graphql-core has it."""
    core: GraphQLSchema = schema._schema
    if core.mutation_type:
        core.mutation_type.fields["enqueueJobs"].resolve = enqueue_many
    return core


def schema_text() -> str:
    """`schema.graphql`."""
    return schema.as_str().rstrip() + "\n"
