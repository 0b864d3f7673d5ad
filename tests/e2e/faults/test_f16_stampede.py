"""F16: everybody at once: a thousand connections in one moment, their retries, and all engines coming back together."""

import socket
import time

from support import invariants
from support.client import chat_body
from support.fake_engine import answer
from support.poll import until
from support.traffic import Plan, Traffic
from support.users import user

CONNECTIONS = 1000


def slow_answer(exchange):
    time.sleep(0.2)
    answer(exchange)


def test_a_thousand_connections_at_once(fake_engine, gateway):
    """All are accepted; as many as may run or wait, the rest is told to come back, not all in the same moment."""
    engine = fake_engine(max_running=4, script=slow_answer)
    gate = gateway([engine], [user("alice", threshold=50)])
    fates = Traffic(gate.port, lambda: Plan("alice", chat_body()), arrivals=iter([0.0] * 40)).start().finish()  # now a rate is known
    crowd = Traffic(gate.port, lambda: Plan("alice", chat_body()), arrivals=iter([0.0] * CONNECTIONS)).start()
    fates += crowd.finish()
    assert {fate.status for fate in fates} == {200, 429}, {fate.status for fate in fates}
    assert all(fate.complete for fate in fates)
    refused = [fate for fate in fates if fate.status == 429]
    assert len(refused) >= CONNECTIONS - 200
    invited = sorted(fate.retry_after_ms for fate in refused if fate.should_retry)
    assert all(fate.retry_after_ms == 60000 for fate in refused if not fate.should_retry)
    assert invited and invited[0] >= 1 and invited[-1] <= 60000
    # as many are invited as the engine can serve beside others, one after another
    seconds = [wait // 1000 for wait in invited]
    assert max(seconds.count(second) for second in set(seconds)) <= 8, f"a crowd comes back at once: {invited}"
    engine.script = answer
    invariants.check(gate, fates)


def test_connections_that_say_nothing(fake_engine, gateway):
    """A thousand open connections without a request keep nobody out."""
    gate = gateway([fake_engine()])
    idle = []
    for _ in range(CONNECTIONS):
        one = socket.create_connection(("127.0.0.1", gate.port), timeout=30)
        one.sendall(b"POST /v1/chat")
        idle.append(one)
    sent = invariants.probe(gate)
    for one in idle:
        one.close()
    invariants.check(gate, expected={"completed": sent})


def test_all_engines_return_at_once(redis_server, fake_engine, gateway):
    """With a minimum speed, engines that boot begin with two seats each, however many wait."""
    gate = gateway(users=[user("alice", threshold=1000)], http=f"llm_redis {redis_server.url};\n    llm_min_throughput 5;")
    engines = [fake_engine(max_running=64) for _ in range(3)]
    reporters = [engine.announce(redis_server.url, state="loading") for engine in engines]
    until(lambda: len(gate.metrics().values("llm_engine_up")) == 3, "all engines are known")
    for engine in engines:
        engine.hold()
    pending = [gate.client.send(chat_body(content=f"r{number}"), token="alice", timeout=60) for number in range(60)]
    gate.wait_queued(60)
    for reporter in reporters:
        reporter.report(state="ready")
    gate.wait_held(6)
    for engine in engines:
        engine.wait_requests(2)
    assert [len(engine.requests) for engine in engines] == [2, 2, 2]
    for engine in engines:
        engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 60
    invariants.check(gate, expected={"completed": 60})
