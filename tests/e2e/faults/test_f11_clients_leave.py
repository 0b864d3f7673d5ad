"""F11: clients that go away in the queue, at the grant and in the stream: what they held is free at once, and nothing is lost."""

import random
import statistics
import time

from support import invariants
from support.client import chat_body
from support.fake_engine import answer
from support.poll import until
from support.traffic import Plan, Traffic
from support.users import user
from support.wire import Incomplete


def test_hundreds_leave_at_random_moments(fake_engine, gateway):
    """Some in the queue, some at the moment of their grant, some in the stream; those who stay are served."""
    rng = random.Random(11)

    def script(exchange):
        for _ in range(rng.choice((1, 5, 20))):
            if exchange.gone():
                raise Incomplete
            time.sleep(0.002)
        answer(exchange)

    engines = [fake_engine(max_running=4, script=script) for _ in range(2)]
    gate = gateway(engines, [user("alice", threshold=1000)])

    def plan():
        return Plan("alice", chat_body(stream=rng.random() < 0.5), rng.choice((None, 0.0, 0.002, 0.01, rng.random() * 0.1)))

    traffic = Traffic(gate.port, plan, outstanding=24).start()
    until(lambda: len(traffic.results) >= 400, "400 requests have come and gone", 60)
    fates = traffic.stop()
    stayed = [fate for fate in fates if not fate.left]
    assert stayed and all(fate.ok for fate in stayed)
    invariants.check(gate, fates)


def seconds_until(condition):
    start = time.monotonic()
    until(condition, "it happens")
    return time.monotonic() - start


def test_the_queue_is_left_within_100_ms(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=100)])
    running = gate.client.send(token="alice")
    engine.wait_requests(1)
    times = []
    for _ in range(15):
        waiting = gate.client.send(token="alice")
        gate.wait_queued(1)
        waiting.reset()
        times.append(seconds_until(lambda: gate.queued() == 0))
    assert statistics.median(times) < 0.1, times
    engine.open_gate()
    assert running.reply().status == 200
    invariants.check(gate, expected={"completed": 1, "cancelled_queued": 15})


def test_the_engines_connection_is_closed_within_200_ms(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], [user("alice", threshold=100)])

    def endless(exchange):
        exchange.stream_head()
        while not exchange.gone():
            exchange.event({"choices": [{"index": 0, "delta": {"content": "x"}}]})
            time.sleep(0.005)
        raise Incomplete

    engine.script = endless
    times = []
    for _ in range(10):
        pending = gate.client.send(chat_body(stream=True), token="alice")
        next(pending.parts())
        pending.reset()
        times.append(seconds_until(lambda: not engine.exchanges))
    assert statistics.median(times) < 0.2, times
    engine.script = answer
    invariants.check(gate, expected={"cancelled_running": 10})


def test_gone_at_the_moment_of_the_grant(fake_engine, gateway):
    """Its seat goes to the next one, however the two meet."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)])
    for round_ in range(20):
        engine.hold()  # anew: the one that left may have left its turn unused
        seen = len(engine.requests)
        first = gate.client.send(token="alice")
        engine.wait_requests(seen + 1)
        leaver = gate.client.send(token="alice")
        gate.wait_queued(1)
        stayer = gate.client.send(token="alice")
        gate.wait_queued(2)
        if round_ % 2:
            leaver.reset()
            engine.release()
        else:
            engine.release()
            leaver.reset()
        engine.release(2)
        assert first.reply().status == 200
        assert stayer.reply().status == 200
        until(lambda: not invariants.busy(gate), lambda: f"idle, but {invariants.busy(gate)}")
    outcomes = gate.metrics().outcomes()
    assert sum(outcomes.values()) == 60, outcomes
    engine.open_gate()
    invariants.check(gate)
