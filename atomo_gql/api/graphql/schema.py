"""The schema, and its text."""

from datetime import datetime

import strawberry
from graphql import GraphQLSchema
from strawberry.schema.config import StrawberryConfig

from atomo_gql.api.graphql.mutations import JobMutations, enqueue_many
from atomo_gql.api.graphql.mutations_workflows import WorkflowMutations
from atomo_gql.api.graphql.queries import JobQueries
from atomo_gql.api.graphql.queries_workflows import WorkflowQueries
from atomo_gql.api.graphql.subscriptions import Subscription
from atomo_gql.api.graphql.types.moments import DATE_TIME


@strawberry.type(description="What can be asked.")
class Query(JobQueries, WorkflowQueries):
    """Reading."""


@strawberry.type(description="What can be done.")
class Mutation(JobMutations, WorkflowMutations):
    """Writing."""


schema = strawberry.Schema(
    query=Query, mutation=Mutation, subscription=Subscription, config=StrawberryConfig(scalar_map={datetime: DATE_TIME})
)


def core_schema() -> GraphQLSchema:
    """The schema as graphql-core has it."""
    core: GraphQLSchema = schema._schema
    if core.mutation_type:
        core.mutation_type.fields["enqueueJobs"].resolve = enqueue_many
    return core


def schema_text() -> str:
    """`schema.graphql`."""
    return schema.as_str().rstrip() + "\n"
