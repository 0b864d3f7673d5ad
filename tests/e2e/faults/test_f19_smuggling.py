"""
F19: requests that two parsers could read differently, and headers that only the gateway may set: refused, or seen by the engine
exactly as the gateway has understood them; and no engine ever sees a client's token.
"""

import itertools
import socket

import h2.config
import h2.connection
import h2.events
import pytest

from support import invariants
from support.client import chat_body
from support.ports import free_port
from support.users import user

TOKEN = "sk-secret-token-of-alice"
SMUGGLED = b"POST /v1/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
BODY = b'{"model":"m","messages":[{"role":"user","content":"probe"}]}'


def head(*lines, start=b"POST /v1/chat/completions HTTP/1.1", end=b"\r\n"):
    return end.join([start, b"Host: gateway.test", b"Authorization: Bearer " + TOKEN.encode(), *lines]) + end + end


def length(size):
    return b"Content-Length: %d" % size


CHUNKED = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"

REFUSED = {
    "length and chunked": head(length(len(BODY)), b"Transfer-Encoding: chunked") + CHUNKED,
    "chunked and length": head(b"Transfer-Encoding: chunked", length(4)) + CHUNKED + SMUGGLED,
    "two lengths": head(length(len(BODY)), length(len(BODY) + len(SMUGGLED))) + BODY + SMUGGLED,
    "the same length twice": head(length(len(BODY)), length(len(BODY))) + BODY,
    "a list of lengths": head(b"Content-Length: %d, %d" % (len(BODY), len(BODY))) + BODY,
    "length with a sign": head(b"Content-Length: +%d" % len(BODY)) + BODY,
    "negative length": head(b"Content-Length: -1") + BODY,
    "hexadecimal length": head(b"Content-Length: 0x3c") + BODY,
    "empty length": head(b"Content-Length:") + BODY,
    "length beyond 64 bits": head(b"Content-Length: 18446744073709551676") + BODY,
    "length with a space inside": head(b"Content-Length: 6 0") + BODY,
    "two encodings": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + CHUNKED,
    "an unknown encoding": head(b"Transfer-Encoding: cow") + CHUNKED,
    "a list of encodings": head(b"Transfer-Encoding: identity, chunked") + CHUNKED,
    "chunked twice": head(b"Transfer-Encoding: chunked, chunked") + CHUNKED,
    "encoding with a tab": head(b"Transfer-Encoding:\x0bchunked") + CHUNKED,
    "chunked in HTTP/1.0": head(b"Transfer-Encoding: chunked", start=b"POST /v1/chat/completions HTTP/1.0") + CHUNKED,
    "bad chunk size": head(b"Transfer-Encoding: chunked") + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative chunk size": head(b"Transfer-Encoding: chunked") + b"-3c\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": head(b"Transfer-Encoding: chunked") + b"1000000000000003c\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk longer than said": head(b"Transfer-Encoding: chunked") + b"1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n" + length(len(BODY)) + b"\r\n\r\n" + BODY,
    "two hosts": head(b"Host: other", length(len(BODY))) + BODY,
    "NUL in a header": head(b"X-A: b\0c", length(len(BODY))) + BODY,
    "a header without a name": head(b": x", length(len(BODY))) + BODY,
    "space before the colon": head(b"Content-Length : %d" % len(BODY)) + BODY,
    "a folded header": head(b"X-A: b\r\n c", length(len(BODY))) + BODY,
    "lone CR in a header": head(b"X-A: b\rTransfer-Encoding: chunked", length(len(BODY))) + BODY,
    "control characters in the target": head(length(len(BODY)), start=b"POST /v1/chat\x01 HTTP/1.1") + BODY,
    "space in the target": head(length(len(BODY)), start=b"POST /v1/chat /v1/x HTTP/1.1") + BODY,
    "two authorizations": head(b"Authorization: Bearer other", length(len(BODY))) + BODY,
}
UNDERSTOOD = {  # nginx reads them as RFC 9112 allows; the engine gets them in the usual form
    "lines without CR": head(length(len(BODY)), end=b"\n") + BODY,
    "leading empty line": b"\r\n" + head(length(len(BODY))) + BODY,
    "leading zeros in the length": head(b"Content-Length: 000%d" % len(BODY)) + BODY,
    "capital encoding": head(b"TRANSFER-ENCODING: CHUNKED") + CHUNKED,
    "chunk extension": head(b"Transfer-Encoding: chunked") + b"%x;a=b\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
    "trailer": head(b"Transfer-Encoding: chunked") + CHUNKED[:-2] + b"Authorization: Bearer evil\r\nContent-Length: 5\r\n\r\n",
    "absolute target": head(length(len(BODY)), start=b"POST http://gateway.test/v1/chat/completions HTTP/1.1") + BODY,
}


@pytest.fixture
def scene(fake_engine, gateway):
    """(gateway, engine): at the end the engine has seen no token and nothing that was not meant as a request."""
    engine = fake_engine()
    gate = gateway([engine], [user(TOKEN, name="alice", threshold=100)])
    yield gate, engine
    for request in engine.requests:
        assert TOKEN.encode() not in request.raw
        assert request.target == "/v1/chat/completions", request.raw
        assert request.header("transfer-encoding") is None or request.header("content-length") is None
    assert TOKEN not in quoted_by_us(gate)


def quoted_by_us(gate):
    """The log but for nginx's own [info] lines, which quote header lines that it cannot accept."""
    return "\n".join(line for line in gate.error_log().splitlines() if "[info]" not in line)


def answers(gate, data):
    """The statuses of all answers on one connection until the gateway closes it or says nothing more."""
    sock = socket.create_connection(("127.0.0.1", gate.port), timeout=10)
    received = b""
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while chunk := sock.recv(65536):
            received += chunk
    except OSError:
        pass
    finally:
        sock.close()
    return [int(line.split(b" ")[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")], received


@pytest.mark.parametrize("name", REFUSED)
def test_refused(scene, name):
    gate, engine = scene
    statuses, received = answers(gate, REFUSED[name])
    assert not engine.requests, engine.requests[0].raw
    assert statuses == [] or all(400 <= status < 600 for status in statuses), received
    invariants.check(gate, token=TOKEN)


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_understood(scene, name):
    gate, engine = scene
    pending = gate.client.raw(UNDERSTOOD[name])
    assert pending.reply().status == 200
    assert len(engine.requests) == 1
    assert engine.requests[0].body == BODY
    assert b"evil" not in engine.requests[0].raw
    assert engine.requests[0].header("host") == f"127.0.0.1:{engine.port}"
    invariants.check(gate, token=TOKEN)


SECRET_NAMES = ["Authorization", "Proxy-Authorization", "api-key", "X-Api-Key", "x-llm-priority", "X-LLM-Client", "x-llm-anything"]


@pytest.mark.parametrize("underscores", ["off", "on"])
def test_spoofed_headers(fake_engine, gateway, underscores):
    """In any case and, where an engine might take one for the other, with underscores."""
    engine = fake_engine()
    gate = gateway([engine], [user(TOKEN, name="alice", band=3)], server=f"underscores_in_headers {underscores};")
    names = SECRET_NAMES[1:]
    forms = set(itertools.chain.from_iterable((name, name.upper(), name.title(), name.replace("-", "_"), name.upper().replace("-", "_"))
                                              for name in names))
    for name in sorted(forms):  # one at a time: newer nginx refuses some of them when they come twice
        assert gate.client.ask(token=TOKEN, headers=[(name, "spoofed")]).status == 200, name
    assert gate.client.ask(token=TOKEN, headers=[("Connection", "close, x-llm-priority, x-request-id"), ("x-llm-priority", "0")]).status == 200
    for request in engine.requests:
        assert b"spoofed" not in request.raw, request.raw
        assert TOKEN.encode() not in request.raw
        assert request.header("x-llm-priority") == "97"
        assert request.header("x-request-id")
    invariants.check(gate, token=TOKEN, expected={"completed": len(forms) + 1})


# --------------------------------------------------------------------------------------------------------------- HTTP/2

BASE = [(":method", "POST"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/v1/chat/completions"),
        ("authorization", f"Bearer {TOKEN}")]

H2_REFUSED = {
    "length too small": [*BASE, ("content-length", "5")],
    "length too large": [*BASE, ("content-length", "500")],
    "two lengths": [*BASE, ("content-length", str(len(BODY))), ("content-length", "5")],
    "negative length": [*BASE, ("content-length", "-1")],
    "capital name": [*BASE, ("X-Capital", "x")],
    "newline in a value": [*BASE, ("x-a", "b\r\nTransfer-Encoding: chunked")],
    "newline in a name": [*BASE, ("x-a\r\nx-b", "c")],
    "colon in a name": [*BASE, ("x:a", "b")],
    "NUL in a value": [*BASE, ("x-a", "b\0c")],
    "two paths": [*BASE, (":path", "/v1/other")],
    "two methods": [(":method", "GET"), *BASE],
    "no path": [field for field in BASE if field[0] != ":path"],
    "path that is none": [field if field[0] != ":path" else (":path", "v1/chat") for field in BASE],
    "newline in the path": [field if field[0] != ":path" else (":path", "/v1/x HTTP/1.1\r\nX: y") for field in BASE],
    "newline in the method": [field if field[0] != ":method" else (":method", "POST /v1/x HTTP/1.1\r\nX: y") for field in BASE],
    "unknown pseudo header": [*BASE, (":llm", "x")],
}
H2_FORBIDDEN = {  # belong to HTTP/1.1: refused, or left out of what the engine sees
    "transfer-encoding": ("transfer-encoding", "chunked"),
    "connection": ("connection", "x-request-id, x-llm-priority"),
    "upgrade": ("upgrade", "h2c"),
    "te": ("te", "trailers, deflate"),
    "keep-alive": ("keep-alive", "timeout=5"),
    "another host": ("host", "other.test"),
}


def ask_h2(port, headers, body):
    """The status of one HTTP/2 request whose headers are sent as they are; None when it was reset."""
    config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(connection.data_to_send())
        connection.send_headers(1, headers)
        connection.send_data(1, body, end_stream=True)
        sock.sendall(connection.data_to_send())
        status = None
        try:
            while data := sock.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        status = int(dict(event.headers)[":status"])
                    elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                        return status
                sock.sendall(connection.data_to_send())
        except OSError:
            pass
        return status


@pytest.fixture
def scene_h2(fake_engine, gateway):
    engine = fake_engine()
    port = free_port()
    gate = gateway([engine], [user(TOKEN, name="alice", threshold=100)], server=f"listen 127.0.0.1:{port} http2;")
    yield gate, engine, port
    for request in engine.requests:
        assert TOKEN.encode() not in request.raw
        assert request.target == "/v1/chat/completions" and request.body in (BODY, chat_body(content="probe")), request.raw
    assert TOKEN not in quoted_by_us(gate)


def test_h2_corpus_is_otherwise_fine(scene_h2):
    gate, engine, port = scene_h2
    assert ask_h2(port, [*BASE, ("content-length", str(len(BODY)))], BODY) == 200
    assert ask_h2(port, BASE, BODY) == 200
    invariants.check(gate, token=TOKEN, expected={"completed": 2})


@pytest.mark.parametrize("name", H2_REFUSED)
def test_h2_refused(scene_h2, name):
    gate, engine, port = scene_h2
    status = ask_h2(port, H2_REFUSED[name], BODY)
    assert status is None or status >= 400, status
    assert not engine.requests, engine.requests[0].raw
    invariants.check(gate, token=TOKEN)


@pytest.mark.parametrize("name", H2_FORBIDDEN)
def test_h2_forbidden_headers(scene_h2, name):
    gate, engine, port = scene_h2
    status = ask_h2(port, [*BASE, H2_FORBIDDEN[name]], BODY)
    assert status in (None, 200, 400), status
    for request in engine.requests:
        assert request.header("transfer-encoding") is None
        assert request.header("upgrade") is None and request.header("te") is None and request.header("keep-alive") is None
        assert request.header("x-request-id") and request.header("x-llm-priority")
        assert request.header("host") == f"127.0.0.1:{engine.port}"
    invariants.check(gate, token=TOKEN)
