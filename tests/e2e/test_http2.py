"""HTTP/2 clients: many requests on one connection, each with its own place in the queue."""

import json

import pytest

from support.answer_cache import answer_cache
from support.client import chat_body
from support.fake_engine import answer
from support.http2 import Http2
from support.ports import free_port
from support.users import user


@pytest.fixture
def queued(fake_engine, gateway):
    """(gateway, engine, client, streams): one request runs and four wait, all on one connection."""
    engine = fake_engine(max_running=1)
    port = free_port()
    gate = gateway([engine], [user("alice", threshold=50)], server=f"listen 127.0.0.1:{port} http2;")
    engine.hold()
    client = Http2(port)
    streams = [client.send(chat_body(content="first"), "alice")]
    engine.wait_requests(1)
    for number in range(1, 5):
        streams.append(client.send(chat_body(content=f"r{number}"), "alice"))
        gate.wait_queued(number)
    yield gate, engine, client, streams
    client.close()


def test_answers_and_order(queued):
    _, engine, client, streams = queued
    engine.open_gate()
    assert client.wait(*streams) == [200] * 5
    assert engine.contents() == ["first", "r1", "r2", "r3", "r4"]
    assert json.loads(client.bodies[streams[0]])["choices"][0]["message"]["content"] == "hello from the engine"


def test_reset_stream_leaves_the_queue(queued):
    gate, engine, client, streams = queued
    client.reset(streams[2])
    gate.wait_queued(3, 1)
    engine.open_gate()
    assert client.wait(streams[0], streams[1], streams[3], streams[4]) == [200] * 4
    assert engine.contents() == ["first", "r1", "r3", "r4"]


def test_a_stream_that_an_administrator_ends_while_it_waits_for_a_cache(fake_engine, gateway, tmp_path):
    engine = fake_engine()
    port = free_port()
    gate = gateway([engine], **answer_cache(tmp_path, "one", more="proxy_cache_lock on;"), server=f"listen 127.0.0.1:{port} http2;")
    running = engine.occupy(gate.client, token="alice")
    [first] = [request["id"] for request in gate.status()["requests"]]
    client = Http2(port)
    waiting = client.send(chat_body(), "alice")
    gate.wait_held(2)
    [ticket] = [request["id"] for request in gate.status()["requests"] if request["id"] != first]
    assert gate.end_request(ticket).status == 200
    client.wait(waiting)
    assert waiting in client.reset_codes
    gate.wait_outcomes({"cancelled_running": 1})
    engine.open_gate()
    assert running.reply().status == 200
    assert client.wait(client.send(chat_body(), "alice")) == [200], "the connection goes on"
    gate.wait_outcomes({"cancelled_running": 1, "completed": 2})
    client.close()


def test_as_many_streams_as_a_connection_may_have(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    port = free_port()
    gate = gateway([engine], [user("alice", threshold=200)], server=f"listen 127.0.0.1:{port} http2;")
    engine.hold()
    client = Http2(port)
    streams = [client.send(chat_body(content=str(number), stream=number % 2 == 1), "alice") for number in range(128)]
    gate.wait_queued(127)
    for stream in streams[20:70]:
        client.reset(stream)
    gate.wait_queued(77)
    engine.open_gate()
    assert client.wait(*streams[:20], *streams[70:]) == [200] * 78
    assert engine.contents() == [str(number) for number in [*range(20), *range(70, 128)]]
    gate.wait_outcomes({"completed": 78, "cancelled_queued": 50})
    client.close()


def test_a_stream_that_is_not_read_holds_up_nobody_else(fake_engine, gateway):
    def script(exchange):
        answer(exchange, "word " * 30_000 if exchange.request.content() == "long" else "short")

    engine = fake_engine(max_running=2, script=script)
    port = free_port()
    gate = gateway([engine], server=f"listen 127.0.0.1:{port} http2; send_timeout 2s;")
    client = Http2(port)
    stalled = client.send(chat_body(content="long", stream=True), "alice")
    client.unread.add(stalled)
    client.read_until(lambda: len(client.bodies.get(stalled, b"")) == 65535)
    others = [client.send(chat_body(content="short"), "alice") for _ in range(4)]
    assert client.wait(*others) == [200] * 4
    gate.wait_held(0)
    client.wait(stalled)
    assert stalled in client.reset_codes
    gate.wait_outcomes({"completed": 4, "cancelled_running": 1})
    client.close()


def test_streams_survive_a_reload(queued):
    """Four wait, and the body of one more is on its way."""
    gate, engine, client, streams = queued
    body = chat_body(content="late")
    late = client.begin("alice")
    client.data(late, body[:10])
    gate.reload()
    client.read_until(lambda: client.goaway)
    client.data(late, body[10:], end=True)
    gate.wait_queued(5)
    engine.open_gate()
    assert client.wait(*streams, late) == [200] * 6
    assert engine.contents() == ["first", "r1", "r2", "r3", "r4", "late"]


def test_lost_connection_leaves_the_queue_and_the_engine(queued):
    gate, engine, client, _ = queued
    client.close()
    gate.wait_queued(0, 1)
    gate.wait_held(0, 2)
    gate.wait_outcomes({"cancelled_queued": 4, "cancelled_running": 1})
    assert engine.contents() == ["first"]
