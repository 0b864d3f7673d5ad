"""F3: a worker that is stopped for a while (SIGSTOP) keeps nobody else waiting, and does no harm when it goes on."""

import os
import signal

import pytest

from support import invariants
from support.client import chat_body
from support.metrics import Metrics
from support.poll import stays, until
from support.process import stop_for_now
from support.users import user


@pytest.fixture
def stopped(fake_engine, gateway):
    """
    (gateway, engine, victim, its requests, those of others): eight requests run and sixteen wait, spread over the workers, one of which
    is stopped. What runs there keeps its seats: nobody but the worker knows whether the engine is done with it.
    """
    engine = fake_engine(max_running=8)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=100)])
    pending = []
    for number in range(24):
        pending.append(gate.client.send(chat_body(content=f"r{number}"), token="alice", timeout=60))
        if number < 8:
            engine.wait_requests(number + 1)
        else:
            gate.wait_queued(number - 7)
    owners = [gate.worker_of(one) for one in pending]
    victim = owners[8]  # the next seat that comes free is given to it
    mine = [one for one, owner in zip(pending, owners) if owner == victim]
    others = [one for one, owner in zip(pending, owners) if owner != victim]
    assert set(owners[:8]) != {victim}, "the kernel gave all connections to one worker"
    stop_for_now(victim)
    yield gate, engine, victim, mine, others
    if os.path.exists(f"/proc/{victim}"):
        os.kill(victim, signal.SIGCONT)


def awake(gate, call):
    """Asks until a worker that is not stopped has the connection."""
    def attempt():
        try:
            return call(gate.client.get("/metrics", timeout=1))
        except TimeoutError:
            return None
    return until(attempt, "a worker that runs answers", 20)


def test_others_are_served_meanwhile(stopped):
    """Its grants expire, what waits in it is passed over, and after SIGCONT everything ends well: nothing is done twice."""
    gate, engine, victim, mine, others = stopped
    engine.open_gate()
    for one in others:
        assert one.reply().status == 200
    ran = len(engine.requests)
    assert all(not one.answered() for one in mine)
    # what the victim had been given beyond what it runs has come back: the seats of others are free
    expired = awake(gate, lambda reply: Metrics(reply.body.decode()).total("llm_grants_expired_total"))
    assert expired >= 1, "a stopped worker was given nothing, or kept it"
    stays(lambda: len(engine.requests) == ran, "a stopped worker's request was sent on", 0.3)
    os.kill(victim, signal.SIGCONT)
    for one in mine:
        assert one.reply().status == 200
    contents = engine.contents()
    assert len(contents) == len(set(contents)) == 24, "a request was sent twice, or not at all"
    invariants.check(gate, expected={"completed": 24})


def test_its_clients_that_leave_while_it_is_stopped(stopped):
    gate, engine, victim, mine, others = stopped
    for one in mine:
        one.reset()
    engine.open_gate()
    for one in others:
        assert one.reply().status == 200
    os.kill(victim, signal.SIGCONT)
    gate.wait_queued(0)
    gate.wait_held(0)
    outcomes = gate.metrics().outcomes()
    assert sum(outcomes.values()) == 24 and outcomes["completed"] >= len(others), outcomes
    invariants.check(gate)


def test_killed_while_stopped(stopped):
    """Its seats come back within two seconds although it never said a word."""
    gate, engine, victim, mine, others = stopped
    gate.allow(r"\[alert\].*worker process \d+ exited on signal 9")
    os.kill(victim, signal.SIGKILL)
    for one in mine:
        with pytest.raises(ConnectionError):
            one.reply()
    until(lambda: len(gate.workers()) == 4, "the dead worker is replaced")
    gate.wait_held(min(8, len(others)), 3)
    engine.open_gate()
    for one in others:
        assert one.reply().status == 200
    invariants.check(gate)
