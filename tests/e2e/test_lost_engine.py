"""Requests that an engine loses before their first byte while all the others are full: they wait once more."""

import os
import signal
import time

import pytest

from support.client import chat_body
from support.errors import assert_error
from support.fake_engine import error
from support.poll import until
from support.users import user, write_tokens
from support.waiting_stream import QUEUED, assert_failed, assert_whole

ADMIN = [("x-llm-admin", "1")]


class Pool:
    """
    Two engines that are full: `bad` runs `count` requests, `good` its only one. When `bad` is lost, the first of its requests gets the
    seat over the limit that `good` has; the others can go nowhere.
    """

    def __init__(self, fake_engine, gateway, *, count=4, body=chat_body, users=(user("alice", threshold=50),),
                 fails=lambda exchange: exchange.reset(), **keywords):
        self.bad, self.good = fake_engine(max_running=count, name="bad"), fake_engine(max_running=1, name="good")
        self.gate = gateway([self.bad, self.good], users, **keywords)
        self.bad.hold(fails)
        self.good.hold()
        token = users[0]["token"]
        self.pending = [self.gate.client.send(body(content=f"r{number}"), token=token) for number in range(count + 1)]
        self.bad.wait_requests(count)
        self.good.wait_requests(1)
        self.on_good = self.good.contents()[0]
        self.bodies = {request.content(): request.body for request in self.bad.requests}

    def lose(self):
        """The engine dies; all but one of its requests wait again."""
        self.bad.stop_listening()
        self.bad.release(100)
        self.good.wait_requests(2)
        self.gate.wait_queued(len(self.bodies) - 1)

    def waiting(self):
        """Those that wait, as (mark, Pending)."""
        there = self.good.contents()
        return [(f"r{number}", one) for number, one in enumerate(self.pending) if f"r{number}" not in there]

    def finish(self):
        self.good.open_gate()


@pytest.mark.parametrize("stream", [False, True])
def test_all_are_answered_elsewhere(fake_engine, gateway, stream):
    pool = Pool(fake_engine, gateway, count=8, body=lambda **words: chat_body(stream=stream, **words))
    pool.lose()
    pool.finish()
    for one in pool.pending:
        reply = one.reply()
        assert reply.status == 200 and reply.complete, reply.body
        assert reply.text() == "hello from the engine"
    assert sorted(pool.good.contents()) == sorted(f"r{number}" for number in range(9)), "each once"
    assert all(request.body == pool.bodies[request.content()] for request in pool.good.requests if request.content() in pool.bodies)
    pool.gate.wait_outcomes({"completed": 9})
    lines = pool.gate.access_log(9)
    assert sorted(line["attempts"] for line in lines) == ["1"] + ["2"] * 8
    assert {line["engine"] for line in lines} == {"good"}


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_error_that_is_repeated(fake_engine, gateway, status):
    """What stands before an engine that has died says 502; vLLM itself says 500 to what it was running."""
    pool = Pool(fake_engine, gateway, fails=error(status), location="proxy_next_upstream error http_500 http_502 http_504 non_idempotent;")
    pool.lose()
    pool.finish()
    assert [(one.status, one.text()) for one in (one.reply() for one in pool.pending)] == [(200, "hello from the engine")] * 5


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_the_answer(fake_engine, gateway, status):
    """The engine is there, and its own answer says when to come back."""
    pool = Pool(fake_engine, gateway, fails=error(status))
    pool.bad.release(100)
    pool.good.wait_requests(2)
    answered = [one for number, one in enumerate(pool.pending) if f"r{number}" not in pool.good.contents()]
    for one in answered:
        reply = one.reply()
        assert reply.status == status and reply.json()["error"]["message"] == f"engine says {status}"
    pool.finish()


def test_the_time_at_the_lost_engine_is_no_waiting(fake_engine, gateway):
    pool = Pool(fake_engine, gateway, location="add_header x-addresses $upstream_addr always; add_header x-times $upstream_connect_time always;")
    time.sleep(0.6)  # so long the engine has them
    since = time.monotonic()
    pool.lose()
    pool.finish()
    replies = [one.reply() for one in pool.pending]
    waited = (time.monotonic() - since) * 1000
    for reply in replies:
        assert int(reply.header("x-llm-queue-ms")) <= waited
        addresses = reply.header("x-addresses").split(", ")
        assert len(addresses) <= 2 and len(reply.header("x-times").split(", ")) == len(addresses), "the wait is no attempt"
        assert addresses[-1] == f"127.0.0.1:{pool.good.port}"


def test_a_large_body_is_sent_again_whole(fake_engine, gateway):
    filler = "x" * 500_000
    pool = Pool(fake_engine, gateway, body=lambda **words: chat_body(filler=filler, **words))
    pool.lose()
    pool.finish()
    assert [one.reply().status for one in pool.pending] == [200] * 5
    assert all(len(request.body) > 500_000 for request in pool.good.requests)
    assert all(request.body == pool.bodies[request.content()] for request in pool.good.requests if request.content() in pool.bodies)


def test_before_others_that_came_later(fake_engine, gateway):
    pool = Pool(fake_engine, gateway)
    later = [pool.gate.client.send(chat_body(content=f"later{number}"), token="alice") for number in range(3)]
    pool.gate.wait_queued(3)
    pool.bad.stop_listening()
    pool.bad.release(100)
    until(lambda: pool.gate.status()["engines"][0]["held"] == 0, "the engine is given up")
    pool.finish()
    assert [one.reply().status for one in pool.pending + later] == [200] * 8
    order = pool.good.contents()
    assert max(order.index(f"r{number}") for number in range(5)) < min(order.index(f"later{number}") for number in range(3))


def test_the_client_leaves(fake_engine, gateway):
    pool = Pool(fake_engine, gateway)
    pool.lose()
    mark, leaver = pool.waiting()[0]
    leaver.close()
    pool.gate.wait_queued(2)
    pool.gate.wait_outcomes({"cancelled_queued": 1})
    pool.finish()
    assert [one.reply().status for one in pool.pending if one is not leaver] == [200] * 4
    assert mark not in pool.good.contents()


def test_the_client_leaves_where_post_action_goes_on(fake_engine, gateway):
    """nginx keeps the request for it, but not the proxy that waited."""
    after = fake_engine(name="after")
    after.hold()
    pool = Pool(fake_engine, gateway, location="post_action @after;", server=f"location @after {{ llm_dispatch off; proxy_pass {after.url}; }}")
    pool.lose()
    mark, leaver = pool.waiting()[0]
    leaver.close()
    after.wait_requests(1)
    pool.gate.wait_queued(2)
    pool.gate.wait_outcomes({"cancelled_queued": 1})
    pool.finish()
    assert [one.reply().status for one in pool.pending if one is not leaver] == [200] * 4
    assert mark not in pool.good.contents()
    after.open_gate()


@pytest.mark.parametrize("good_stays", [True, False])
def test_the_queue_has_a_timeout(fake_engine, gateway, good_stays):
    pool = Pool(fake_engine, gateway, location="llm_queue_timeout 1s;")
    pool.lose()
    waiting = [one for _, one in pool.waiting()]
    if not good_stays:
        assert pool.gate.client.ask(method="POST", target="/llm/engines/good/drain", headers=ADMIN).status == 200
    for one in waiting:
        reply = one.reply()
        assert_error(reply, *((429, "queue_timeout") if good_stays else (503, "no_engine")))
        assert int(reply.header("x-llm-queue-ms")) >= 1000
    pool.finish()
    assert [one.reply().status for one in pool.pending if one not in waiting] == [200] * 2
    pool.gate.wait_outcomes({f"rejected_{'queue_timeout' if good_stays else 'no_engine'}": 3, "completed": 2})


def test_a_token_is_revoked(fake_engine, gateway):
    pool = Pool(fake_engine, gateway)
    pool.lose()
    waiting = pool.waiting()
    write_tokens(pool.gate.tokens, [user("bob")])
    for _, one in waiting:
        assert_error(one.reply(), 401, "invalid_api_key")
    pool.finish()
    assert [one.reply().status for one in pool.pending if one not in [each for _, each in waiting]] == [200] * 2


def test_an_administrator_ends_it(fake_engine, gateway):
    pool = Pool(fake_engine, gateway)
    pool.lose()
    queued = [request for request in pool.gate.status()["requests"] if request["state"] == "queued"]
    assert [request["attempts"] for request in queued] == [1, 1, 1]
    for request in queued:
        assert pool.gate.end_request(request["id"]).status == 200
    for _, one in pool.waiting():
        assert_error(one.reply(), 503, "aborted")
    pool.finish()


def test_a_reload_loses_nothing(fake_engine, gateway):
    pool = Pool(fake_engine, gateway)
    pool.lose()
    pool.gate.reload()
    assert pool.gate.queued() == 3
    pool.finish()
    assert [one.reply().status for one in pool.pending] == [200] * 5


def test_a_worker_dies(fake_engine, gateway):
    pool = Pool(fake_engine, gateway, workers=1)
    pool.lose()
    pool.gate.allow(r"exited on signal 9")
    os.kill(pool.gate.workers()[0], signal.SIGKILL)
    pool.gate.wait_queued(0)
    pool.finish()


def test_the_lost_engine_comes_back(fake_engine, gateway, redis_server):
    """Those that failed on it may go there once it was started anew."""
    bad, good = fake_engine(max_running=3, name="bad"), fake_engine(max_running=1, name="good")
    first, other = bad.announce(redis_server.url), good.announce(redis_server.url)
    gate = gateway([], [user("alice", threshold=50)], http=f"llm_redis {redis_server.url};")
    gate.wait_model("m", "alice")
    until(lambda: len(gate.status()["engines"]) == 2, "both engines are known")
    bad.hold(lambda exchange: exchange.reset())
    good.hold()
    pending = [gate.client.send(chat_body(content=f"r{number}"), token="alice") for number in range(4)]
    bad.wait_requests(3)
    good.wait_requests(1)
    first.stop()
    bad.release(3)
    good.wait_requests(2)
    gate.wait_queued(2)
    bad.open_gate()
    bad.announce(redis_server.url, boot=first.boot + 1)
    bad.wait_requests(5)
    good.open_gate()
    assert [one.reply().status for one in pending] == [200] * 4
    other.stop()


def test_comments_keep_it_alive(fake_engine, gateway):
    pool = Pool(fake_engine, gateway, body=lambda **words: chat_body(stream=True, **words), location="llm_queue_keepalive 60ms;")
    pool.lose()
    waiting = [one for _, one in pool.waiting()]
    streams = []
    for one in waiting:
        assert one.head() == 200
        parts, received = one.parts(), b""
        while received.count(QUEUED) < 2:
            received += next(parts)
        streams.append(parts)
    pool.finish()
    for parts in streams:
        assert_whole(parts)


def test_comments_and_then_no_place(fake_engine, gateway):
    pool = Pool(fake_engine, gateway, body=lambda **words: chat_body(stream=True, **words),
                location="llm_queue_keepalive 60ms; llm_queue_timeout 1s;")
    pool.lose()
    for _, one in pool.waiting():
        assert one.head() == 200
        assert_failed(one.parts(), "queue_timeout", "rate_limit_error")
    pool.finish()


@pytest.mark.parametrize("location", ["llm_retries 0;", "proxy_next_upstream error timeout;", "llm_observe on;"])
def test_where_it_is_not_wanted(fake_engine, gateway, location):
    pool = Pool(fake_engine, gateway, location=location)
    pool.bad.stop_listening()
    pool.bad.release(100)
    lost = [one for number, one in enumerate(pool.pending) if f"r{number}" != pool.on_good]
    statuses = []
    if location.startswith("llm_observe"):
        pool.good.wait_requests(2)
        lost = [one for number, one in enumerate(pool.pending) if f"r{number}" not in pool.good.contents()]
    statuses = [one.reply().status for one in lost]
    assert statuses == [502] * len(lost) and len(lost) >= 3
    pool.finish()


def test_error_page_may_take_it_elsewhere(fake_engine, gateway):
    """From the middle of nginx's proxy into another location, which asks another model's engine."""
    spare = fake_engine(models=["spare"], name="spare")
    pool = Pool(fake_engine, gateway, http=f"llm_engine {spare.url} model=spare id=spare;",
                location="llm_queue_timeout 1s; error_page 429 = @spare;",
                server="location @spare { llm_dispatch on; llm_model spare; proxy_pass http://llm_engines; }")
    pool.lose()
    for _, one in pool.waiting():
        reply = one.reply()
        assert reply.status == 200 and reply.json()["model"] == "spare"
    assert all(request.json()["model"] == "spare" for request in spare.requests) and len(spare.requests) == 3
    assert all(request.header("authorization") is None for request in spare.requests)
    pool.finish()


@pytest.mark.parametrize("location", ["proxy_buffering on;", "proxy_ignore_client_abort on;", "proxy_next_upstream_timeout 30s;",
                                      "proxy_connect_timeout 50ms;", "proxy_request_buffering off;", "llm_engine_priority vllm;"])
def test_beside_other_directives(fake_engine, gateway, location):
    pool = Pool(fake_engine, gateway, location=location)
    pool.lose()
    time.sleep(0.2)  # longer than the shortest of these times
    pool.finish()
    assert [one.reply().status for one in pool.pending] == [200] * 5
    assert all(request.body == pool.bodies[request.content()] for request in pool.good.requests if request.content() in pool.bodies)


def test_waiting_is_no_time_spent_on_attempts(fake_engine, gateway):
    pool = Pool(fake_engine, gateway, location="proxy_next_upstream_timeout 2s;")
    pool.lose()
    time.sleep(2.1)  # more than attempts may take
    pool.finish()
    assert [one.reply().status for one in pool.pending] == [200] * 5


def test_no_other_engine_no_waiting(fake_engine, gateway):
    engine = fake_engine(max_running=3)
    gate = gateway([engine], [user("alice", threshold=50)])
    engine.hold(lambda exchange: exchange.reset())
    pending = [gate.client.send(chat_body(content=f"r{number}"), token="alice") for number in range(3)]
    engine.wait_requests(3)
    engine.stop_listening()
    engine.release(3)
    assert [one.reply().status for one in pending] == [502] * 3
