"""Reloads lose nothing: requests that wait in an old worker are served, and new limits hold at once."""

import os
import signal

import pytest

from support.client import chat_body
from support.errors import assert_error
from support.poll import until
from support.users import user, write_tokens


def send_queued(gate, engine, count, token="alice"):
    """One request that runs, and count more that wait in a known order."""
    pending = [engine.occupy(gate.client, chat_body(content="first"), token=token, timeout=60)]
    for number in range(1, count + 1):
        pending.append(gate.client.send(chat_body(content=f"r{number}"), token=token, timeout=60))
        gate.wait_queued(number)
    return pending


def test_forty_queued_requests_survive_a_reload_in_order(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)])
    pending = send_queued(gate, engine, 40)
    old = gate.workers()
    gate.reload()
    assert gate.queued() == 40
    for number in range(1, 41):
        engine.release()
        engine.wait_requests(number + 1)
    engine.release()
    assert [one.reply().status for one in pending] == [200] * 41
    assert engine.contents() == ["first", *(f"r{number}" for number in range(1, 41))]
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in old), "the old workers end")


def test_new_requests_overtake_those_in_old_workers(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", priority=1, threshold=100), user("high", priority=9)], http="llm_scheduler strict;")
    pending = send_queued(gate, engine, 5)
    gate.reload()
    pending.append(gate.client.send(chat_body(content="high"), token="high"))
    gate.wait_queued(6)
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 7
    assert engine.contents() == ["first", "high", "r1", "r2", "r3", "r4", "r5"]


def test_streams_survive_a_reload(fake_engine, gateway):
    engine = fake_engine()
    engine.hold()
    gate = gateway([engine], workers=2)
    pending = [gate.client.send(chat_body(stream=True), token="alice") for _ in range(8)]
    engine.wait_requests(8)
    for _ in range(3):
        gate.reload()
    engine.open_gate()
    for one in pending:
        reply = one.reply()
        assert reply.complete and reply.text() == "hello from the engine"


def test_raised_limit_releases_what_waits(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)])
    pending = send_queued(gate, engine, 4)
    gate.blocks["http"] = gate.blocks["http"].replace("max_running=1;", "max_running=3;")
    gate.reload()
    engine.wait_requests(3)
    gate.wait_queued(2)
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 5


def wait_through(gate, engine, old, new):
    """A request that runs and one that waits while llm_queue_timeout changes."""
    gate.blocks["location"] = f"llm_queue_timeout {old};"
    gate.reload()
    running, waiting = send_queued(gate, engine, 1)
    gate.blocks["location"] = f"llm_queue_timeout {new};"
    gate.reload()
    return running, waiting


def test_a_shorter_queue_timeout_ends_what_waits(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)])
    running, waiting = wait_through(gate, engine, "60s", "500ms")
    reply = waiting.reply()
    assert_error(reply, 429, "queue_timeout")
    assert 500 <= int(reply.header("x-llm-queue-ms")) < 10000
    engine.open_gate()
    assert running.reply().status == 200
    gate.wait_outcomes({"completed": 1, "rejected_queue_timeout": 1})


def test_a_longer_queue_timeout_lets_wait_on(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)])
    running, waiting = wait_through(gate, engine, "3s", "60s")
    waited = lambda: [request["wait_ms"] for request in gate.status()["requests"] if request["state"] == "queued"]
    assert waited()
    until(lambda: not waited() or waited()[0] > 4000, "it waits longer than it could have at first", 20)
    engine.open_gate()
    assert [running.reply().status, waiting.reply().status] == [200, 200]


def test_another_locations_queue_timeout_is_not_that_of_what_waits(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    other = "location /other/ {{ llm_dispatch on; llm_queue_timeout {}; proxy_pass http://llm_engines; }}"
    gate = gateway([engine], [user("alice", threshold=100)], locations=other.format("60s"))
    running, waiting = send_queued(gate, engine, 1)
    there = gate.client.send(chat_body(), token="alice", target="/other/v1/chat/completions")
    gate.wait_queued(2)
    gate.blocks["locations"] = other.format("500ms")
    gate.reload()
    assert_error(there.reply(), 429, "queue_timeout")
    assert gate.queued() == 1
    engine.open_gate()
    assert [running.reply().status, waiting.reply().status] == [200, 200]


def test_changed_token_file_is_read(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    write_tokens(gate.tokens, [user("bob")])
    gate.reload()
    assert gate.client.ask(token="bob").status == 200
    assert_error(gate.client.ask(token="alice"), 401, "invalid_api_key")


def test_broken_configuration_changes_nothing(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)])
    gate.allow(r"llm_queue_timeout")
    pending = send_queued(gate, engine, 3)
    workers = gate.workers()
    gate.blocks["location"] = "llm_queue_timeout soon;"
    gate.write_conf()
    gate.send_signal(signal.SIGHUP)
    gate.wait_logged(r"\[emerg\].*llm_queue_timeout")
    assert sorted(gate.workers()) == sorted(workers)
    assert gate.queued() == 3
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 4


def test_changed_zone_starts_anew_with_a_warning(fake_engine, gateway):
    gate = gateway([fake_engine()])
    assert gate.client.ask(token="alice").status == 200
    gate._values["zone"] = "16m"
    gate.reload()
    gate.wait_logged(r"\[warn\].*zone")
    assert gate.client.ask(token="alice").status == 200


@pytest.mark.slow
def test_reloads_under_load(fake_engine, gateway):
    """Twenty reloads while requests come and go: none fails."""
    engine = fake_engine(max_running=4)
    gate = gateway([engine], [user("alice", threshold=1000)], workers=2)
    sent = []
    for _ in range(20):
        batch = [gate.client.send(chat_body(stream=number % 2 == 0), token="alice") for number in range(20)]
        gate.reload()
        sent += [one.reply() for one in batch]
    assert all(reply.status == 200 and reply.complete for reply in sent)
    gate.wait_outcomes({"completed": 400})
    until(lambda: not gate.old_workers(), "the old workers end")


def test_an_announced_engine_gets_a_line_and_loses_it(redis_server, fake_engine, gateway):
    """It was there twice from then on, with twice the seats."""
    engine = fake_engine(max_running=1)
    gate = gateway(http=f"llm_redis {redis_server.url};")
    engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    announced = gate.blocks["http"]

    def engines():
        return [(shown["id"], shown["static"]) for shown in gate.status()["engines"]]

    assert engines() == [(engine.name, False)]
    gate.blocks["http"] = f"{announced} llm_engine {engine.url} model=m id=listed max_running=1;"
    gate.reload()
    until(lambda: gate.status()["engines"][0]["static"], "the line took effect")
    assert engines() == [("listed", True)]
    gate.blocks["http"] = announced
    gate.reload()
    until(lambda: engines() == [(engine.name, False)], lambda: f"it has its own name again: {engines()}")
    assert gate.client.ask(token="alice").status == 200


def test_one_server_as_two_engines(fake_engine, gateway):
    """The second line for a URL took the first one's models away."""
    engine = fake_engine(["m", "other"])
    gate = gateway(http=f"llm_engine {engine.url} model=m id=one; llm_engine {engine.url} model=other id=two max_running=2;")
    for model in ("m", "other"):
        assert gate.client.ask(chat_body(model), token="alice").status == 200
    assert [(shown["id"], shown["models"], shown["max_running"]) for shown in gate.status()["engines"]] == [
        ("one", ["m"], 64), ("two", ["other"], 2)]
