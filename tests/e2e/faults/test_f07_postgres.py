"""F7: PostgreSQL slow, hanging, cut off or restarted under load: known tokens work, unknown ones are never told that they are wrong."""

import pytest

from support import invariants
from support.client import chat_body
from support.errors import assert_error
from support.poll import until
from support.traffic import Plan, Traffic

ROWS = "INSERT INTO users (token, name, priority, threshold) VALUES ('alice', 'Alice', 5, 100)"


@pytest.fixture
def scene(own_postgres, relay, fake_engine, gateway):
    """(cluster, its database, the relay before it, the gateway)"""
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
    middle = relay(own_postgres.port)
    gate = gateway([fake_engine()], users=None,
                   http=f'llm_priority_db "postgresql://llm@127.0.0.1:{middle.port}/{name}" refresh=1s grace=1h;')
    gate.wait_ready()
    return own_postgres, name, middle, gate


def down(gate):
    return gate.metrics().total("llm_priority_db_up") == 0


def add_and_find(cluster, name, gate, token):
    with cluster.connect(name) as connection:
        connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES (%s, %s, 1, 1)", (token, token))
    tries = []

    def found():
        tries.append(gate.client.ask(token=token))
        return tries[-1].status == 200

    until(found, "the new client is known", 15)
    return tries


def test_slow_database(scene):
    """Half a second per answer: loads take longer, requests do not, and changes still arrive."""
    cluster, name, middle, gate = scene
    middle.delay = 0.5
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body()), outstanding=3).start()
    add_and_find(cluster, name, gate, "new")
    fates = traffic.stop()
    assert fates and all(fate.ok for fate in fates)
    invariants.check(gate)


@pytest.mark.parametrize("fault", ["silent", "refuse"])
def test_database_out_of_reach(scene, fault):
    cluster, name, middle, gate = scene
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body()), outstanding=3).start()
    setattr(middle, fault, True)
    if fault == "refuse":
        middle.cut()
    until(lambda: down(gate), "the loss is seen", 15)
    refused = [gate.client.ask(token="unknown") for _ in range(4)]
    for reply in refused:
        assert_error(reply, 503, "auth_unavailable")
    setattr(middle, fault, False)
    if fault == "silent":
        middle.cut()  # what stood still is gone, as after a restart of the box
    tries = add_and_find(cluster, name, gate, "late")
    assert {reply.status for reply in tries[:-1]} <= {503, 401}
    fates = traffic.stop()
    assert fates and all(fate.ok for fate in fates), "a known token was refused"
    invariants.check(gate)


def test_restarts_under_load(scene):
    cluster, name, middle, gate = scene
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body()), outstanding=3).start()
    for number in range(2):
        cluster.kill()
        until(lambda: down(gate), "the loss is seen", 15)
        assert_error(gate.client.ask(token="unknown"), 503, "auth_unavailable")
        cluster.start()
        until(lambda: not down(gate), "the database is found again", 15)
        assert_error(gate.client.ask(token="unknown"), 401, "invalid_api_key")
    fates = traffic.stop()
    assert fates and all(fate.ok for fate in fates), "a known token was refused"
    invariants.check(gate)
