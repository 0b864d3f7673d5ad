"""What reaches the engine is what the client sent, and what reaches the client is what the engine sent."""

import hashlib
import json
import random
import re

import pytest

from support.client import chat_body, request_bytes
from support.users import user

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "trailer"}


def sized_body(size):
    """A JSON body of about this many bytes whose text is hard to reproduce by accident."""
    text = random.Random(size).choices("abc \\u00e9\U0001f600 \t ", k=size)
    return b'{ "messages":[{"role":"user","content":' + json.dumps("".join(text)[:size], ensure_ascii=size % 2 == 0).encode() \
        + b'}],\n\t"model" : "m", "temperature": 1.0e0 }'


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body_arrives_byte_for_byte(fake_engine, gateway, chunked):
    """From a few bytes to far more than client_body_buffer_size (64k), which goes through a file."""
    engine = fake_engine()
    gate = gateway([engine])
    for size in (0, 1, 100, 1000, 4096, 16383, 65000, 65536, 70000, 300000, 2000000):
        body = sized_body(size)
        if chunked:
            step = max(1, len(body) // 7)
            reply = gate.client.ask(token="alice", chunks=[body[i:i + step] for i in range(0, len(body), step)])
        else:
            reply = gate.client.ask(body, token="alice")
        assert reply.status == 200, (size, reply.body)
        assert hashlib.sha256(engine.requests[-1].body).digest() == hashlib.sha256(body).digest(), size


def test_body_one_byte_at_a_time(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    body = chat_body(content="é" * 20)
    head = [("Authorization", "Bearer alice"), ("Content-Length", str(len(body)))]
    pending = gate.client.raw(request_bytes("POST", "/v1/chat/completions", head))
    for position in range(len(body)):
        pending.send(body[position:position + 1])
    assert pending.reply().status == 200
    assert engine.requests[0].body == body


def test_method_path_and_query_are_raw(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    target = "/v1/embeddings%2F..//x?a=%20b&c=d%26&&q"
    assert gate.client.ask(token="alice", target=target, method="PUT", body=chat_body()).status == 200
    assert (engine.requests[0].method, engine.requests[0].target) == ("PUT", target)


def test_secret_and_internal_headers_are_stripped(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    secrets = [("Proxy-Authorization", "Basic eA=="), ("api-key", "k1"), ("X-Api-Key", "k2"), ("x-llm-priority", "0"),
               ("X-LLM-Client", "root"), ("X-Llm-Anything", "1")]
    others = [("X-Custom", "kept"), ("Accept", "application/json"), ("User-Agent", "test/1"), ("OpenAI-Organization", "org")]
    assert gate.client.ask(token="alice", headers=secrets + others).status == 200
    request = engine.requests[0]
    names = [name for name, _ in request.headers]
    for name, _ in secrets + [("authorization", "")]:
        assert name.lower() == "x-llm-priority" or name.lower() not in names, names
    assert names.count("x-llm-priority") == 1
    for name, value in others:
        assert request.header(name.lower()) == value
    assert b"alice" not in request.raw.split(b"\r\n\r\n")[0]


def test_host_is_the_engines(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    gate.client.ask(token="alice")
    assert engine.requests[0].header("host") == f"127.0.0.1:{engine.port}"
    assert engine.requests[0].raw.split(b"\r\n")[0].endswith(b"HTTP/1.1")


def test_engine_key_is_sent_to_its_engine(fake_engine, gateway, tmp_path):
    engine = fake_engine()
    key = tmp_path / "key"
    key.write_text("engine-secret\n")
    gate = gateway(http=f"llm_engine {engine.url} model=m key=file:{key};")
    assert gate.client.ask(token="alice").status == 200
    assert engine.requests[0].header("authorization") == "Bearer engine-secret"


def test_connections_to_engines_are_reused(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], workers=1)
    for _ in range(10):
        assert gate.client.ask(token="alice").status == 200
    assert engine.connections == 1


def test_request_id(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    reply = gate.client.ask(token="alice", headers=[("X-Request-Id", "my-id.1:2_3")])
    assert reply.header("x-request-id") == "my-id.1:2_3"
    assert engine.requests[-1].header("x-request-id") == "my-id.1:2_3"
    for bad in ("white space", "x" * 129, "é", 'quote"'):
        reply = gate.client.ask(token="alice", headers=[("X-Request-Id", bad)])
        made = reply.header("x-request-id")
        assert made != bad and re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", made)
        assert engine.requests[-1].header("x-request-id") == made
    ids = {gate.client.ask(token="alice").header("x-request-id") for _ in range(20)}
    assert len(ids) == 20


def test_gateway_behind_a_gateway(fake_engine, gateway):
    """What the gateway says of a request comes once, from the one that the client asked."""
    inner = gateway([fake_engine()], users=None)
    outer = gateway(http=f"llm_engine http://127.0.0.1:{inner.port} model=m;")
    reply = outer.client.ask(token="alice", headers=[("X-Request-Id", "mine")])
    assert (reply.status, reply.text()) == (200, "hello from the engine")
    assert reply.header("x-request-id") == "mine"
    assert reply.header("x-llm-queue-ms") == "0"


def test_priority_header_weighted_is_the_band(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], [user("plain", priority=7), user("gold", priority=1, band=3)])
    gate.client.ask(token="plain")
    gate.client.ask(token="gold")
    assert [request.header("x-llm-priority") for request in engine.requests] == ["100", "97"]


def test_priority_header_strict_is_the_priority(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], [user("seven", priority=7), user("zero", priority=0)], http="llm_scheduler strict;")
    gate.client.ask(token="seven")
    gate.client.ask(token="zero")
    gate.client.ask(chat_body(priority=3), token="seven")  # a client may lower its own
    gate.client.ask(chat_body(priority=9), token="seven")  # never raise it
    assert [request.header("x-llm-priority") for request in engine.requests] == ["93", "100", "97", "93"]


def test_answer_reaches_the_client_unchanged(fake_engine, gateway):
    body = bytes(range(256)) * 5000
    headers = [("Content-Type", "audio/mpeg"), ("X-Engine-Header", "a, b"), ("Cache-Control", "no-store"), ("Set-Cookie", "a=1"),
               ("Set-Cookie", "b=2"), ("ETag", '"x"'), ("X-Accel-Redirect", "/metrics"), ("X-Accel-Limit-Rate", "1")]
    engine = fake_engine(script=lambda exchange: exchange.body(201, body, headers))
    gate = gateway([engine])
    reply = gate.client.ask(token="alice")
    assert reply.status == 201 and reply.complete
    assert hashlib.sha256(reply.body).digest() == hashlib.sha256(body).digest()
    for name in ("content-type", "x-engine-header", "cache-control", "etag"):
        assert reply.header(name) == dict((key.lower(), value) for key, value in headers)[name]
    assert [value for name, value in reply.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert not any(name.startswith("x-accel") for name, _ in reply.headers)


CONNECTION_HEADERS = [("Connection", "close, X-Hop ,\tX-Next"), ("X-Hop", "1"), ("x-next", "2"), ("Upgrade", "h2c"), ("TE", "trailers"),
                      ("Proxy-Connection", "keep-alive"), ("Keep-Alive", "timeout=5"), ("X-Accel-Expires", "5"),
                      ("X-Accel-Unheard-Of", "1")]
KEPT_HEADERS = [("X-Hope", "a"), ("X-Acceleration", "b"), ("Upgraded", "c"), ("T", "d"), ("Proxy-Status", "e")]


@pytest.mark.parametrize("keywords", [{"token": "alice"}, {"method": "OPTIONS"}], ids=["dispatched", "passed"])
def test_headers_between_gateway_and_engine_stay_there(fake_engine, gateway, keywords):
    """Those of RFC 9110, 7.6.1, what `Connection` names, and X-Accel-*."""
    def script(exchange):
        exchange.body(200, b"{}", CONNECTION_HEADERS + KEPT_HEADERS)
        exchange.fin()
    gate = gateway([fake_engine(script=script)])
    reply = gate.client.ask(**keywords)
    assert reply.status == 200
    names = [name for name, _ in reply.headers]
    assert not set(names) & ({name.lower() for name, _ in CONNECTION_HEADERS} - {"connection"}), names
    assert [reply.header(name.lower()) for name, _ in KEPT_HEADERS] == [value for _, value in KEPT_HEADERS]


def test_engine_status_without_body(fake_engine, gateway):
    engine = fake_engine(script=lambda exchange: exchange.head(204))
    gate = gateway([engine])
    reply = gate.client.ask(token="alice")
    assert (reply.status, reply.body) == (204, b"")


def test_multipart_model_field(fake_engine, gateway):
    engine = fake_engine(script=lambda exchange: exchange.json({"text": "a word"}))
    gate = gateway([engine])
    body = (b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
            + bytes(range(256)) * 4 + b'\r\n--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--xyz--\r\n')
    reply = gate.client.ask(body, token="alice", target="/v1/audio/transcriptions",
                            headers=[("Content-Type", "multipart/form-data; boundary=xyz")])
    assert reply.status == 200, reply.body
    assert engine.requests[0].body == body


def test_a_bad_form_is_told_where_it_is_bad(fake_engine, gateway):
    """It was always "near byte 0"."""
    gate = gateway([fake_engine()])
    body = b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--xyz!\r\n'
    reply = gate.client.ask(body, token="alice", headers=[("Content-Type", "multipart/form-data; boundary=xyz")])
    assert reply.status == 400
    assert reply.json()["error"]["message"] == f"The request body is not valid: bytes after a multipart boundary near byte {body.index(b'!') + 1}."


def test_an_engine_cannot_slow_down_or_relabel_its_answer(fake_engine, gateway):
    """One byte per second, as it asks, would be an hour. Without proxy_buffering nginx has no limit."""
    body = json.dumps({"text": "x" * 4000}).encode()
    headers = [("X-Accel-Limit-Rate", "1"), ("X-Accel-Charset", "koi8-r"), ("Content-Type", "text/plain")]
    gate = gateway([fake_engine(script=lambda exchange: exchange.body(200, body, headers))], location="proxy_buffering on; charset utf-8;")
    reply = gate.client.ask(token="alice")
    assert (reply.status, reply.body, reply.header("content-type")) == (200, body, "text/plain; charset=utf-8")
