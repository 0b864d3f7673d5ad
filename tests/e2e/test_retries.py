"""Attempts: what is repeated, where, and what never is."""

import contextlib
import socket
import threading

import pytest

from support.client import chat_body
from support.fake_engine import answer, error
from support.errors import assert_error
from support.poll import until
from support.users import user
from support.wire import reset


def one_of_two_fails(fake_engine, gateway, script, **keywords):
    """Two engines, one of which fails every request with this script."""
    bad, good = fake_engine(script=script), fake_engine()
    gate = gateway([bad, good], **keywords)
    return gate, bad, good


def ask_until_tried(gate, bad, count=24):
    """
    Requests until the bad engine gets one; every answer must be the good one's. Between equals the choice is a coin's:
    24 times the good one is one case in 16 million.
    """
    for _ in range(count):
        if bad.requests:
            break
        reply = gate.client.ask(token="alice")
        assert reply.status == 200, reply.body
        assert reply.text() == "hello from the engine"
    assert bad.requests, "the failing engine was never tried"


def test_reset_before_the_head(fake_engine, gateway):
    gate, bad, good = one_of_two_fails(fake_engine, gateway, lambda exchange: exchange.reset())
    ask_until_tried(gate, bad)
    assert good.requests[0].body == chat_body()


@pytest.mark.parametrize("status", [429, 502, 503])
def test_refusal_by_an_engine(fake_engine, gateway, status):
    gate, bad, _ = one_of_two_fails(fake_engine, gateway, error(status))
    ask_until_tried(gate, bad)


@pytest.mark.parametrize("status", [403, 404, 500, 504])
def test_other_statuses_that_the_user_has_repeated(fake_engine, gateway, status):
    """
    nginx repeated them by itself: once for every idle connection, and then said 500 or 504 in the engine's place; for 403 and 404
    without an end, as often as the engine could answer.
    """
    engines = [fake_engine(), fake_engine()]
    gate = gateway(engines, workers=1, location=f"proxy_next_upstream http_{status} non_idempotent;")
    for engine in engines:
        engine.hold()
    warm = [gate.client.send(token="alice") for _ in range(6)]
    for engine in engines:
        engine.wait_requests(3)
    for engine in engines:
        engine.open_gate()
    assert [pending.reply().status for pending in warm] == [200] * 6
    engines[0].script = engines[1].script = error(status)
    reply = gate.client.ask(token="alice")
    assert reply.status == status and reply.json()["error"]["message"] == f"engine says {status}"
    assert [len(engine.requests) for engine in engines] == [4, 4]
    assert gate.access_log(7)[-1]["attempts"] == "2"
    failures = [engine["failures"] for engine in gate.status()["engines"]]
    assert failures == ([1, 1] if status >= 500 else [0, 0])
    engines[0].script = engines[1].script = answer
    assert gate.client.ask(token="alice").status == 200


@pytest.mark.parametrize("allowed", ["error timeout invalid_header", "http_503 non_idempotent"])
@pytest.mark.parametrize("garbage", [False, True])
def test_a_failure_that_the_user_does_not_have_repeated(fake_engine, gateway, allowed, garbage):
    """The request was moved to another engine, which the log then named, though nginx sent nothing there."""
    def fail(exchange):
        if garbage:
            exchange.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        exchange.fin()

    gate = gateway([fake_engine(script=fail, name="one"), fake_engine(script=fail, name="two")], location=f"proxy_next_upstream {allowed};")
    assert_error(gate.client.ask(token="alice"), 502, "engine_error")
    entry = gate.access_log(1)[0]
    blamed = {engine["id"]: engine["failures"] for engine in gate.status()["engines"]}
    assert entry["attempts"] == "1" and blamed[entry["engine"]] == 1 and sum(blamed.values()) == 1


def test_a_host_that_does_not_answer_at_all(fake_engine, gateway):
    """Its power has failed, say. nginx waits 60 s for a connection."""
    good = fake_engine()
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # whom it does not accept fill its queue; the kernel drops further attempts
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(silent.getsockname())
        gate = gateway([good], http=f"llm_engine http://127.0.0.1:{silent.getsockname()[1]} model=m id=silent; llm_routing round_robin;")
        pending = [gate.client.send(token="alice", timeout=30) for _ in range(2)]
        assert [each.reply().status for each in pending] == [200, 200]
        failures = {engine["id"]: engine["failures"] for engine in gate.status()["engines"]}
        assert failures == {"silent": 1, good.name: 0}


def test_garbage_before_the_head(fake_engine, gateway):
    def garbage(exchange):
        exchange.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        exchange.fin()

    gate, bad, _ = one_of_two_fails(fake_engine, gateway, garbage)
    ask_until_tried(gate, bad)


def test_close_before_the_head(fake_engine, gateway):
    gate, bad, _ = one_of_two_fails(fake_engine, gateway, lambda exchange: exchange.fin())
    ask_until_tried(gate, bad)


def test_each_attempt_carries_its_own_host_and_key(fake_engine, gateway, tmp_path):
    bad, good = fake_engine(script=lambda exchange: exchange.reset()), fake_engine()
    for name in ("bad", "good"):
        (tmp_path / name).write_text(f"key-of-{name}")
    lines = "".join(f"llm_engine {engine.url} model=m key=file:{tmp_path / name};" for name, engine in (("bad", bad), ("good", good)))
    gate = gateway(http=lines)
    ask_until_tried(gate, bad)
    for name, engine in (("bad", bad), ("good", good)):
        for request in engine.requests:
            assert request.header("authorization") == f"Bearer key-of-{name}"
            assert request.header("host") == f"127.0.0.1:{engine.port}"
            assert request.body == chat_body()


def test_a_backup_takes_what_has_failed(fake_engine, gateway):
    dead, backup = fake_engine(), fake_engine()
    dead.stop_listening()
    gate = gateway(http=f"llm_engine {dead.url} model=m; llm_engine {backup.url} model=m backup;")
    assert gate.client.ask(token="alice").status == 200
    assert gate.access_log()[0]["attempts"] == "2"


def test_no_more_than_one_plus_retries(fake_engine, gateway):
    engines = [fake_engine(script=lambda exchange: exchange.reset()) for _ in range(4)]
    gate = gateway(engines, location="llm_retries 2;")
    assert_error(gate.client.ask(token="alice"), 502, "engine_error")
    assert sum(len(engine.requests) for engine in engines) == 3
    assert max(len(engine.requests) for engine in engines) == 1, "an engine was tried twice while others were left"
    assert gate.access_log()[0]["attempts"] == "3"


def test_retries_off(fake_engine, gateway):
    engines = [fake_engine(script=lambda exchange: exchange.reset()) for _ in range(2)]
    gate = gateway(engines, location="llm_retries 0;")
    assert_error(gate.client.ask(token="alice"), 502, "engine_error")
    assert sum(len(engine.requests) for engine in engines) == 1


def test_last_refusal_passes_unchanged(fake_engine, gateway):
    engines = [fake_engine(script=error(503, [("Retry-After", "17")])) for _ in range(2)]
    gate = gateway(engines)
    reply = gate.client.ask(token="alice")
    assert reply.status == 503
    assert reply.json()["error"]["message"] == "engine says 503"
    assert reply.header("retry-after") == "17"
    gate.wait_outcomes({"completed": 1})


def test_ordinary_errors_are_not_repeated(fake_engine, gateway):
    engines = [fake_engine(script=error(500)) for _ in range(2)]
    gate = gateway(engines)
    assert gate.client.ask(token="alice").status == 500
    assert sum(len(engine.requests) for engine in engines) == 1


def test_stale_idle_connection_is_repeated_free_of_charge(fake_engine, gateway):
    """The engine closes a kept connection just when the next request is written to it."""
    engine = fake_engine()

    def once(exchange):
        answer(exchange)
        engine.script = stale

    def stale(exchange):
        if exchange.request.connection == 1:
            exchange.reset()
        else:
            answer(exchange)

    engine.script = once
    gate = gateway([engine], workers=1, location="llm_retries 0;")
    assert gate.client.ask(token="alice").status == 200
    assert gate.client.ask(token="alice").status == 200
    assert engine.connections == 2


def test_a_head_too_large_is_no_stale_connection(fake_engine, gateway):
    """It was repeated on every idle connection, free of charge, and the engine worked for each."""
    engine = fake_engine()
    gate = gateway([engine], workers=1, location="llm_retries 0; proxy_buffer_size 1k;")
    engine.hold()
    pending = [gate.client.send(token="alice") for _ in range(4)]
    engine.wait_requests(4)
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 4
    engine.script = lambda exchange: exchange.json({}, headers=[("X-Large", "v" * 2000)])
    assert_error(gate.client.ask(token="alice"), 502, "engine_error")
    assert len(engine.requests) == 5


def test_large_body_is_sent_again_whole(fake_engine, gateway):
    """A body beyond the buffer lies in a file when the second attempt needs it."""
    body = chat_body(content="x" * 500000)
    gate, bad, good = one_of_two_fails(fake_engine, gateway, lambda exchange: exchange.reset())
    until(lambda: gate.client.ask(body, token="alice").status == 200 and bad.requests, "the failing engine was tried")
    assert all(request.body == body for request in [*bad.requests, *good.requests])


def test_a_large_body_that_has_waited_is_sent_again_whole(fake_engine, gateway):
    """After a failure in its middle nginx found no buffer to send its file with, until proxy_send_timeout."""
    def break_off():
        connection, _ = broken.accept()
        connection.recv(1000)
        reset(connection)

    engine = fake_engine()
    with socket.create_server(("127.0.0.1", 0)) as broken:
        threading.Thread(target=break_off, daemon=True).start()
        gate = gateway(http=f"llm_engine http://127.0.0.1:{broken.getsockname()[1]} model=m; llm_engine {engine.url} model=m backup;"
                            f"llm_engine {engine.url} model=other id=other;", users=[user("alice", max_running=1)])
        running = engine.occupy(gate.client, chat_body("other"), token="alice")
        body = chat_body(content="x" * 4_000_000)
        waiting = gate.client.send(body, token="alice", timeout=10)
        gate.wait_queued(1)
        engine.open_gate()
        assert (running.reply().status, waiting.reply().status) == (200, 200)
    assert engine.requests[1].body == body
    assert gate.access_log(2)[1]["attempts"] == "2"


def test_breaker_keeps_a_dead_engine_out(fake_engine, gateway):
    dead, good = fake_engine(), fake_engine()
    dead.stop_listening()
    gate = gateway([dead, good], [user("alice")])
    for _ in range(40):
        assert gate.client.ask(token="alice").status == 200
    attempts = [int(line["attempts"]) for line in gate.access_log(40)]
    assert sum(attempts) - len(attempts) <= 12, "the dead engine is tried again and again"  # 3 per worker at most
