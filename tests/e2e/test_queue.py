"""The queue: who goes next, who may wait, and how one leaves it."""

import time

import pytest

from support import jitter
from support.client import chat_body
from support.errors import assert_error
from support.http2 import Http2
from support.poll import stays
from support.ports import free_port
from support.users import user


def fill_queue(gate, engine, token, marks, *, already=0):
    """Sends requests one after another, each only when the one before it waits; returns them in order."""
    waiting = []
    for number, mark in enumerate(marks, already + 1):
        waiting.append(gate.client.send(chat_body(content=mark), token=token))
        gate.wait_queued(number)
    return waiting


def occupy(gate, engine, token):
    """Takes the only seat of the engine until engine.release()."""
    return engine.occupy(gate.client, chat_body(content="first"), token=token)


def drain(engine, waiting):
    """Lets all finish, one after another, and returns the marks of all requests in the order in which the engine saw them."""
    seen = len(engine.requests)
    for position in range(1, len(waiting) + 1):
        engine.release()
        if position < len(waiting):
            engine.wait_requests(seen + position)
    for pending in waiting:
        assert pending.reply().status == 200
    return engine.contents()


def test_high_priority_overtakes_across_workers(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("low", priority=1, threshold=50), user("high", priority=9, threshold=50)],
                   http="llm_scheduler strict;")
    waiting = [occupy(gate, engine, "low")]
    lows = [f"low{i}" for i in range(12)]
    highs = [f"high{i}" for i in range(4)]
    waiting += fill_queue(gate, engine, "low", lows)
    waiting += fill_queue(gate, engine, "high", highs, already=len(lows))
    workers = {gate.worker_of(pending) for pending in waiting}
    assert len(workers) >= 3, "the connections lie on too few workers to prove anything"
    assert drain(engine, waiting) == ["first", *highs, *lows]


def test_bands_are_strict_in_weighted_too(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("plain", priority=10, threshold=50), user("gold", priority=1, band=1, threshold=50)])
    waiting = [occupy(gate, engine, "plain")]
    waiting += fill_queue(gate, engine, "plain", ["p0", "p1", "p2", "p3"])
    waiting += fill_queue(gate, engine, "gold", ["g0", "g1"], already=4)
    assert drain(engine, waiting) == ["first", "g0", "g1", "p0", "p1", "p2", "p3"]


def test_priority_zero_is_background(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("background", priority=0, threshold=50), user("one", priority=1, threshold=50)])
    waiting = [occupy(gate, engine, "one")]
    waiting += fill_queue(gate, engine, "background", ["b0", "b1"])
    waiting += fill_queue(gate, engine, "one", ["o0", "o1", "o2"], already=2)
    assert drain(engine, waiting) == ["first", "o0", "o1", "o2", "b0", "b1"]


def test_first_in_first_out_within_a_client(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=50)])
    marks = [f"r{i}" for i in range(15)]
    waiting = [occupy(gate, engine, "alice"), *fill_queue(gate, engine, "alice", marks)]
    assert drain(engine, waiting) == ["first", *marks]


def test_threshold_is_exact(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=3)])
    waiting = [occupy(gate, engine, "alice"), *fill_queue(gate, engine, "alice", ["a", "b", "c"])]
    for _ in range(5):
        assert_error(gate.client.ask(token="alice"), 429, "threshold")
    engine.release()
    engine.wait_requests(2)
    waiting += fill_queue(gate, engine, "alice", ["d"], already=2)  # one went, so exactly one may come
    assert_error(gate.client.ask(token="alice"), 429, "threshold")
    assert drain(engine, waiting[1:]) == ["first", "a", "b", "c", "d"]
    assert waiting[0].reply().status == 200


def test_threshold_counts_a_tokens_own_requests(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=3), user("bob", threshold=1)])
    waiting = [occupy(gate, engine, "alice"), *fill_queue(gate, engine, "alice", ["a", "b", "c"])]
    waiting += fill_queue(gate, engine, "bob", ["d"], already=3)
    for token in ("alice", "bob"):
        assert_error(gate.client.ask(token=token), 429, "threshold")
    engine.open_gate()
    assert all(pending.reply().status == 200 for pending in waiting)


def test_threshold_zero_may_run_but_never_wait(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=0)])
    running = occupy(gate, engine, "alice")
    assert_error(gate.client.ask(token="alice"), 429, "threshold")
    engine.open_gate()
    assert running.reply().status == 200
    assert gate.client.ask(token="alice").status == 200


@pytest.mark.parametrize("limit", ["engine", "client"])
def test_one_request_after_another_is_never_refused(fake_engine, gateway, limit):
    """Its seat is free before a client that may not wait sees the end of its answer: another worker may get the next request."""
    engine = fake_engine(max_running=1 if limit == "engine" else 8)
    gate = gateway([engine], [user("alice", threshold=0, max_running=1 if limit == "client" else 0)])
    refused = [number for number in range(150 if jitter.ACTIVE else 1500)
               if gate.client.ask(chat_body(stream=number % 2 == 0), token="alice").status != 200]
    assert refused == []


@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.parametrize("buffering", ["off", "on"])
def test_one_empty_answer_after_another_is_never_refused(fake_engine, gateway, status, buffering):
    """Its client has all of it with the head."""
    head = b"HTTP/1.1 %d Reason\r\n%s\r\n" % (status, b"Content-Length: 0\r\n" if status == 200 else b"")
    port = free_port()
    gate = gateway([fake_engine(max_running=1, script=lambda exchange: exchange.send(head))], [user("alice", threshold=0)],
                   location=f"proxy_buffering {buffering};", server=f"listen 127.0.0.1:{port} reuseport http2;")
    times = 100 if jitter.ACTIVE else 700
    assert [number for number in range(times) if gate.client.ask(token="alice").status != status] == []
    for _ in range(times):
        client = Http2(port)
        assert client.wait(client.send(chat_body(), "alice")) == [status]
        client.close()


def test_threshold_scope_queue_counts_everybody(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=50), user("bob", threshold=2)], http="llm_threshold_scope queue;")
    waiting = [occupy(gate, engine, "alice"), *fill_queue(gate, engine, "alice", ["a", "b"])]
    assert_error(gate.client.ask(token="bob"), 429, "threshold")
    engine.open_gate()
    assert all(pending.reply().status == 200 for pending in waiting)


def test_queue_full(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)], http="llm_queue_size 4;")
    waiting = [occupy(gate, engine, "alice"), *fill_queue(gate, engine, "alice", ["a", "b", "c", "d"])]
    assert_error(gate.client.ask(token="alice"), 429, "queue_full")
    engine.open_gate()
    assert all(pending.reply().status == 200 for pending in waiting)


def test_queue_timeout(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], location="llm_queue_timeout 400ms;")
    running = occupy(gate, engine, "alice")
    start = time.monotonic()
    reply = gate.client.ask(token="alice")
    waited = time.monotonic() - start
    assert_error(reply, 429, "queue_timeout")
    assert 0.4 <= waited < 2.4
    assert int(reply.header("x-llm-queue-ms")) >= 400
    engine.open_gate()
    assert running.reply().status == 200
    gate.wait_outcomes({"rejected_queue_timeout": 1, "completed": 1})


def test_client_that_leaves_the_queue(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=50)])
    running = occupy(gate, engine, "alice")
    waiting = fill_queue(gate, engine, "alice", ["a", "b", "c", "d", "e", "f"])
    for pending, leave in zip(waiting[:4], (lambda p: p.reset(), lambda p: p.close()) * 2):
        leave(pending)
    gate.wait_queued(2)
    engine.open_gate()
    assert running.reply().status == 200
    assert [pending.reply().status for pending in waiting[4:]] == [200, 200]
    assert engine.contents() == ["first", "e", "f"]
    gate.wait_outcomes({"completed": 3, "cancelled_queued": 4})


def test_client_limit_max_running(fake_engine, gateway):
    engine = fake_engine(max_running=8)
    gate = gateway([engine], [user("alice", threshold=5, max_running=2), user("strict", threshold=0, max_running=1), user("bob")])
    engine.hold()
    running = [gate.client.send(token="alice") for _ in range(2)]
    engine.wait_requests(2)
    running += fill_queue(gate, engine, "alice", ["third"])
    running.append(gate.client.send(chat_body(content="bob"), token="bob"))  # blocked by nobody
    engine.wait_requests(3)
    running.append(gate.client.send(chat_body(content="strict"), token="strict"))
    engine.wait_requests(4)
    assert_error(gate.client.ask(token="strict"), 429, "max_running")
    assert gate.queued() == 1
    engine.open_gate()
    assert all(pending.reply().status == 200 for pending in running)


def test_room_and_waiting_never_coexist(fake_engine, gateway):
    """Work conservation: whenever a seat is free, the next request is at the engine without anybody doing anything."""
    engine = fake_engine(max_running=3)
    gate = gateway([engine], [user("alice", threshold=50)])
    engine.hold()
    waiting = [gate.client.send(chat_body(content=f"r{i}"), token="alice") for i in range(12)]
    engine.wait_requests(3)
    gate.wait_queued(9)
    stays(lambda: len(engine.exchanges) <= 3, "more requests at the engine than it has seats", 0.2)
    for finished in range(1, 10):
        engine.release()
        engine.wait_requests(3 + finished, 2)
    engine.open_gate()
    assert all(pending.reply().status == 200 for pending in waiting)


def test_engine_with_room_is_used(fake_engine, gateway):
    """Two engines of one model: both fill before anybody waits."""
    engines = [fake_engine(max_running=2), fake_engine(max_running=2)]
    gate = gateway(engines, [user("alice", threshold=50)])
    for engine in engines:
        engine.hold()
    waiting = [gate.client.send(token="alice") for _ in range(5)]
    gate.wait_queued(1)
    gate.wait_held(4)
    for engine in engines:
        engine.wait_requests(2)
        engine.open_gate()
    assert all(pending.reply().status == 200 for pending in waiting)


def test_every_request_has_one_outcome(fake_engine, gateway):
    engine = fake_engine(max_running=2)
    gate = gateway([engine], [user("alice", threshold=2)])
    engine.hold()
    running = [gate.client.send(token="alice") for _ in range(2)]
    engine.wait_requests(2)
    waiting = fill_queue(gate, engine, "alice", ["a", "b"])
    refused = [gate.client.ask(token="alice").status, gate.client.ask(token="x").status, gate.client.ask(b"{", token="alice").status]
    waiting[0].reset()
    gate.wait_queued(1)
    engine.open_gate()
    assert [pending.reply().status for pending in [*running, waiting[1]]] == [200] * 3
    assert refused == [429, 401, 400]
    gate.wait_outcomes({"completed": 3, "cancelled_queued": 1, "rejected_threshold": 1,
                                         "rejected_invalid_api_key": 1, "rejected_invalid_json": 1})


def test_what_a_refusal_says_of_the_queue(fake_engine, gateway):
    """Without a threshold more was said to be left than the limit, also where nothing was."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], None, http="llm_queue_size 2;", location="llm_queue_timeout 1s;")
    waiting = [engine.occupy(gate.client, chat_body())]
    for number in (1, 2):
        waiting.append(gate.client.send(chat_body()))
        gate.wait_queued(number)

    def told(reply):
        return reply.json()["error"]["code"], *(reply.header(f"x-ratelimit-{name}-requests") for name in ("limit", "remaining"))

    assert told(gate.client.ask(chat_body())) == ("queue_full", "2", "0")
    assert sorted(told(pending.reply()) for pending in waiting[1:]) == [("queue_timeout", "2", "1"), ("queue_timeout", "2", "2")]
    engine.open_gate()
    assert waiting[0].reply().status == 200
