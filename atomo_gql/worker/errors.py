"""Every exception of the SDK.

    Exception
    └── WorkerError
        ├── NonRetryableError    raised by a handler: the job is dead, no further attempt
        ├── RetryAfter           raised by a handler: the attempt failed, and the next is worth it in so many seconds
        ├── LeaseLost            raised in a handler by ctx.progress and ctx.heartbeat: the attempt is over
        ├── WorkerRejected       raised by Worker.run and run_async: the server refuses this worker
        └── CallError            inside the SDK: an HTTP call that was not answered with success
            ├── Unavailable      no answer, or one that says "later": try again
            └── Refused          a 4xx: the same call again would be refused again

Wrong arguments are ValueError, as everywhere in Python.
"""


class WorkerError(Exception):
    """Base of every exception of the worker SDK."""


class NonRetryableError(WorkerError):
    """Raise it, or a subclass, from a handler when another attempt cannot help: the job is dead at once.

    The message is kept as the job's error.
    """


class RetryAfter(WorkerError):
    """Raise it, or a subclass, from a handler when a provider has said when to come back.

    seconds: until the next attempt, in place of the usual back-off (rounded up; at most a week). The message is kept as
    the job's error. It counts as a failed attempt.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"to be tried again in {seconds:g} s")
        self.seconds = seconds


class LeaseLost(WorkerError):
    """This attempt is over: another worker may have the job, or this worker hands it back because it stops.

    Nothing that the handler returns or raises from here on is reported; `ctx.cancelled` is set.
    """


class WorkerRejected(WorkerError):
    """The server refuses this worker for good: its token is wrong or revoked (401), or does not cover a queue (403).

    status: the HTTP status of the refusal.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class CallError(WorkerError):
    """An HTTP call that was not answered with success."""


class Unavailable(CallError):
    """The server did not answer, or answered that it cannot just now.

    retry_after: seconds that the server asked to wait, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(CallError):
    """The server answered 4xx; the message is its detail.

    status: the HTTP status. code: the stable code of the problem document, or "" where there was none.
    """

    def __init__(self, message: str, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
