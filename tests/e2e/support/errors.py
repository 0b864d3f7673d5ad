"""The error objects that clients get."""

import re

_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 403: "invalid_request_error", 404: "invalid_request_error",
          408: "invalid_request_error", 412: "invalid_request_error", 413: "invalid_request_error", 415: "invalid_request_error",
          416: "invalid_request_error", 429: "rate_limit_error",
          502: "server_error", 503: "server_error", 504: "server_error"}


def assert_error(reply, status, code, param=None):
    """Everything that must hold of an error with this status and code."""
    assert reply.status == status, (reply.status, reply.body)
    assert reply.header("content-type") == "application/json"
    document = reply.json()
    assert set(document) == {"error"}, document
    error = document["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert error["code"] == code, error
    assert error["type"] == _TYPES[status], error
    assert isinstance(error["message"], str) and error["message"], error
    if param is not None:
        assert error["param"] == param, error
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", reply.header("x-request-id") or ""), reply.headers
    assert re.fullmatch(r"\d+", reply.header("x-llm-queue-ms") or ""), reply.headers
    if status == 401:
        assert reply.header("www-authenticate") == "Bearer"
    if status in (429, 503):
        assert_retry_after(reply)
    else:
        assert reply.header("retry-after") is None
    if status == 429:
        for name in ("limit", "remaining", "reset"):
            assert reply.header(f"x-ratelimit-{name}-requests"), reply.headers
    return error


def assert_retry_after(reply):
    seconds = reply.header("retry-after")
    assert seconds and seconds.isdigit() and 1 <= int(seconds) <= 60, reply.headers
    milliseconds = reply.header("retry-after-ms")
    assert milliseconds and milliseconds.isdigit() and int(milliseconds) > 0, reply.headers
