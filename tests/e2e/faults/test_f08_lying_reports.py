"""F8: reports that are stale, frozen or lying: what they say is clamped, and requests go on."""

import itertools
import json
import math

import pytest

from support import invariants
from support.poll import until
from support.users import user

LIES = [
    {"kv_usage": 1e308}, {"kv_usage": -1}, {"tokens_per_second": 1e300}, {"tokens_per_second_per_user": 1e-300},
    {"decode_tokens": 1e18, "user_seconds": 1e-9}, {"decode_tokens": 0, "user_seconds": 1e18}, {"user_seconds": 0},
    {"completed": 2 ** 53}, {"tokens_out": 0, "decode_tokens": None}, {"uptime_s": 1e308}, {"max_running": 2 ** 31 - 1},
    {"max_running": 2 ** 63}, {"running": 2 ** 40}, {"waiting": 2 ** 31}, {"ttl_ms": 2 ** 40}, {"max_context": -1},
    {"preempts": "yes"}, {"org": "x" * 10000}, {"models": ["m"] * 1000}, {"models": ["m", "x" * 5000]},
    {"boot": 2 ** 63 - 1}, {"seq": 2 ** 63 - 1},
]
NOT_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "0x10", "1e", "00", "+1"]


def publish(server, text):
    server.client.publish("llm:engines", text)


@pytest.fixture
def scene(redis_server, fake_engine, gateway):
    """(Redis, the liar and its reporter, an honest engine, the gateway)"""
    liar, honest = fake_engine(max_running=8), fake_engine(max_running=8)
    gate = gateway(users=[user("alice", threshold=100)], http=f"llm_redis {redis_server.url};\n    llm_min_throughput 5;")
    honest.announce(redis_server.url)
    reporter = liar.announce(redis_server.url)
    until(lambda: len(gate.metrics().values("llm_engine_up")) == 2, "both engines are known")
    return redis_server, liar, reporter, honest, gate


def within_bounds(gate, liar, honest):
    """The figures that reports have put into the gateway."""
    for engine in gate.status()["engines"]:
        assert 1 <= engine["limit"] <= max(1, engine["max_running"]), engine
        assert 0 <= engine["kv_usage"] <= 1, engine
        for key in ("speed", "tokens_per_second", "tokens_per_second_per_user"):
            assert math.isfinite(engine[key]) and engine[key] >= 0, engine
        if engine["id"] == honest.name:
            assert engine["max_running"] == 8
    for name, labels, number in gate.metrics().samples:
        assert math.isfinite(number) and number >= 0, (name, labels, number)


def test_lies_are_clamped(scene):
    server, liar, reporter, honest, gate = scene
    workers = gate.workers()
    sent = 0
    fresh = itertools.count(1)
    for lie in LIES:
        publish(server, json.dumps({**reporter.fields(), **lie}))
        publish(server, json.dumps({**reporter.fields(), **lie, "boot": reporter.boot + next(fresh)}))
        within_bounds(gate, liar, honest)
        assert gate.client.ask(token="alice").status == 200, lie
        sent += 1
    for word in NOT_NUMBERS:
        for field in ("running", "kv_usage", "decode_tokens", "seq", "boot"):
            fields = json.dumps({**reporter.fields(), field: "@"}).replace('"@"', word)
            publish(server, fields)
    publish(server, json.dumps(reporter.fields())[:-1] + ',"running":1,"running":2}')
    within_bounds(gate, liar, honest)
    assert gate.client.ask(token="alice").status == 200
    assert gate.workers() == workers, "a report killed a worker"
    until(lambda: gate.metrics().total("llm_bad_reports_total") > 0, "malformed reports are counted")
    invariants.check(gate, expected={"completed": sent + 1})


def test_an_engine_that_says_it_is_full_keeps_nobody_from_the_others(scene):
    server, liar, reporter, honest, gate = scene
    reporter.report(running=10 ** 6, waiting=10 ** 6)
    until(lambda: gate.metrics().total("llm_engine_running", engine=liar.name) == 10 ** 6, "the gateway has the report")
    before = len(liar.requests)
    honest.hold()
    pending = [gate.client.send(token="alice") for _ in range(2)]
    honest.wait_requests(2)
    honest.open_gate()
    assert [one.reply().status for one in pending] == [200] * 2
    assert len(liar.requests) == before
    invariants.check(gate, expected={"completed": 2})


@pytest.mark.parametrize("lie", [{"seq": 2 ** 53 - 1}, {"boot": 2 ** 53 - 1, "seq": 1}], ids=["sequence", "boot"])
def test_a_report_that_claims_to_be_the_last_is_outlived(scene, lie):
    """What the engine itself goes on saying counts again once nothing newer has been heard for its time to live."""
    server, liar, reporter, honest, gate = scene
    reporter.report(ttl_ms=500)
    honest.stop()
    publish(server, json.dumps({**reporter.fields(), **lie, "state": "failed"}))
    state = lambda: next(engine["state"] for engine in gate.status()["engines"] if engine["id"] == liar.name)
    until(lambda: state() == "failed", "the gateway has the report")
    until(lambda: state() == "ready", "the engine is believed again", 20)
    until(lambda: gate.client.ask(token="alice").status == 200, "it is used")
    invariants.check(gate)


def test_frozen_reports(scene):
    """The same report over and over, then old ones, then none: its engine keeps getting work."""
    server, liar, reporter, honest, gate = scene
    reporter.stop()
    frozen = json.dumps(reporter.fields())
    honest.stop()
    for seq in (None, 0, 1):
        text = frozen if seq is None else json.dumps({**json.loads(frozen), "seq": seq, "state": "failed"})
        for _ in range(5):
            publish(server, text)
    until(lambda: gate.client.ask(token="alice").status == 200, "the engine is used")
    for _ in range(10):
        assert gate.client.ask(token="alice").status == 200
    invariants.check(gate)


def test_same_name_from_two_addresses(scene, fake_engine):
    """The younger boot wins, once; they do not take turns."""
    server, liar, reporter, honest, gate = scene
    other = fake_engine(max_running=8)
    fields = {**reporter.fields(), "url": other.url}
    publish(server, json.dumps({**fields, "boot": reporter.boot - 5}))
    assert gate.client.ask(token="alice").status == 200
    assert not other.requests, "an older boot took over"
    publish(server, json.dumps({**fields, "boot": reporter.boot + 5}))

    def used():
        assert gate.client.ask(token="alice").status == 200
        return other.requests

    until(used, "the younger boot has taken over")
    before = len(liar.requests)
    for _ in range(20):
        assert gate.client.ask(token="alice").status == 200
    assert len(liar.requests) == before, "they take turns"
    gate.wait_logged("engine .*" + liar.name)
    invariants.check(gate)
