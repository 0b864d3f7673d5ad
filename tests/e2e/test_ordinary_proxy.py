"""
The shorter way through proxy_pass must be invisible: each case goes through two gateways, one that takes it and one whose
location sets a header of its own (an empty one, which changes no byte), so that nginx's proxy module does the same work.
"""

import dataclasses
import re
import threading

import pytest

from support.client import chat_body, request_bytes
from support.poll import until

OWN = 'proxy_set_header X-Nothing "";'
BUILT_BY_NGINX = "http proxy header:"
READ_BY_NGINX = "http proxy status "


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


def head(*lines, end="\r\n"):
    return end.join(lines).encode("latin-1") + end.encode() * 2


LONG = "x" * 2000
# name -> (head, whether it is ordinary). Each is followed by the body "{}" where its head leaves room for one.
HEADS = {
    "vllm": (head("HTTP/1.1 200 OK", "date: Sat, 21 Nov 2026 10:00:00 GMT", "server: uvicorn", "content-length: 2",
                  "content-type: application/json"), True),
    "nginx": (head("HTTP/1.1 200 OK", "Server: nginx", "Content-Type: application/json", "Content-Length: 2",
                   "Connection: keep-alive"), True),
    "no reason": (head("HTTP/1.1 200", "Content-Length: 2"), True),
    "empty reason": (head("HTTP/1.1 200 ", "Content-Length: 2"), True),
    "long values": (head("HTTP/1.1 200 OK", f"X-Long: {LONG}", "Content-Length: 2"), True),
    "cookies": (head("HTTP/1.1 200 OK", "Set-Cookie: a=1", "Set-Cookie: b=2", "Content-Length: 2"), True),
    "spaces": (head("HTTP/1.1 200 OK", "X-Spaces:    a  b   ", "X-None:", "X-Blank:   ", "Content-Length:2"), True),
    "underscore": (head("HTTP/1.1 200 OK", "x_under_score: 1", "Content-Length: 2"), True),
    "latin-1": (head("HTTP/1.1 200 OK", "X-Name: Ren\xe9", "Content-Length: 2"), True),
    "colons": (head("HTTP/1.1 200 OK", "X-Time: 10:00:00", "Location: http://x/y", "Content-Length: 2"), True),
    "hidden": (head("HTTP/1.1 200 OK", "X-Accel-Expires: 5", "X-Accel-Buffering: yes", "X-Pad: 1", "Content-Length: 2"), True),
    "engine error": (head("HTTP/1.1 418 I'm a teapot", "Content-Length: 2", "Retry-After: 3"), True),
    "no body": (head("HTTP/1.1 204 No Content", "X-A: 1"), True),
    "not modified": (head("HTTP/1.1 304 Not Modified", "ETag: \"x\""), True),
    "empty": (head("HTTP/1.1 200 OK", "Content-Length: 0"), True),
    "encoded": (head("HTTP/1.1 200 OK", "Content-Encoding: identity", "Vary: Origin", "Content-Length: 2"), True),
    "many fields": (head("HTTP/1.1 200 OK", *(f"X-Field-{i}: {i}" for i in range(40)), "Content-Length: 2"), False),
    "long name": (head("HTTP/1.1 200 OK", f"X-{'n' * 60}: 1", "Content-Length: 2"), False),
    "bare line feeds": (head("HTTP/1.1 200 OK", "X-A: 1", "Content-Length: 2", end="\n"), False),
    "tab in a value": (head("HTTP/1.1 200 OK", "X-A: a\tb", "Content-Length: 2"), False),
    "odd name": (head("HTTP/1.1 200 OK", "X!A: 1", "Content-Length: 2"), False),
    "old version": (head("HTTP/1.0 200 OK", "Content-Length: 2"), False),
    "control byte": (head("HTTP/1.1 200 OK", "X-A: a\x01b", "Content-Length: 2"), False),
    "NUL": (head("HTTP/1.1 200 OK", "X-A: a\x00b", "Content-Length: 2"), False),
    "space before the colon": (head("HTTP/1.1 200 OK", "X-A : 1", "Content-Length: 2"), False),
    "folded": (head("HTTP/1.1 200 OK", "X-A: 1", " 2", "Content-Length: 2"), False),
    "no colon": (head("HTTP/1.1 200 OK", "X-A", "Content-Length: 2"), False),
    "bad length": (head("HTTP/1.1 200 OK", "Content-Length: two"), True),
    "no HTTP": (head("SMTP 220 hello"), False),
    "strange status": (head("HTTP/1.1 999 Odd", "Content-Length: 2"), False),
}


def answer_with(raw):
    def script(exchange):
        status = raw.split(b" ")[1]
        bodiless = status in (b"204", b"304") or b"Content-Length: 0" in raw
        exchange.send(raw + (b"" if bodiless else b"{}"))
        exchange.fin()
    return script


def seen(reply):
    """What a client gets, without what differs from request to request."""
    headers = [(name, value) for name, value in reply.headers if name not in ("date", "x-request-id", "x-llm-queue-ms")]
    return dataclasses.replace(reply, headers=headers, body=re.sub(rb"req[-_a-z0-9]+", b"", reply.body))


@pytest.mark.parametrize("raw,ordinary", HEADS.values(), ids=HEADS.keys())
def test_clients_get_the_same_answer(both, raw, ordinary):
    engine, short, own = both
    engine.script = answer_with(raw)
    replies = [seen(gate.client.ask(token="alice")) for gate in (short, own)]
    assert replies[0] == replies[1]
    assert debugged(short, READ_BY_NGINX) == (not ordinary and b"HTTP/" in raw)


def test_a_head_in_pieces_is_read_by_nginx(both):
    engine, short, _ = both
    go_on = threading.Event()

    def script(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        assert go_on.wait(20)
        exchange.send(b"ngth: 2\r\n\r\n{}")
    engine.script = script
    pending = short.client.send(token="alice")
    until(lambda: debugged(short, READ_BY_NGINX + "200"), "nginx has read the status line")
    go_on.set()
    reply = pending.reply()
    assert (reply.status, reply.body) == (200, b"{}")


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
