"""F6: Redis slow, silent, unreachable or exchanged: requests flow, nothing on their way asks Redis, and it is found again soon."""

import signal
import statistics
import time

import pytest

from support import invariants
from support.poll import until
from support.redis_server import RedisServer
from support.traffic import Plan, Traffic
from support.client import chat_body

RECOVERY_SECONDS = 3


def up(gate):
    return gate.metrics().total("llm_redis_up") == 1


def wait_recovered(gate, fake_engine, url):
    """Connected within 3 s (and what a busy machine takes), and a new engine is known."""
    start = time.monotonic()
    until(lambda: up(gate), "the gateway is connected again", RECOVERY_SECONDS * 3)
    took = time.monotonic() - start
    late = fake_engine(["late"])
    late.announce(url)
    gate.wait_model("late", "alice")
    return took


def ask_often(gate, number=15):
    """Returns the median time of so many answers in seconds, and their number."""
    times = []
    for _ in range(number):
        start = time.monotonic()
        assert gate.client.ask(token="alice").status == 200
        times.append(time.monotonic() - start)
    return statistics.median(times), number


def ask_until_as_fast(gate, before):
    """
    Asks until a median is less than a millisecond above `before`, at most 20 s: a busy machine has quiet moments, one that waits for
    Redis has none. Returns the number of requests sent.
    """
    sent = 0

    def as_fast():
        nonlocal sent, median
        median, number = ask_often(gate)
        sent += number
        return median < before + 0.001

    median = None
    until(as_fast, lambda: f"requests take {median:.4f} s instead of {before:.4f} s without Redis", 20)
    return sent


class Slow:
    """Everything that passes is 500 ms late."""
    goes_down = False

    def begin(self, redis_server, relay):
        relay.delay = 0.5

    def end(self, redis_server, relay):
        relay.delay = 0


class Silent:
    """The connection stands and nobody answers: the kernel of a host whose Redis hangs."""
    goes_down = True

    def begin(self, redis_server, relay):
        redis_server.send_signal(signal.SIGSTOP)

    def end(self, redis_server, relay):
        redis_server.send_signal(signal.SIGCONT)


class Refused:
    goes_down = True

    def begin(self, redis_server, relay):
        relay.refuse = True
        relay.cut()

    def end(self, redis_server, relay):
        relay.refuse = False


@pytest.mark.parametrize("fault", [Slow(), Silent(), Refused()], ids=["500 ms late", "hangs", "resets"])
def test_redis_is_ill(redis_server, relay, fake_engine, gateway, fault):
    middle = relay(redis_server.port)
    engine = fake_engine()
    engine.announce(redis_server.url, ttl_ms=60000).stop()
    gate = gateway(http=f"llm_redis redis://127.0.0.1:{middle.port}/0;")
    gate.wait_model("m", "alice")
    until(lambda: up(gate), "connected")
    before, sent = ask_often(gate)
    fault.begin(redis_server, middle)
    if fault.goes_down:
        until(lambda: not up(gate), "the loss of Redis is seen", 12)
    sent += ask_until_as_fast(gate, before)
    fault.end(redis_server, middle)
    wait_recovered(gate, fake_engine, redis_server.url)
    invariants.check(gate, expected={"completed": sent})


def test_network_loses_every_packet(tmp_path, network, fake_engine, gateway):
    server = RedisServer(tmp_path / "far", network)
    server.start()
    try:
        fake_engine().announce(server.url, ttl_ms=60000).stop()
        gate = gateway(http=f"llm_redis {server.url};")
        gate.wait_model("m", "alice")
        until(lambda: up(gate), "connected")
        before, sent = ask_often(gate)
        network.lose()
        until(lambda: not up(gate), "the loss of Redis is seen", 12)
        sent += ask_until_as_fast(gate, before)
        network.mend()
        wait_recovered(gate, fake_engine, server.url)
        invariants.check(gate, expected={"completed": sent})
    finally:
        network.mend()
        server.stop()


def test_failover_to_an_empty_server(tmp_path, redis_server, relay, fake_engine, gateway):
    """The address moves to another server that knows nothing; engines appear there one after another, requests go on all the time."""
    middle = relay(redis_server.port)
    engines = [fake_engine() for _ in range(2)]
    reporters = [engine.announce(redis_server.url) for engine in engines]
    gate = gateway(http=f"llm_redis redis://127.0.0.1:{middle.port}/0;")
    until(lambda: len(gate.metrics().values("llm_engine_up")) == 2, "both engines are known")
    heir = RedisServer(tmp_path / "heir")
    heir.start()
    try:
        traffic = Traffic(gate.port, lambda: Plan("alice", chat_body()), outstanding=3).start()
        until(lambda: len(traffic.results) > 20, "answers come")
        for reporter in reporters:
            reporter.stop()
        redis_server.stop()
        middle.target = heir.port
        middle.cut()
        until(lambda: up(gate) and heir.subscribers(), "the gateway is connected to the heir")
        wait_recovered(gate, fake_engine, heir.url)
        mark = len(traffic.results)
        until(lambda: len(traffic.results) > mark + 20, "answers come")
        fates = traffic.stop()
        assert all(fate.ok for fate in fates), [fate for fate in fates if not fate.ok][:3]
        invariants.check(gate, fates)
    finally:
        heir.stop()


def test_workers_do_not_come_back_at_once(redis_server, relay, fake_engine, gateway):
    """Attempts to reach a Redis that is down are spread over time, and rare."""
    middle = relay(redis_server.port)
    gate = gateway([fake_engine()], http=f"llm_redis redis://127.0.0.1:{middle.port}/0;")
    until(lambda: up(gate), "connected")
    middle.refuse = True
    middle.cut()
    until(lambda: not up(gate), "the loss is seen")
    before, start = middle.connections, time.monotonic()
    until(lambda: middle.connections >= before + 16, "attempts go on", 30)
    took = time.monotonic() - start
    # two connections for each of four workers, each at most every half second once the back-off has grown
    assert took > 0.5, f"16 attempts in {took:.2f} s"
    middle.refuse = False
    wait_recovered(gate, fake_engine, redis_server.url)
    invariants.check(gate)
