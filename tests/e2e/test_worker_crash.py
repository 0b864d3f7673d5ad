"""A worker that dies takes its own connections with it and nothing else."""

import os
import signal
import time

import pytest

from support.client import chat_body
from support.poll import until
from support.users import user


@pytest.fixture
def crashed(fake_engine, gateway):
    """(gateway, engine, [(pending, worker pid)]): eight requests run, eight wait, spread over the workers."""
    engine = fake_engine(max_running=8)
    gate = gateway([engine], [user("alice", threshold=100)])
    engine.hold()
    gate.allow(r"\[alert\].*worker process \d+ exited on signal 9")
    gate.allow(r"\[alert\].*shared memory zone \"llm\" was locked by")
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
    start = time.monotonic()
    assert gate.client.ask(token="alice").status == 200
    assert time.monotonic() - start < 1


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


@pytest.mark.slow
def test_worker_deaths_under_load(fake_engine, gateway):
    """Kills again and again; what did not run in the victim is answered, and the counters come back to zero."""
    engine = fake_engine(max_running=4)
    gate = gateway([engine], [user("alice", threshold=1000)])
    gate.allow(r"\[alert\].*worker process \d+ exited on signal 9")
    gate.allow(r"\[alert\].*shared memory zone \"llm\" was locked by")
    for _ in range(10):
        requests = [gate.client.send(chat_body(), token="alice") for _ in range(24)]
        owners = {}
        for pending in requests:
            try:
                owners[pending] = gate.worker_of(pending)
            except AssertionError:
                owners[pending] = None  # answered and closed, or not accepted yet
        victim = gate.workers()[0]
        os.kill(victim, signal.SIGKILL)
        for pending in requests:
            try:
                assert pending.reply().status == 200
            except ConnectionError:
                assert owners[pending] in (victim, None)
        gate.wait_held(0, 3)
        gate.wait_queued(0, 3)
        until(lambda: len(gate.workers()) == 4, "the dead worker is replaced")
