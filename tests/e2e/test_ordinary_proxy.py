"""
The shorter way through proxy_pass must be invisible: each case goes through two gateways, one that takes it and one whose
location sets a header of its own (an empty one, which changes no byte), so that nginx's proxy module does the same work.
"""

import re

import pytest

from support.client import chat_body, request_bytes

OWN = 'proxy_set_header X-Nothing "";'
BUILT_BY_NGINX = "http proxy header:"


@pytest.fixture
def both(fake_engine, gateway):
    """(the engine, the gateway that takes the shorter way, the one that does not)"""
    engine = fake_engine()
    ways = [gateway([engine], location=location, server="error_log error.log info; error_log debug.log debug;") for location in ("", OWN)]
    return engine, *ways


def debugged(gate, text):
    """Whether nginx's debug log of the gateway contains this; it is what tells the two ways apart."""
    return text in (gate.directory / "debug.log").read_text(errors="replace")


def without_id(raw):
    return re.sub(rb"(?i)(x-request-id: )[0-9a-f]{32}\r\n", rb"\1\r\n", raw)


REQUESTS = {
    "plain": {},
    "many headers": {"headers": [("Accept", "*/*"), ("User-Agent", "OpenAI/Python 1.0"), ("X-Custom", "a, b"), ("X-Custom", "c"),
                                 ("X-Empty", ""), ("Cookie", "a=b; c=d"), ("traceparent", "00-ab-cd-01")]},
    "hop by hop": {"headers": [("Connection", "keep-alive, X-Odd"), ("Keep-Alive", "timeout=5"), ("TE", "trailers"), ("Upgrade", "h2c"),
                               ("Proxy-Connection", "keep-alive"), ("X-Odd", "1")]},
    "secrets": {"headers": [("api-key", "k"), ("X-Api-Key", "k"), ("Proxy-Authorization", "k"), ("x-llm-priority", "1")]},
    "own id": {"headers": [("X-Request-Id", "mine")]},
    "path and arguments": {"target": "/v1/chat/completions%2F..//x?a=%20b&c=d%26&&q"},
    "empty argument": {"target": "/v1/completions?"},
    "chunked": {"chunks": [chat_body()[:20], chat_body()[20:]]},
    "in a file": {"body": chat_body(content="x" * 200_000)},
    "odd case": {"headers": [("ACCEPT-ENCODING", "gzip"), ("x_under_score", "dropped by nginx"), ("user-AGENT", "z")]},
}


@pytest.mark.parametrize("keywords", REQUESTS.values(), ids=REQUESTS.keys())
def test_engines_get_the_same_bytes(both, keywords):
    engine, short, own = both
    for gate in (short, own):
        assert gate.client.ask(token="alice", **keywords).status == 200
    assert without_id(engine.requests[0].raw) == without_id(engine.requests[1].raw)
    assert not debugged(short, BUILT_BY_NGINX) and debugged(own, BUILT_BY_NGINX)


def test_retries_are_written_for_their_own_engine(fake_engine, gateway):
    """The second attempt carries the second engine's Host."""
    broken = fake_engine(script=lambda exchange: exchange.reset())
    sound = fake_engine()
    gate = gateway([broken, sound], http="llm_routing round_robin;")
    replies = [gate.client.ask(chat_body(), token="alice") for _ in range(4)]
    assert [reply.status for reply in replies] == [200] * 4
    assert broken.requests and {request.header("host") for request in sound.requests} == {f"127.0.0.1:{sound.port}"}
    assert all(request.body == chat_body() for request in sound.requests)


def test_requests_on_one_connection(both):
    """What the first leaves behind in nginx's state must not leak into the second."""
    engine, short, _ = both
    bodies = [chat_body(content=f"number {number}") for number in range(3)]
    data = [request_bytes("POST", f"/v1/chat/completions?{number}", [("Authorization", "Bearer alice")], body)
            for number, body in enumerate(bodies)]
    pending = short.client.raw(b"".join(data[:2]) + data[2].replace(b"Host:", b"Connection: close\r\nHost:"))
    with pending.socket.makefile("rb") as answers:
        assert answers.read().count(b"HTTP/1.1 200 ") == 3
    assert [request.body for request in engine.requests] == bodies
