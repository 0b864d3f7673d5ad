"""HTTP/2 clients: many requests on one connection, each with its own place in the queue."""

import json

import pytest

from support.client import chat_body
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


def test_lost_connection_leaves_the_queue_and_the_engine(queued):
    gate, engine, client, _ = queued
    client.close()
    gate.wait_queued(0, 1)
    gate.wait_held(0, 2)
    gate.wait_outcomes({"cancelled_queued": 4, "cancelled_running": 1})
    assert engine.contents() == ["first"]
