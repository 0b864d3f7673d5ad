"""F1: a worker that is killed takes its own connections with it and nothing else."""

import os
import random
import signal
import time

import pytest

from support import invariants
from support.client import chat_body
from support.fake_engine import answer
from support.poll import until
from support.process import stop_for_now
from support.traffic import Plan, Traffic
from support.users import user


def expect_deaths(gate):
    gate.allow(r"\[alert\].*worker process \d+ exited on signal 9")
    gate.allow(r"\[alert\].*shared memory zone \"llm\" was locked by")


def slow_answer(exchange):
    time.sleep(0.05)  # what an engine takes: requests have to overlap
    answer(exchange)


@pytest.fixture
def crashed(fake_engine, gateway):
    """(gateway, engine, [(pending, worker pid)]): eight requests run, eight wait, spread over the workers."""
    engine = fake_engine(max_running=8)
    gate = gateway([engine], [user("alice", threshold=100)])
    engine.hold()
    expect_deaths(gate)
    pending = []
    for number in range(16):
        pending.append(gate.client.send(chat_body(content=f"r{number}"), token="alice"))
        if number < 8:
            engine.wait_requests(number + 1)
        else:
            gate.wait_queued(number - 7)
    return gate, engine, [(one, gate.worker_of(one)) for one in pending]


def kill_one(gate, requests):
    """Kills the worker that has the most of these requests; returns its pid."""
    owners = [worker for _, worker in requests]
    victim = max(set(owners), key=owners.count)
    assert 0 < owners.count(victim) < len(owners)
    os.kill(victim, signal.SIGKILL)
    return victim


def test_exactly_its_connections_fail(crashed):
    gate, engine, requests = crashed
    victim = kill_one(gate, requests)
    for pending, worker in requests:
        if worker == victim:
            with pytest.raises(ConnectionError):
                pending.reply()
    engine.open_gate()
    for pending, worker in requests:
        if worker != victim:
            assert pending.reply().status == 200
    gate.wait_held(0, 2)
    assert gate.queued() == 0
    until(lambda: len(gate.workers()) == 4, "the dead worker is replaced")
    assert gate.client.ask(token="alice", timeout=5).status == 200


def test_its_seats_go_to_those_who_wait(crashed):
    """Within two seconds, while the engine answers nobody."""
    gate, engine, requests = crashed
    victim = kill_one(gate, requests)
    running = sum(1 for _, worker in requests[:8] if worker == victim)
    waiting = sum(1 for _, worker in requests[8:] if worker != victim)
    moved = min(running, waiting)
    gate.wait_queued(waiting - moved, 2)
    gate.wait_held(8 - running + moved, 2)
    engine.wait_requests(8 + moved, 2)
    engine.open_gate()
    assert [pending.reply().status for pending, worker in requests if worker != victim] \
        == [200] * sum(1 for _, worker in requests if worker != victim)


def test_a_master_that_is_busy_delays_nothing(crashed):
    """One that reads a configuration, say: until it has waited for a dead worker, the process is still there, as a zombie."""
    gate, engine, requests = crashed
    stop_for_now(gate.pid)
    try:
        victim = kill_one(gate, requests)
        waiting = sum(1 for _, worker in requests[8:] if worker != victim)
        moved = min(waiting, sum(1 for _, worker in requests[:8] if worker == victim))
        engine.wait_requests(8 + moved, 4)
    finally:
        os.kill(gate.pid, signal.SIGCONT)
    engine.open_gate()
    assert [pending.reply().status for pending, worker in requests if worker != victim] \
        == [200] * sum(1 for _, worker in requests if worker != victim)


def kill_stopped(gate, victim):
    """Kills a worker; returns the client's ports of the connections it had at its end."""
    stop_for_now(victim)  # nothing is accepted or answered between the look and the kill
    owned = gate.connections_of(victim)
    os.kill(victim, signal.SIGKILL)
    return owned


def test_worker_deaths_under_load(fake_engine, gateway):
    """1.3x load on 16 seats, a random worker killed again and again."""
    random.seed(1)
    engines = [fake_engine(max_running=8, script=slow_answer) for _ in range(2)]
    gate = gateway(engines, [user("alice", threshold=1000), user("bob", threshold=1000)])
    expect_deaths(gate)
    bodies = [chat_body(content="x", stream=stream) for stream in (False, True)]
    traffic = Traffic(gate.port, lambda: Plan(random.choice(("alice", "bob")), random.choice(bodies)), outstanding=21).start()
    kills = 8
    lost = set()
    for _ in range(kills):
        mark = len(traffic.results)
        until(lambda: len(traffic.results) > mark + 30, "answers come")
        victim = random.choice(gate.workers())
        lost |= kill_stopped(gate, victim)
        gate.wait_logged(rf"worker {victim} died, \d+ leases returned", 6)  # promised within 2 s; the rest is for a busy machine
        until(lambda: len(gate.workers()) == 4, "the dead worker is replaced")
    fates = traffic.stop()
    broken = [fate for fate in fates if not fate.ok]
    assert {fate.port for fate in broken} <= lost, "a connection of another worker failed"
    for fate in broken:
        fate.orphaned = True
    assert all(fate.status in (None, 200) for fate in fates), "a request was refused"
    assert len(broken) < len(fates) / 2
    # An answer is whole for its client a moment before its worker logs and counts it: nginx lingers for the client's close. What
    # the log lacks may not have been counted, nor what was logged last by each of the killed.
    logged = sum(line["outcome"] == "completed" for line in gate.access_log())
    unlogged = sum(fate.ok for fate in fates) - logged
    assert unlogged <= len(fates) / 10
    invariants.check(gate, fates, lost=max(unlogged, 0) + kills)
