"""Whether a server, or a worker, keeps the worker protocol (docs/worker-protocol.md).

rules.py      a rule, what became of it, and running many          cli: `atomo-gql conformance`, `conformance-worker`
peer.py       a client that says exactly what it is told to
server.py     the rules of a server, S1 …
stage.py      a server that plays the troubles it is told to       worker.py     the rules of a worker, W1 …
"""
