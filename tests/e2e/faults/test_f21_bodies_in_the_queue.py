"""F21: a queue full of large bodies: what is over client_body_buffer_size lies in files, so memory stays bounded; then it is gone."""

from support import invariants
from support.client import chat_body
from support.users import user

BODIES = 60
STAYING = BODIES // 4
SIZE = 1 << 20


def files(gate):
    return [path for path in (gate.directory / "body").rglob("*") if path.is_file()]


def test_megabytes_in_memory(fake_engine, gateway):
    """As in the samples: bodies of a megabyte are read into memory. Of those that wait, a worker keeps 16 MB there."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=1000)], location="client_body_buffer_size 1m;", workers=1)
    empty = invariants.Growth(gate).first["memory"]
    body = chat_body(content="x" * SIZE)
    full = fill_and_empty(gate, engine, body)
    assert full - empty < 30 << 20, f"{full - empty >> 20} MB of memory for {BODIES} bodies of 1 MB"
    large = [request for request in engine.requests if len(request.body) > SIZE]
    assert len(large) == STAYING and all(request.body == body for request in large), "a body was changed on its way through a file"
    invariants.check(gate, expected={"completed": 1 + STAYING, "cancelled_queued": BODIES - STAYING})


def fill_and_empty(gate, engine, body):
    """Queues the bodies, has three quarters of their clients leave and the rest served; returns the memory in use when all waited."""
    running = engine.occupy(gate.client, token="alice", timeout=60)
    waiting = [gate.client.send(body, token="alice", timeout=100) for _ in range(BODIES)]
    gate.wait_queued(BODIES, 60)
    full = invariants.Growth(gate).first["memory"]
    for one in waiting[STAYING:]:
        one.reset()
    gate.wait_queued(STAYING)
    engine.open_gate()
    assert [one.reply().status for one in [running, *waiting[:STAYING]]] == [200] * (1 + STAYING)
    invariants.idle(gate)
    assert not files(gate), "temporary files are left"
    return full


def test_megabytes_in_the_queue(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=1000)])
    empty = invariants.Growth(gate).first["memory"]
    body = chat_body(content="x" * SIZE)
    full = fill_and_empty(gate, engine, body)
    assert full - empty < BODIES * (60 << 10), f"{full - empty >> 20} MB of memory for {BODIES} bodies of 1 MB"
    growth = invariants.Growth(gate)
    fill_and_empty(gate, engine, body)
    growth.check(memory=4 << 20)
    large = [request for request in engine.requests if len(request.body) > SIZE]
    assert len(large) == 2 * STAYING and all(request.body == body for request in large), "a body was changed on its way through a file"
    invariants.check(gate, expected={"completed": 2 * (1 + STAYING), "cancelled_queued": 2 * (BODIES - STAYING)})
