"""Requests that come before the gateway has heard of a client or an engine: they wait for the first load, and not for ever."""

import contextlib
import pathlib
import re

import pytest

from support import invariants
from support.client import chat_body
from support.errors import assert_error
from support.poll import until
from support.traffic import Plan, Traffic
from support.users import user


@pytest.fixture
def closed_table(postgres_cluster, fake_engine, gateway):
    """Factory: a gateway with one worker that is reading a table of clients which somebody has locked; and what unlocks it."""
    with contextlib.ExitStack() as stack:
        def make(**keywords):
            name = postgres_cluster.create_database()
            owner = stack.enter_context(postgres_cluster.connect(name))
            owner.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('alice', 'Alice', 5, 10)")
            owner.execute("BEGIN")
            owner.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "{postgres_cluster.url(name)}";', workers=1, **keywords)
            observer = stack.enter_context(postgres_cluster.connect(name))
            until(lambda: observer.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0] > 0, "the gateway waits for the table")
            return gate, lambda: owner.execute("COMMIT")

        yield make


def arrived(gate):
    """The worker has seen what was sent before this."""
    assert gate.client.get("/health/liveness").status == 200


def test_requests_wait_for_the_first_clients(closed_table):
    gate, unlock = closed_table()
    pending = [gate.client.send(chat_body(content="x" * size, stream=True), token="alice") for size in (1, 500_000)]
    stranger = gate.client.send(token="stranger")
    listing = gate.client.send(method="GET", target="/v1/models", body=b"", token="alice")
    arrived(gate)
    unlock()
    assert [one.reply().status for one in pending] == [200, 200]
    assert_error(stranger.reply(), 401, "invalid_api_key")
    assert listing.reply().status == 200
    invariants.check(gate, expected={"completed": 2, "rejected_invalid_api_key": 1})


def test_waiting_for_clients_has_an_end(closed_table):
    gate, unlock = closed_table()
    assert_error(gate.client.ask(token="alice"), 503, "auth_unavailable")
    assert_error(gate.client.ask(token="alice"), 503, "auth_unavailable")
    unlock()
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200
    invariants.check(gate, expected={"completed": 1, "rejected_auth_unavailable": 2})


def test_a_client_leaves_before_the_first_clients_are_known(closed_table):
    gate, unlock = closed_table()
    leaving, staying = gate.client.send(token="alice"), gate.client.send(token="alice")
    arrived(gate)
    leaving.close()
    until(lambda: gate.metrics().outcomes().get("cancelled_queued") == 1, "its departure is counted")
    unlock()
    assert staying.reply().status == 200
    invariants.check(gate, expected={"completed": 1, "cancelled_queued": 1})


def test_a_reload_while_requests_wait_for_the_first_clients(closed_table):
    gate, unlock = closed_table()
    pending = gate.client.send(token="alice")
    arrived(gate)
    gate.reload()
    unlock()
    assert pending.reply().status == 200
    invariants.check(gate, expected={"completed": 1})


def test_a_new_binary_refuses_nobody_while_it_learns(postgres_cluster, redis_server, fake_engine, gateway):
    """Clients in PostgreSQL, engines in Redis: the new process of an upgrade knows neither when its first requests come."""
    engine = fake_engine(max_running=8)
    engine.announce(redis_server.url)
    name = postgres_cluster.create_database()
    with postgres_cluster.connect(name) as connection:
        connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('alice', 'Alice', 5, 1000)")
    gate = gateway(users=None, workers=2, daemon=True, http=f'llm_priority_db "{postgres_cluster.url(name)}"; llm_redis {redis_server.url};')
    gate.wait_ready()
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body()), outstanding=6).start()
    until(lambda: len(traffic.results) >= 20, "traffic flows")
    for _ in range(3):
        gate.upgrade()
        mark = len(traffic.results)
        until(lambda: len(traffic.results) >= mark + 20, "the new binary serves")
    failed = [fate for fate in traffic.stop() if not fate.ok]
    assert not failed, failed[:3]
    invariants.check(gate)


def test_nobody_waits_for_sources_that_cannot_be_reached(fake_engine, gateway, redis_server):
    """Redis refuses connections: what is known without it is served, what is not is refused."""
    redis_server.stop()
    gate = gateway([fake_engine()], [user("alice")], http=f"llm_redis {redis_server.url};")
    assert gate.client.ask(token="alice").status == 200
    assert_error(gate.client.ask(chat_body("unknown"), token="alice"), 404, "model_not_found")
    invariants.check(gate, expected={"completed": 1, "rejected_model_not_found": 1})


def test_what_of_the_zone_nobody_fills_takes_no_memory(fake_engine, gateway):
    """The master carves it. Of 64 MB the most is for the tokens of clients."""
    gate = gateway([fake_engine()], zone="64m")
    touched = int(re.search(r"RssShmem:\s+(\d+) kB", pathlib.Path(f"/proc/{gate.pid}/status").read_text())[1])
    assert touched < 40 * 1024, f"{touched} KB of 64 MB"
