"""Every exception of the client.

    Exception
    └── ClientError
        ├── ServiceError    the service refused: `code` says why (docs/errors.md)
        ├── Unreachable     it did not answer; whether it took the request is not known
        └── JobDead         raised by `result`: the job ended without one

Wrong arguments are ValueError.
"""

from typing import Any


class ClientError(Exception):
    """Base of every exception of the client."""


class ServiceError(ClientError):
    """The service refused; the message is its detail.

    code: stable, for programs. status: of HTTP, 0 where it came by GraphQL. field: of the input that breaks a rule.
    """

    def __init__(self, message: str, code: str = "", status: int = 0, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.field = field


class Unreachable(ClientError):
    """No answer, or none from the service."""


class JobDead(ClientError):
    """The job is dead; the message is its error. job: as it stands."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job.get("error") or "the job is dead")
        self.job = job
