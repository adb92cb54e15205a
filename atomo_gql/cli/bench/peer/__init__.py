"""atomo_gql behind the driver of a benchmark of many queues."""
