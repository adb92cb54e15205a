"""One table from an error's code to what HTTP says, and the rendering as problem+json (RFC 9457)."""

import orjson

from atomo_gql.domain import errors

STATUS: dict[str, int] = {
    errors.BadUserInput.code: 400,
    errors.Unauthenticated.code: 401,
    errors.Forbidden.code: 403,
    errors.NotFound.code: 404,
    "METHOD_NOT_ALLOWED": 405,
    errors.LeaseLost.code: 409,
    errors.PayloadTooLarge.code: 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    errors.TooManyRequests.code: 429,
    errors.AtomoError.code: 500,
    errors.Unavailable.code: 503,
}


class MethodNotAllowed(errors.AtomoError):
    """The route is there, but not for this method."""

    code = "METHOD_NOT_ALLOWED"
    title = "Method not allowed"


class UnsupportedMediaType(errors.AtomoError):
    """The body is not JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    title = "Unsupported media type"


def problem(error: errors.AtomoError) -> tuple[int, bytes]:
    """The status and the body of an error's answer."""
    status = STATUS[error.code]
    body = {"type": "about:blank", "status": status, "title": error.title, "detail": error.detail, "code": error.code}
    return status, orjson.dumps({**body, **error.extensions})


def internal() -> errors.AtomoError:
    """What a caller is told of a fault of ours."""
    return errors.AtomoError("something went wrong in the service; its log has the details under this request id")
