"""F12: bodies that are too large, endless, too deep, no text or very slow: refused as soon as it is known, by an error object."""

import gzip
import time

import pytest

from support import invariants
from support.client import chat_body, request_bytes
from support.errors import assert_error
from support.poll import until
from support.users import user
from support.wire import peer_closed

HEADERS = [("Authorization", "Bearer alice"), ("Content-Type", "application/json")]

REFUSED = {
    "a million arrays": (b'{"model":"m","x":' + b"[" * 10 ** 6 + b"]" * 10 ** 6 + b"}", 400, "invalid_json"),
    "a million objects": (b'{"model":"m","x":' + b'{"a":' * 10 ** 6 + b"1" + b"}" * 10 ** 6 + b"}", 400, "invalid_json"),
    "a million open brackets": (b"[" * 10 ** 6, 400, "invalid_json"),
    "bad UTF-8": (b'{"model":"m","x":"\xc3\x28"}', 400, "invalid_json"),
    "overlong UTF-8": (b'{"model":"m","x":"\xc0\xaf"}', 400, "invalid_json"),
    "a surrogate": (b'{"model":"m","x":"\xed\xa0\x80"}', 400, "invalid_json"),
    "bad UTF-8 in the model": (b'{"model":"\xff"}', 400, "invalid_json"),
    "NUL in a string": (b'{"model":"m\0"}', 400, "invalid_json"),
    "NUL behind the end": (b'{"model":"m"}\0', 400, "invalid_json"),
    "NUL before it": (b'\0{"model":"m"}', 400, "invalid_json"),
    "byte order mark": (b'\xef\xbb\xbf{"model":"m"}', 400, "invalid_json"),
    "UTF-16": ('{"model":"m"}'.encode("utf-16"), 400, "invalid_json"),
    "UTF-32": ('{"model":"m"}'.encode("utf-32-le"), 400, "invalid_json"),
    "gzip without a word": (gzip.compress(b'{"model":"m"}'), 400, "invalid_json"),
    "only white space": (b" " * 100000, 400, "invalid_json"),
    "a long key": (b'{"' + b"k" * 4_000_000, 400, "invalid_json"),
    "a million keys, then a mistake": (b"{" + b'"a":1,' * 10 ** 6 + b"}", 400, "invalid_json"),
    "a long number": (b'{"model":"m","n":' + b"9" * 10 ** 6 + b".5}", 400, "invalid_json"),
    "a long model": (b'{"model":"' + b"m" * 10 ** 6 + b'"}', 404, "model_not_found"),
}


@pytest.fixture
def gate(fake_engine, gateway):
    """A gateway whose engine must see nothing but probes."""
    engine = fake_engine()
    made = gateway([engine], [user("alice", threshold=100)])
    yield made
    assert {request.content() for request in engine.requests} <= {"probe"}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(gate, name):
    body, status, code = REFUSED[name]
    for chunks in (None, [body[start:start + 50000] for start in range(0, len(body), 50000)]):
        reply = gate.client.ask(None if chunks else body, chunks=chunks, token="alice")
        assert_error(reply, status, code)
    invariants.check(gate, expected={f"rejected_{code}": 2})


def test_compressed(gate):
    reply = gate.client.ask(gzip.compress(chat_body()), headers=[("Content-Encoding", "gzip")], token="alice")
    assert_error(reply, 415, "unsupported_encoding")
    invariants.check(gate, expected={"rejected_unsupported_encoding": 1})


@pytest.mark.parametrize("chunks", [None, []], ids=["by its length", "while it arrives"])
def test_100_mb(gate, chunks):
    """Refused long before it has arrived, whoever sends it."""
    pending = gate.client.raw(request_bytes("POST", "/v1/chat/completions", HEADERS)[:-2]
                              + (b"Transfer-Encoding: chunked\r\n\r\n" if chunks is not None else b"Content-Length: 104857600\r\n\r\n"))
    sent = 0
    piece = b"x" * 65536
    try:
        while not pending.answered() and sent < 104857600:
            pending.send(b"10000\r\n" + piece + b"\r\n" if chunks is not None else piece)
            sent += 65536
    except OSError:
        pass  # nginx has answered and closed
    assert sent < 40 << 20, "the gateway took it all"
    try:
        assert_error(pending.reply(), 413, "body_too_large")
    except ConnectionError:
        pass  # the reset overtook the answer
    invariants.check(gate, expected={"rejected_body_too_large": 1})


def test_endless_small_chunks(gate):
    """One byte per chunk, over and over: over the limit at last, with bounded memory on the way."""
    gate.blocks["server"] = "large_client_header_buffers 4 8k;"
    gate.blocks["location"] = "client_max_body_size 200k;"
    gate.reload()
    probes = invariants.probe(gate)
    growth = invariants.Growth(gate)
    pending = gate.client.raw(request_bytes("POST", "/v1/chat/completions", HEADERS)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = b"1\r\nx\r\n" * 10000
    try:
        while not pending.answered():
            pending.send(piece)
            assert growth.now()["memory"] - growth.first["memory"] < 16 << 20
    except OSError:
        pass
    try:
        assert_error(pending.reply(), 413, "body_too_large")
    except ConnectionError:
        pass
    invariants.check(gate, expected={"rejected_body_too_large": 1, "completed": probes})


def test_one_byte_at_a_time(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    body = chat_body(content="é\U0001f600" * 20, stream=True)
    data = request_bytes("POST", "/v1/chat/completions", HEADERS, body)
    pending = gate.client.raw(data[:1])
    for position in range(1, len(data)):
        pending.send(data[position:position + 1])
    assert pending.reply().status == 200
    assert engine.requests[0].body == body
    invariants.check(gate, expected={"completed": 1})


def test_a_body_that_never_ends(gate):
    """The client stops in the midst of it: 408 after client_body_timeout, or the connection is closed; nothing stays."""
    gate.blocks["location"] = "client_body_timeout 300ms;"
    gate.reload()
    pending = gate.client.raw(request_bytes("POST", "/v1/chat/completions", HEADERS)[:-2] + b"Content-Length: 1000\r\n\r\n{\"model\":")
    start = time.monotonic()
    until(lambda: pending.answered() or peer_closed(pending.socket), "the gateway gives it up")
    assert time.monotonic() - start < 8
    try:
        reply = pending.reply()
        assert reply.status == 408 and reply.header("content-type") == "application/json"
    except ConnectionError:
        pass
    until(lambda: sum(gate.metrics().outcomes().values()) == 1, "it is counted")
    invariants.check(gate)


def test_clients_that_leave_while_their_body_arrives(gate):
    for number in range(20):
        pending = gate.client.raw(request_bytes("POST", "/v1/chat/completions", HEADERS)[:-2]
                                  + b"Content-Length: 200000\r\n\r\n{\"model\":\"m\",\"x\":\"" + b"y" * (number * 8000))
        gate.client.get("/health/liveness")
        pending.reset() if number % 2 else pending.close()
    until(lambda: sum(gate.metrics().outcomes().values()) == 20, lambda: f"all are counted: {gate.metrics().outcomes()}")
    until(lambda: not any((gate.directory / "body").rglob("*[0-9]")), "their temporary files are gone")
    invariants.check(gate, expected={"cancelled_queued": 20})
