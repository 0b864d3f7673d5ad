"""llm_queue_keepalive: a stream that waits gets its head early, and comments."""

import collections
import functools
import json
import os
import re
import signal
import threading
import time

import pytest

from support.client import Pending, chat_body, request_bytes
from support.errors import assert_error
from support.fake_engine import answer, error
from support.invariants import Growth, counted, idle
from support.poll import stays, until
from support.users import user, write_tokens
from support.waiting_stream import (BODY, EVERY, PROCESSING, QUEUED, assert_failed, assert_whole, bare, begun, busy_gateway, finish, for_waiting,
                                    rest, stream_line, the_event, wait)
from support.wire import Incomplete, readable


@pytest.fixture
def busy(fake_engine, gateway):
    return functools.partial(busy_gateway, fake_engine, gateway)


# ---------------------------------------------------------------------------------------------- streams that succeed


def test_head_and_comments_before_the_stream(busy):
    gate, engine, running = busy()
    waiting = wait(gate, headers=[("x-request-id", "mine")])
    parts = begun(waiting, 3)
    headers = {name: value for name, value in waiting.headers if name not in ("date", "server")}
    waited = int(headers.pop("x-llm-queue-ms"))
    assert EVERY / 2 <= waited < 5000  # nginx counts from its cached clock, which is older on a busy machine
    assert headers == {"content-type": "text/event-stream", "transfer-encoding": "chunked", "connection": "keep-alive",
                       "cache-control": "no-cache", "x-accel-buffering": "no", "x-request-id": "mine"}
    finish(engine, running)
    received = assert_whole(parts)
    assert engine.requests[1].body == BODY and engine.requests[1].header("x-request-id") == "mine"
    line = stream_line(gate)
    assert int(line["queue_ms"]) >= waited and (line["status"], line["outcome"], line["attempts"]) == ("200", "completed", "1")
    assert line["prompt_tokens"] and line["completion_tokens"] == "4"
    gate.wait_outcomes({"completed": 2})  # the seats are free: the next one does not wait
    assert received == gate.client.ask(BODY, token="alice").body
    gate.wait_outcomes({"completed": 3})


def test_a_stream_granted_sooner_is_untouched(busy):
    """The same bytes as without the directive."""
    def ask(every):
        gate, engine, running = busy(every=every)
        waiting = wait(gate, headers=[("x-request-id", "same")])
        gate.wait_queued(1)
        finish(engine, running)
        reply = waiting.reply()
        assert reply.complete
        return [header for header in reply.headers if header[0] not in ("date", "x-llm-queue-ms")], reply.body

    assert ask("20s") == ask("off")


@pytest.mark.parametrize("settings", [{}, {"every": "20s"}, {"every": "off", "http": f"llm_queue_keepalive {EVERY}ms;"}],
                         ids=["no stream", "sooner", "off"])
def test_refusals_keep_their_status(busy, settings):
    gate, engine, running = busy(location="llm_queue_timeout 300ms;", **settings)
    bodies = [BODY] if settings else [chat_body(), chat_body(stream=False), chat_body(stream=None)]
    for body in bodies:
        assert_error(gate.client.ask(body, token="alice"), 429, "queue_timeout")
    finish(engine, running)
    gate.wait_outcomes({"rejected_queue_timeout": len(bodies), "completed": 1})


def test_a_head_request_is_untouched(busy):
    gate, engine, running = busy(location="llm_queue_timeout 300ms;")
    assert wait(gate, method="HEAD").reply().status == 429
    finish(engine, running)


def test_inherited(busy):
    gate, engine, running = busy(http=f"llm_queue_keepalive {EVERY}ms;",
                                 locations="location /inherits/ { llm_dispatch on; proxy_pass http://llm_engines; }")
    parts = begun(wait(gate, target="/inherits/"))
    finish(engine, running)
    assert_whole(parts)


def test_comments_go_on_until_the_first_byte(busy):
    """A long prompt is as silent as the queue."""
    first, second = threading.Event(), threading.Event()

    def slow(exchange):
        exchange.stream_head()
        assert first.wait(20)
        exchange.event("first")
        assert second.wait(20)
        exchange.event("second")
        exchange.end()

    gate, engine, running = busy(then=for_waiting(slow))
    waiting = wait(gate)
    parts = begun(waiting)
    engine.release(2)
    received = b""
    while received.count(PROCESSING) < 3:
        received += next(parts)
    assert re.fullmatch(b"(%b)*(%b)+" % (QUEUED, PROCESSING), received)
    first.set()
    received = b""
    while not received.endswith(b"data: first\n\n"):
        received += next(parts)
    stays(lambda: not readable(waiting.socket), "a comment between events", EVERY * 5 / 1000)
    second.set()
    assert rest(parts) == (b"data: second\n\n", True)
    assert running.reply().status == 200


def test_an_empty_stream_ends_properly(busy):
    def empty(exchange):
        exchange.stream_head()
        exchange.end()

    gate, engine, running = busy(then=for_waiting(empty))
    parts = begun(wait(gate))
    engine.release(2)
    assert rest(parts) == (b"", True)
    assert running.reply().status == 200


def test_the_connection_serves_the_next_request(busy):
    gate, engine, running = busy()
    waiting = wait(gate)
    parts = begun(waiting)
    finish(engine, running)
    assert_whole(parts)
    waiting.status = None
    waiting.send(request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer alice")], chat_body()))
    assert waiting.reply().json()["object"] == "chat.completion"


def test_usage_is_hidden_and_counted(busy):
    gate, engine, running = busy(location="llm_usage_inject on;")
    parts = begun(wait(gate))
    finish(engine, running)
    assert b"usage" not in assert_whole(parts)
    assert engine.requests[1].json()["stream_options"] == {"include_usage": True}
    line = stream_line(gate)
    assert (line["prompt_tokens"], line["completion_tokens"]) == ("7", "4")


def test_the_seat_is_free_when_the_engine_is_done(busy):
    """However slowly the client reads."""
    gate, engine, running = busy(then=for_waiting(lambda exchange: answer(exchange, "word " * 500)))
    waiting = wait(gate)
    parts = begun(waiting, 1)
    engine.release(2)
    gate.wait_held(0)
    assert_whole(parts)
    assert running.reply().status == 200


# ------------------------------------------------------------------------------------------------ failures of the queue


def test_queue_timeout(busy):
    gate, engine, running = busy(location="llm_queue_timeout 300ms;")
    assert_failed(begun(wait(gate)), "queue_timeout", "rate_limit_error")
    finish(engine, running)
    gate.wait_outcomes({"rejected_queue_timeout": 1, "completed": 1})
    line = stream_line(gate)
    assert (line["status"], line["outcome"]) == ("200", "rejected_queue_timeout")


def test_no_engine(fake_engine, gateway, redis_server):
    engine = fake_engine()
    gate = gateway([], http=f"llm_redis {redis_server.url};", location=f"llm_queue_keepalive {EVERY}ms; llm_queue_timeout 500ms;")
    reporter = engine.announce(redis_server.url, state="loading")
    gate.wait_model("m", "alice")
    parts = begun(wait(gate))
    reporter.report(state="failed")
    assert_failed(parts, "no_engine")
    gate.wait_outcomes({"rejected_no_engine": 1})


def test_revoked_token(busy):
    gate, engine, running = busy(users=(user("alice"), user("bob")))
    parts = begun(wait(gate, token="bob"))
    write_tokens(gate.tokens, [user("alice")])
    assert_failed(parts, "invalid_api_key", "invalid_request_error")
    finish(engine, running)
    gate.wait_outcomes({"rejected_invalid_api_key": 1, "completed": 1})


def abort(gate, state):
    ticket = next(request["id"] for request in gate.status()["requests"] if request["state"] == state)
    reply = gate.end_request(ticket)
    assert reply.status == 200, reply


def test_ended_by_an_administrator(busy):
    gate, engine, running = busy()
    parts = begun(wait(gate))
    abort(gate, "queued")
    assert_failed(parts, "aborted")
    finish(engine, running)
    gate.wait_outcomes({"cancelled_queued": 1, "completed": 1})


@pytest.mark.parametrize("sent", ["nothing", "head", "event", "half of a refusal"])
def test_ended_by_an_administrator_at_the_engine(busy, sent):
    ready = threading.Event()

    def script(exchange):
        if sent == "half of a refusal":
            exchange.head(400, [("Content-Type", "application/json"), ("Content-Length", "100")])
            exchange.send(b'{"error":')
        elif sent != "nothing":
            exchange.stream_head()
        if sent == "event":
            exchange.event("first")
        ready.set()
        exchange.wait_gone()
        raise Incomplete

    gate, engine, running = busy(then=for_waiting(script))
    parts = begun(wait(gate))
    engine.release(2)
    assert ready.wait(10)
    received = b""
    while sent == "event" and not received.endswith(b"data: first\n\n"):
        received += next(parts)
    assert running.reply().status == 200
    gate.wait_held(1)
    abort(gate, "running")
    assert_failed(parts, "aborted")
    gate.wait_outcomes({"cancelled_running": 1, "completed": 1})


def test_a_client_that_leaves(busy):
    gate, engine, running = busy()
    for leave in (Pending.close, Pending.reset):
        waiting = wait(gate)
        begun(waiting)
        gate.wait_queued(1)
        leave(waiting)
        gate.wait_queued(0, 1)
    finish(engine, running)
    assert len(engine.requests) == 1
    gate.wait_outcomes({"cancelled_queued": 2, "completed": 1})
    until(lambda: [line["status"] for line in gate.access_log() if line["stream"] == "1"] == ["499", "499"], "both are logged")


def test_a_client_that_leaves_at_the_engine(busy):
    gone = threading.Event()

    def script(exchange):
        exchange.wait_gone(5)
        gone.set()
        raise Incomplete

    gate, engine, running = busy(then=for_waiting(script))
    waiting = wait(gate)
    begun(waiting)
    engine.release(2)
    engine.wait_requests(2)
    waiting.reset()
    assert gone.wait(2)
    assert running.reply().status == 200
    gate.wait_outcomes({"cancelled_running": 1, "completed": 1})


# --------------------------------------------------------------------------------------------------- the other modes


def test_llm_compat(busy):
    """Its own words, in the event too; those of status 200 are an error here as well."""
    gate, engine, running = busy(users=(user("alice", threshold=50), user("web", client_type="chat", threshold=50)),
                                 location="llm_compat aristote; llm_queue_timeout 300ms;")
    for token in ("alice", "web"):
        assert the_event(begun(wait(gate, token=token))) == {"error": "Too many people using the service"}
    finish(engine, running)
    gate.wait_outcomes({"rejected_queue_timeout": 2, "completed": 1})


def test_observe_makes_nobody_wait(busy):
    gate, engine, running = busy(location="llm_observe on;")
    waiting = wait(gate)
    engine.wait_requests(2)
    finish(engine, running)
    reply = waiting.reply()
    assert reply.complete and reply.body.startswith(b"data: ") and reply.header("cache-control") is None


def test_auth_request_and_mirror(busy, fake_engine):
    judge, shadow = (fake_engine(script=lambda exchange: exchange.json({})) for _ in range(2))
    gate, engine, running = busy(location="auth_request /judge; mirror /shadow;", locations=(
        f"location = /judge {{ internal; proxy_pass {judge.url}; proxy_pass_request_body off; proxy_set_header Content-Length ''; }}"
        f"location = /shadow {{ internal; proxy_pass {shadow.url}$request_uri; proxy_http_version 1.1; }}"))
    parts = begun(wait(gate))
    finish(engine, running)
    assert_whole(parts)
    assert shadow.wait_requests(2)[1].body == BODY and len(judge.requests) == 2


def test_conditions_of_the_client_are_not_for_the_head(busy):
    gate, engine, running = busy()
    parts = begun(wait(gate, headers=[("If-Match", '"x"'), ("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Range", "bytes=0-3")]))
    finish(engine, running)
    assert_whole(parts)


# ----------------------------------------------------------------------------------------------- workers come and go


def test_reload(busy):
    """The old workers keep what waits in them, comments included, and end it as they should."""
    gate, engine, running = busy(location="llm_queue_timeout 4s;")
    waiting = []
    for number in range(1, 5):
        waiting.append(wait(gate, chat_body(content=str(number), stream=True)))
        gate.wait_queued(number)
    parts = [begun(each) for each in waiting]
    gate.reload()
    assert all(next(each).startswith(QUEUED) for each in parts)
    engine.release(3)
    assert running.reply().status == 200
    for each in parts[:2]:
        assert_whole(each)
    engine.wait_requests(4)
    assert engine.contents() == ["first", "1", "2", "3"]
    assert_failed(parts[3], "queue_timeout", "rate_limit_error")
    engine.open_gate()
    assert_whole(parts[2])
    until(lambda: not gate.old_workers(), "the old workers have left")
    gate.wait_outcomes({"completed": 4, "rejected_queue_timeout": 1})


def test_a_killed_worker(busy):
    gate, engine, running = busy()
    gate.allow(r"\[alert\].*worker process \d+ exited on signal 9")
    gate.allow(r"\[alert\].*shared memory zone \"llm\" was locked by")
    waiting = [wait(gate) for _ in range(12)]
    parts = [begun(each, 1) for each in waiting]
    owners = [gate.worker_of(each) for each in waiting]
    victim = next(owner for owner in owners if owner != gate.worker_of(running))
    os.kill(victim, signal.SIGKILL)
    for each, owner in zip(parts, owners):
        if owner == victim:
            assert rest(each) == (b"", False)
    gate.wait_queued(sum(owner != victim for owner in owners))
    finish(engine, running)
    for each, owner in zip(parts, owners):
        if owner != victim:
            assert_whole(each)


def test_nothing_grows(busy):
    gate, engine, running = busy(location="llm_queue_timeout 150ms;", users=(user("alice", threshold=500),))

    def crowd():
        waiting = [wait(gate) for _ in range(100)]
        for number, each in enumerate(waiting):
            if number % 3 == 0:
                each.close()
            else:
                assert b"queue_timeout" in rest(each.parts())[0]
                each.close()
        gate.wait_queued(0)

    crowd()
    growth = Growth(gate)
    for _ in range(3):
        crowd()
    growth.check()
    finish(engine, running)


def test_everything_at_once(fake_engine, gateway):
    """Engines that answer in all ways, clients that leave, and a reload: each request ends once, and is counted as it ended."""
    def script(exchange):
        ways = [answer, answer, error(400), lambda exchange: exchange.reset(), lambda exchange: exchange.body(200, b"<html>"), broken]
        time.sleep(0.02)  # more than can be served before some have waited too long
        ways[int(exchange.request.content()) % len(ways)](exchange)

    def broken(exchange):
        exchange.stream_head()
        exchange.event("first")
        exchange.reset()

    engines = [fake_engine(max_running=2, script=script) for _ in range(2)]
    gate = gateway(engines, [user("alice", threshold=1000)], location="llm_queue_keepalive 10ms; llm_queue_timeout 600ms;")
    known, left = collections.Counter(), 0
    for turn in range(3):
        waiting = [wait(gate, chat_body(content=str(number), stream=True)) for number in range(250)]
        if turn == 1:
            gate.reload()
        for number, pending in enumerate(waiting):
            if number % 9 == turn:
                pending.reset() if number % 2 else pending.close()
                left += 1
            else:
                known[outcome_of(pending.reply())] += 1
        gate.wait_queued(0)
    refused = {"rejected_queue_timeout", "rejected_no_engine"}  # three resets in a row open a breaker
    assert {"completed", "engine_error"} <= set(known) and refused & set(known), known
    idle(gate)
    until(lambda: counted(gate.metrics(), known, unsure=left) is None, lambda: counted(gate.metrics(), known, unsure=left))


def outcome_of(reply):
    """How a stream ended for its client, which has seen at most one error."""
    received = bare(reply.body)
    assert received.count(b'"error"') == (not reply.complete or reply.status != 200), reply
    if reply.complete and reply.status in (200, 400):
        return "completed"
    assert b"<html>" not in received, reply
    code = json.loads(received[received.index(b'{"error"'):])["error"]["code"]
    own_words = b"engine says" in received or b"no event stream" in received
    return "completed" if own_words else code if code == "engine_error" else f"rejected_{code}"
