"""F24: one of three gateways that share engines and a Redis is lost, with all its processes at once; the others never notice."""

import time

import pytest

from support import invariants
from support.client import chat_body
from support.fake_engine import answer
from support.poll import until
from support.traffic import Plan, Traffic


@pytest.fixture
def three(fake_engine, redis_server, nginx):
    """(engine of six seats that announces itself, three gateways)"""
    engine = fake_engine(max_running=6)
    engine.announce(redis_server.url)
    gates = [nginx(http=f"llm_redis {redis_server.url};", workers=2) for _ in range(3)]
    for gate in gates:
        gate.wait_ready()
    return engine, gates


def test_its_seats_go_to_the_others(three):
    engine, gates = three
    engine.hold()
    running = []
    for number, gate in enumerate(gates):
        running += [gate.client.send() for _ in range(2)]
        engine.wait_requests(2 * number + 2)
    for gate in gates:
        until(lambda: gate.status()["engines"][0]["foreign"] == 4, "it knows of what runs for the others")
    waiting = [gate.client.send() for gate in gates for _ in range(2)]
    for gate in gates:
        gate.wait_queued(2)
    assert len(engine.requests) == 6
    gates[2].lose()
    for pending in running[4:] + waiting[4:]:
        with pytest.raises(ConnectionError):
            pending.reply()
    engine.wait_requests(8)
    engine.open_gate()
    assert [pending.reply().status for pending in running[:4] + waiting[:4]] == [200] * 8
    for gate in gates[:2]:
        invariants.check(gate, expected={"completed": 4}, token=None)


def test_under_load(three):
    engine, gates = three

    def script(exchange):
        time.sleep(0.02)  # what an engine takes: requests have to overlap
        answer(exchange)

    engine.script = script
    streams = iter([False, True] * 100000)
    traffic = [Traffic(gate.port, lambda: Plan("any", chat_body(stream=next(streams))), outstanding=4).start() for gate in gates]
    until(lambda: all(len(one.results) > 30 for one in traffic), "answers come from all", 30)
    gates[2].lose()
    marks = [len(one.results) for one in traffic[:2]]
    until(lambda: all(len(one.results) > mark + 60 for one, mark in zip(traffic, marks)), "the others go on", 30)
    traffic[2].stop()
    for gate, one in zip(gates[:2], traffic):
        fates = one.stop()
        assert all(fate.ok for fate in fates), [fate for fate in fates if not fate.ok][:3]
        invariants.check(gate, fates, token=None)
