"""llm_queue_keepalive over each protocol, encoding and client."""

import functools
import json
import socket
import ssl
import time
import zlib

import httpx
import openai
import pytest

from support.client import chat_body, request_bytes
from support.fake_engine import answer, error
from support.http2 import Http2
from support.nginx import unsent_bytes
from support.poll import stays, until
from support.ports import free_port
from support.waiting_stream import BODY, EVERY, QUEUED, assert_whole, bare, begun, busy_gateway, finish, for_waiting, the_event, wait
from support.wire import Incomplete, Reader, readable


@pytest.fixture
def busy(fake_engine, gateway):
    return functools.partial(busy_gateway, fake_engine, gateway)


@pytest.mark.parametrize("version,location", [("1.0", ""), ("1.1", "chunked_transfer_encoding off;")])
@pytest.mark.parametrize("what", ["stream", "queue timeout", "refusal", "broken"])
def test_without_chunks(busy, what, version, location):
    """Only a reset shows that the end is not one."""
    def script(exchange):
        if what == "refusal":
            return error(400)(exchange)
        if what == "stream":
            return answer(exchange)
        exchange.stream_head()
        exchange.event("first")
        return exchange.reset()

    gate, engine, running = busy(then=for_waiting(script), location=location + ("llm_queue_timeout 400ms;" if what == "queue timeout" else ""))
    waiting = gate.client.raw(request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer alice")], BODY)
                              .replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1))
    assert waiting.head() == 200 and "transfer-encoding" not in dict(waiting.headers)
    if what == "queue timeout":
        gate.wait_queued(0)
    engine.release(100)
    received, reset = b"", False
    try:
        while data := waiting.socket.recv(65536):
            received += data
    except ConnectionResetError:
        reset = True
    waiting.close()
    assert running.reply().status == 200
    assert reset == (what != "stream")
    expected = {"stream": b"data: [DONE]\n\n", "queue timeout": b"queue_timeout", "refusal": b"engine says 400", "broken": b"engine_error"}
    assert expected[what] in received and received.count(b'{"error":') == (what != "stream")


@pytest.fixture
def busy_http2(busy):
    """make(…) -> (gateway, engine, running, port): `listen` stands behind that port."""
    def make(listen="", **keywords):
        port = free_port()
        return *busy(server=f"listen 127.0.0.1:{port} http2 {listen};", **keywords), port
    return make


def test_http_2(busy_http2):
    def script(exchange):
        error(400)(exchange) if exchange.request.json().get("n") else answer(exchange)

    gate, engine, running, port = busy_http2(then=for_waiting(script))
    client = Http2(port)
    streams = [client.send(body, "alice") for body in (BODY, chat_body(content="waits", stream=True, n=2), BODY)]
    client.read_until(lambda: all(client.bodies.get(stream, b"").count(QUEUED) >= 2 for stream in streams))
    assert [client.status[stream] for stream in streams] == [200] * 3
    client.reset(streams[2])
    gate.wait_queued(2)
    engine.release(100)
    client.wait(*streams[:2])
    assert streams[0] not in client.reset_codes and client.bodies[streams[0]].endswith(b"data: [DONE]\n\n")
    assert streams[1] in client.reset_codes
    assert json.loads(bare(client.bodies[streams[1]])[len("data: "):])["error"]["message"] == "engine says 400"
    assert running.reply().status == 200
    client.close()
    gate.wait_outcomes({"completed": 3, "cancelled_queued": 1})


def test_http_2_queue_timeout(busy_http2):
    _, engine, running, port = busy_http2(location="llm_queue_timeout 300ms;")
    client = Http2(port)
    stream = client.send(BODY, "alice")
    client.wait(stream)
    assert client.status[stream] == 200 and stream in client.reset_codes
    assert json.loads(bare(client.bodies[stream])[len("data: "):])["error"]["code"] == "queue_timeout"
    finish(engine, running)
    again = client.send(BODY, "alice")
    assert client.wait(again) == [200] and again not in client.reset_codes, "the connection goes on"
    client.close()


def test_comments_do_not_pile_up_behind_a_shut_window(busy_http2):
    every = 0.005
    gate, engine, running, port = busy_http2(every="5ms")
    client = Http2(port, window=0)
    stream = client.send(BODY, "alice")
    client.read_until(lambda: stream in client.status)
    stays(lambda: not readable(client.socket), "nothing comes through a shut window", 100 * every)
    opened = time.monotonic()
    client.open_window(stream, 60_000)
    client.read_until(lambda: client.bodies.get(stream))
    count = client.bodies[stream].count(QUEUED)
    assert client.bodies[stream] == QUEUED * count
    assert count <= 2 + (time.monotonic() - opened) / every, "more than one comment had waited"
    finish(engine, running)
    client.wait(stream)
    assert stream not in client.reset_codes and client.bodies[stream].endswith(b"data: [DONE]\n\n")
    client.close()


def test_comments_do_not_pile_up_behind_a_full_socket(busy):
    port = free_port()
    gate, engine, running = busy(every="1ms", server=f"listen 127.0.0.1:{port} sndbuf=2k;")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.sendall(request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer alice")], BODY))
        sizes = []

        def full():
            sizes.append(unsent_bytes(client.getsockname()[1], port))
            return len(sizes) > 5 and sizes[-1] > 0 and len(set(sizes[-5:])) == 1

        until(full, lambda: f"the socket takes no more: {sizes}")
        most = 50 * len(QUEUED) + sizes[-1] + 65536  # what the kernel holds on both sides, and little more
        finish(engine, running)
        reader = Reader(client)
        start, _ = reader.head()
        received = b""
        while chunk := reader.chunk():
            received += chunk
    assert " 200 " in start and len(received) < most
    assert bare(received).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_tls(busy_http2, certificate, version):
    gate, engine, running, port = busy_http2(f"ssl; ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]}")
    with httpx.Client(http2=version == "2", http1=version != "2", verify=ssl.create_default_context(cafile=certificate[0]), timeout=20) as client:
        with client.stream("POST", f"https://127.0.0.1:{port}/v1/chat/completions", content=BODY,
                           headers={"Authorization": "Bearer alice"}) as reply:
            assert reply.status_code == 200 and reply.http_version == ("HTTP/2" if version == "2" else "HTTP/1.1")
            lines = reply.iter_lines()
            assert [next(lines) for _ in range(4)] == [": queued", ""] * 2
            finish(engine, running)
            assert [line for line in lines if line][-1] == "data: [DONE]"
    gate.wait_outcomes({"completed": 2})


@pytest.mark.parametrize("fails", [False, True])
def test_gzip(busy, fails):
    """A client may read as much as has come, at any time."""
    gate, engine, running = busy(location="gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;",
                                 then=for_waiting(error(400) if fails else answer))
    waiting = wait(gate, headers=[("Accept-Encoding", "gzip")])
    assert waiting.head() == 200
    assert dict(waiting.headers)["content-encoding"] == "gzip"
    parts, unpack, received = waiting.parts(), zlib.decompressobj(31), b""
    while received.count(QUEUED) < 3:
        received += unpack.decompress(next(parts))
    engine.release(100)
    assert running.reply().status == 200
    complete = True
    try:
        for part in parts:
            received += unpack.decompress(part)
    except Incomplete:
        complete = False
    assert (complete, unpack.eof) == (not fails, not fails)
    assert received.endswith(b'"engine says 400", "type": "engine", "code": null}}\n\n' if fails else b"data: [DONE]\n\n")
    assert engine.requests[1].header("accept-encoding") == "identity"
    gate.wait_outcomes({"completed": 2})


def test_buffered(busy):
    gate, engine, running = busy(location="proxy_buffering on;")
    parts = begun(wait(gate))
    finish(engine, running)
    whole = assert_whole(parts)
    gate.wait_outcomes({"completed": 2})  # the seats are free: the next one does not wait
    assert whole == gate.client.ask(BODY, token="alice").body


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("buffering", ["off", "on"])
def test_limit_rate(busy, buffering, fails):
    """nginx's proxy sends streams without it, and made a write that it had put off wait forever."""
    gate, engine, running = busy(location=f"proxy_buffering {buffering}; limit_rate 2000;", then=for_waiting(error(400) if fails else answer))
    parts = begun(wait(gate))
    engine.release(100)
    assert running.reply().status == 200
    if fails:
        assert the_event(parts)["error"]["message"] == "engine says 400"
    else:
        assert_whole(parts)


def test_trailer_and_what_follows_the_answer(busy, fake_engine):
    ledger = fake_engine(script=lambda exchange: exchange.json({}))
    gate, engine, running = busy(then=for_waiting(error(400)), location="add_trailer X-Outcome $llm_outcome; post_action /ledger;", locations=(
        f"location = /ledger {{ internal; proxy_set_header X-Outcome $llm_outcome; proxy_set_header X-Status $status; proxy_pass {ledger.url}; }}"))
    parts = begun(wait(gate))
    engine.release(100)
    assert running.reply().status == 200
    assert the_event(parts)["error"]["message"] == "engine says 400"
    assert [(each.header("x-outcome"), each.header("x-status")) for each in ledger.wait_requests(2)] == [("completed", "200")] * 2


def openai_stream(gate):
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{gate.port}/v1", api_key="alice", max_retries=0)
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "waits"}], stream=True)


def test_openai_client(busy):
    gate, engine, running = busy()
    stream = openai_stream(gate)  # returns with the head
    assert gate.queued() == 1
    assert int(stream.response.headers["x-llm-queue-ms"]) >= EVERY / 2
    finish(engine, running)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "hello from the engine"


@pytest.mark.parametrize("code", ["queue_timeout", "context_length_exceeded"])
def test_openai_client_sees_the_failure(busy, code):
    def script(exchange):
        exchange.json({"error": {"message": "too long", "type": "invalid_request_error", "param": "messages", "code": code}}, 400)

    gate, engine, running = busy(location="llm_queue_timeout 300ms;" if code == "queue_timeout" else "", then=for_waiting(script))
    stream = openai_stream(gate)
    if code == "queue_timeout":
        gate.wait_queued(0)
    engine.release(100)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == code and caught.value.message
    assert running.reply().status == 200
