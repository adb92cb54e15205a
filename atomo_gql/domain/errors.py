"""Everything that can be refused, and why.

AtomoError
├── BadUserInput          the request itself is wrong; names the field and the rule
├── PayloadTooLarge       it is larger than the service takes
│   └── AnswerTooLarge    and so would be the answer
├── Unauthenticated       no credential, or not a valid one
├── Forbidden             a valid credential, but not for this
├── NotFound              there is no such thing, or none that the caller may see
├── LeaseLost             the lease is not, or no longer, the current one
├── TooManyRequests       a limit of the server is reached; later it may do
└── Unavailable           the database cannot be reached just now; nothing is known to have changed

Edges turn these into their own words: one table in `api/errors.py` maps `code` to HTTP and GraphQL.
"""


class AtomoError(Exception):
    """A refusal that the caller is told. `str(error)` is one sentence, safe to show."""

    code = "INTERNAL"
    title = "Internal error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field

    @property
    def extensions(self) -> dict[str, str]:
        """What goes with the sentence, for programs (GraphQL and RFC 9457 call it by this name)."""
        return {"code": self.code} if self.field is None else {"code": self.code, "field": self.field}


class BadUserInput(AtomoError):
    """The input breaks a rule; `field` is its name on the wire."""

    code = "BAD_USER_INPUT"
    title = "Bad input"


class PayloadTooLarge(AtomoError):
    """The body, or one value of it, is over the limit."""

    code = "PAYLOAD_TOO_LARGE"
    title = "Payload too large"


class AnswerTooLarge(PayloadTooLarge):
    """What was asked for is more than one answer may hold."""

    MOST = 32 * 1_048_576  # bytes

    def __init__(self) -> None:
        super().__init__(f"the answer would hold more than {self.MOST // 1_048_576} MiB; ask for less at a time")


class Unauthenticated(AtomoError):
    """No credential, or one that is not valid (any more)."""

    code = "UNAUTHENTICATED"
    title = "Not authenticated"


class Forbidden(AtomoError):
    """The credential is valid, but does not reach this."""

    code = "FORBIDDEN"
    title = "Forbidden"


class NotFound(AtomoError):
    """Unknown, or somebody else's: the caller cannot tell which."""

    code = "NOT_FOUND"
    title = "Not found"


class LeaseLost(AtomoError):
    """The job is not held under this lease: it ended, ran out and was taken back, or never was."""

    code = "LEASE_LOST"
    title = "Lease lost"

    def __init__(self, job_id: str, ended: str | None = None) -> None:
        """`ended`: the event that ended the lease, where it was the caller's own."""
        why = f"; this lease ended before: the job {_ENDS[ended]}" if ended in _ENDS else ""
        super().__init__(f"job {job_id} is not held under this lease{why or _MAY_BE_ELSEWHERE}")
        self.ended = ended

    @property
    def extensions(self) -> dict[str, str]:
        """With `ended`, where it is known."""
        return super().extensions if self.ended is None else {**super().extensions, "ended": self.ended}


_MAY_BE_ELSEWHERE = "; drop the work, another worker may have it"
_ENDS = {
    "succeeded": "was completed under it",
    "failed": "was failed under it, and waits for its retry",
    "dead": "ended dead",
    "released": "was handed back",
    "reclaimed": "was taken back when the lease ran out",
    "cancelled": "was cancelled",
}


class TooManyRequests(AtomoError):
    """A limit that protects the server is reached."""

    code = "TOO_MANY_REQUESTS"
    title = "Too many requests"


class Unavailable(AtomoError):
    """The database is out of reach, or too far behind. Whether a write took place is not known."""

    code = "UNAVAILABLE"
    title = "Service unavailable"
