"""Enqueue jobs, wait for them and watch them, from Python applications.

    async with AsyncClient(url="http://127.0.0.1:3000", token=jwt) as jobs:
        job_id = await jobs.enqueue("media", "video.generate", {"prompt": "a cat"}, idempotency_key="order-7")
        async for update in jobs.watch(job_id):
            print(update["status"], update["percent"])
        print(await jobs.result(job_id))

`Client` is the same for code without an event loop. It needs aiohttp and orjson and nothing of the server.

    aio.py      AsyncClient            connection.py   REST, GraphQL and subscriptions on one session
    blocking.py Client                 errors.py       every exception, as a tree
"""

from atomo_gql.client.aio import AsyncClient
from atomo_gql.client.blocking import Client
from atomo_gql.client.errors import ClientError, JobDead, ServiceError, Unreachable

__all__ = ["AsyncClient", "Client", "ClientError", "JobDead", "ServiceError", "Unreachable"]
