"""Streams: nothing is held back, a proper end stays proper, and a broken one never looks complete."""

import json
import threading

import pytest

from support.client import chat_body, request_bytes
from support.fake_engine import answer
from support.wire import Incomplete


def ask_stream(gate, **keywords):
    return gate.client.send(chat_body(stream=True), token="alice", **keywords)


def test_first_event_arrives_before_the_second_is_sent(fake_engine, gateway):
    seen = threading.Event()

    def script(exchange):
        exchange.stream_head()
        exchange.event("first")
        assert seen.wait(10), "the client did not get the first event while the second was held back"
        exchange.event("second")
        exchange.end()

    gate = gateway([fake_engine(script=script)])
    pending = ask_stream(gate)
    parts = pending.parts()
    assert next(parts) == b"data: first\n\n"
    seen.set()
    assert b"".join(parts) == b"data: second\n\n"
    pending.close()


def test_head_arrives_before_the_first_event(fake_engine, gateway):
    seen = threading.Event()

    def script(exchange):
        exchange.stream_head()
        assert seen.wait(10), "the client did not get the head"
        exchange.end()

    gate = gateway([fake_engine(script=script)])
    pending = ask_stream(gate)
    assert pending.head() == 200
    seen.set()
    assert pending.reply().complete


def test_stream_is_byte_for_byte_and_marked_unbuffered(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    reply = ask_stream(gate).reply()
    assert reply.complete
    assert reply.header("content-type") == "text/event-stream"
    assert reply.header("x-accel-buffering") == "no"
    assert reply.text() == "hello from the engine"
    assert reply.events()[-1] == "[DONE]"
    assert "usage" not in reply.body.decode()


def test_usage_chunk_of_a_client_that_asked(fake_engine, gateway):
    gate = gateway([fake_engine()])
    reply = gate.client.ask(chat_body(stream=True, stream_options={"include_usage": True}), token="alice")
    assert json.loads(reply.events()[-2])["usage"]["completion_tokens"] == 4
    assert gate.access_log()[0]["prompt_tokens"] == "7"
    assert gate.access_log()[0]["completion_tokens"] == "4"


def broken_after_an_event(end):
    def script(exchange):
        exchange.stream_head()
        exchange.event({"choices": [{"index": 0, "delta": {"content": "half"}}]})
        end(exchange)
    return script


@pytest.mark.parametrize("end", ["reset", "fin"])
def test_stream_broken_between_events_ends_with_an_error_event(fake_engine, gateway, end):
    engine = fake_engine(script=broken_after_an_event(lambda exchange: getattr(exchange, end)()))
    gate = gateway([engine])
    reply = ask_stream(gate).reply()
    assert not reply.complete, "a truncated answer looks complete"
    assert "error" in json.loads(reply.events()[-1])
    assert len(engine.requests) == 1, "nothing is repeated after the first byte"
    gate.wait_outcomes({"engine_error": 1})


def test_stream_broken_inside_an_event_gets_no_event_in_it(fake_engine, gateway):
    def script(exchange):
        exchange.stream_head()
        exchange.chunk(b'data: {"choices":[{"ind')
        exchange.reset()

    gate = gateway([fake_engine(script=script)])
    reply = ask_stream(gate).reply()
    assert not reply.complete
    assert reply.body == b'data: {"choices":[{"ind'


def test_stream_that_stalls_is_broken_off(fake_engine, gateway):
    release = threading.Event()
    engine = fake_engine(script=broken_after_an_event(lambda exchange: release.wait(20)))
    gate = gateway([engine], location="proxy_read_timeout 300ms;")
    reply = ask_stream(gate).reply()
    release.set()
    assert not reply.complete
    assert "error" in json.loads(reply.events()[-1])


@pytest.mark.parametrize("done", [True, False], ids=["with DONE", "without DONE"])
def test_close_delimited_stream(fake_engine, gateway, done):
    """An engine that frames nothing: [DONE] is the only sign that the stream is whole."""
    def script(exchange):
        exchange.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")])
        exchange.send(b"data: {}\n\n" + (b"data: [DONE]\n\n" if done else b""))
        exchange.fin()

    gate = gateway([fake_engine(script=script)])
    reply = ask_stream(gate).reply()
    assert reply.complete == done
    assert reply.body.startswith(b"data: {}\n\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_what_came_of_a_cut_stream_arrives(fake_engine, gateway, version):
    """With buffering nginx holds the first bytes back, and they were lost with the end."""
    def script(exchange):
        exchange.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")])
        exchange.send(b'data: {}\n\ndata: {"half":')
        exchange.fin()

    gate = gateway([fake_engine(script=script)], location="proxy_buffering on;")
    data = request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer alice")], chat_body(stream=True))
    reply = gate.client.raw(data.replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1)).reply()
    assert (reply.status, reply.body, reply.complete) == (200, b'data: {}\n\ndata: {"half":', False)


def test_head_of_a_close_delimited_stream(fake_engine, gateway):
    """It has no end that could be missing: an error event was sent in the place of the next answer."""
    gate = gateway([fake_engine(script=lambda exchange: exchange.head(200, [("Content-Type", "text/event-stream")]))])
    head = request_bytes("HEAD", "/v1/chat/completions", [("Authorization", "Bearer alice")], chat_body(stream=True))
    pending = gate.client.raw(head + request_bytes("GET", "/health/liveness", [("Connection", "close")]))
    with pending.socket.makefile("rb") as answers:
        text = answers.read()
    assert text.count(b"HTTP/1.1 200 ") == 2 and text.endswith(b"\r\n\r\nOK"), text


def http_1_0(body, **more):
    headers = "".join(f"{name}: {value}\r\n" for name, value in more.items())
    return (f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer alice\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def half_then_reset(exchange):
    exchange.stream_head()
    exchange.event("first")
    exchange.reset()


def half_without_framing(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: first\n\n")
    exchange.fin()


def half_of_a_length(exchange):
    """Its client is told the length too, and needs no reset."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    exchange.reset()


@pytest.mark.parametrize("script", [half_then_reset, half_without_framing])
@pytest.mark.parametrize("buffering", ["off", "on"])
def test_broken_stream_to_a_client_without_chunks(fake_engine, gateway, script, buffering):
    """The close of the connection is all that a client of HTTP/1.0 knows of the end: an orderly one looked complete."""
    gate = gateway([fake_engine(script=script)], location=f"proxy_buffering {buffering};")
    pending = gate.client.raw(http_1_0(chat_body(stream=True)))
    received = bytearray()
    with pytest.raises(ConnectionResetError):
        while data := pending.socket.recv(65536):
            received += data
    assert b"data: first\n\n" in received or buffering == "on"
    pending.close()
    gate.wait_outcomes({"engine_error": 1})


def test_broken_stream_to_a_client_that_sends_more(fake_engine, gateway):
    """What is there to read makes nginx end the connection in good order first, and linger."""
    gate = gateway([fake_engine(script=half_then_reset)])
    pending = gate.client.raw(http_1_0(chat_body(stream=True)) + b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        while pending.socket.recv(65536):
            pass
    pending.close()


def test_whole_stream_to_a_client_without_chunks(fake_engine, gateway):
    gate = gateway([fake_engine()])
    pending = gate.client.raw(http_1_0(chat_body(stream=True)))
    received = b""
    while data := pending.socket.recv(65536):
        received += data
    assert received.endswith(b"data: [DONE]\n\n")
    pending.close()


def test_broken_length_to_an_old_client(fake_engine, gateway):
    gate = gateway([fake_engine(script=half_of_a_length)])
    reply = gate.client.raw(http_1_0(chat_body())).reply()
    assert reply.header("content-length") == "100" and reply.body == b"{"
    gate.wait_outcomes({"engine_error": 1})


def test_truncated_length_delimited_answer(fake_engine, gateway):
    def script(exchange):
        exchange.head(200, [("Content-Type", "application/json"), ("Content-Length", "1000")])
        exchange.send(b'{"choices":[')
        exchange.fin()

    gate = gateway([fake_engine(script=script)])
    reply = gate.client.ask(token="alice")
    assert not reply.complete


@pytest.mark.parametrize("missing", [50, 10000])
def test_broken_event_stream_of_a_declared_length(fake_engine, gateway, missing):
    """The error event took the place of the missing bytes, so that the answer looked whole."""
    sent = b'data: {"choices":[]}\n\n'

    def script(exchange):
        exchange.head(200, [("Content-Type", "text/event-stream"), ("Content-Length", str(len(sent) + missing))])
        exchange.send(sent)
        exchange.fin()

    gate = gateway([fake_engine(script=script)])
    reply = ask_stream(gate).reply()
    assert not reply.complete
    assert reply.body.startswith(sent)
    if missing == 50:
        assert reply.body == sent
    else:
        assert "error" in json.loads(reply.events()[-1])
    gate.wait_outcomes({"engine_error": 1})


def test_a_head_that_nginx_replaces(fake_engine, gateway):
    """The error event came before nginx's own head."""
    def script(exchange):
        exchange.head(200, [("Content-Type", "text/event-stream"), ("Content-Length", "10000")])
        exchange.send(b'data: {"choices":[]}\n\n')
        exchange.fin()

    gate = gateway([fake_engine(script=script)], location="proxy_force_ranges on;")
    reply = ask_stream(gate, headers=[("Range", "bytes=20000-")]).reply()
    assert reply.status == 416 and reply.json()["error"]


def test_client_that_leaves_ends_the_generation(fake_engine, gateway):
    gone = threading.Event()

    def script(exchange):
        exchange.stream_head()
        exchange.event("first")
        exchange.wait_gone(5)
        gone.set()
        raise Incomplete

    gate = gateway([fake_engine(script=script)])
    pending = ask_stream(gate)
    next(pending.parts())
    gate.wait_held(1)
    pending.reset()
    assert gone.wait(2), "the engine's connection stays open without a client"
    gate.wait_held(0, 2)
    gate.wait_outcomes({"cancelled_running": 1})


def test_keepalive_client_connection(fake_engine, gateway):
    """Answers of each framing leave the client's connection usable for the next request."""
    engine = fake_engine()
    gate = gateway([engine])
    pending = ask_stream(gate)
    b"".join(pending.parts())
    for stream in (False, True):
        engine.script = answer
        body = chat_body(stream=stream)
        pending.status = None
        pending.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert pending.head() == 200
        assert b"".join(pending.parts())
    pending.close()


@pytest.mark.parametrize("encoded", [False, True])
def test_a_long_head_under_limit_rate(fake_engine, gateway, encoded):
    """nginx put off what followed, and cancelled the timer for it: the client never got it."""
    def script(exchange):
        exchange.stream_head([("X-Long", "x" * 3000)] + [("Content-Encoding", "odd")] * encoded)
        exchange.event("[DONE]")
        exchange.end()

    gate = gateway([fake_engine(script=script)], location="limit_rate 10k;")
    reply = ask_stream(gate, timeout=5).reply()
    assert reply.complete and reply.body == b"data: [DONE]\n\n"
