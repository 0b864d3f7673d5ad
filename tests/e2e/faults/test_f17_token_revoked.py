"""F17: a token is revoked: within a second it opens nothing, what it has waiting ends with 401, what it has running goes on."""

import time

import pytest

from support import invariants
from support.client import chat_body
from support.errors import assert_error
from support.poll import until
from support.traffic import Plan, Traffic
from support.users import user, write_tokens


class InFile:
    def start(self, gateway, engine, request):
        return gateway([engine], [user("alice", threshold=100), user("mallory", threshold=100)])

    def revoke(self, gate):
        write_tokens(gate.tokens, [user("alice", threshold=100)])


class InDatabase:
    change = "DELETE FROM users WHERE token = 'mallory'"

    def start(self, gateway, engine, request):
        self.cluster = request.getfixturevalue("postgres_cluster")
        self.name = self.cluster.create_database()
        with self.cluster.connect(self.name) as connection:
            connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('alice', 'alice', 5, 100), "
                               "('mallory', 'mallory', 5, 100)")
        gate = gateway([engine], None, http=f'llm_priority_db "{self.cluster.url(self.name)}" refresh=1h;')
        return gate.wait_ready()

    def revoke(self, gate):
        with self.cluster.connect(self.name) as connection:
            connection.execute(self.change)


class Disabled(InDatabase):
    change = "UPDATE users SET disabled = true WHERE token = 'mallory'"


class Expired(InDatabase):
    change = "UPDATE users SET expires_at = now() - interval '1 second' WHERE token = 'mallory'"


@pytest.mark.parametrize("source", [InFile(), InDatabase(), Disabled(), Expired()], ids=lambda source: type(source).__name__)
def test_revoked(fake_engine, gateway, request, source):
    engine = fake_engine(max_running=2)
    engine.hold()
    gate = source.start(gateway, engine, request)
    running = [gate.client.send(chat_body(content="running"), token=token) for token in ("mallory", "alice")]
    engine.wait_requests(2)
    revoked = [gate.client.send(chat_body(content="never"), token="mallory") for _ in range(6)]
    gate.wait_queued(6)
    waiting = gate.client.send(chat_body(content="waiting"), token="alice")
    gate.wait_queued(7)
    start = time.monotonic()
    source.revoke(gate)
    for one in revoked:
        assert_error(one.reply(), 401, "invalid_api_key")
    took = time.monotonic() - start
    assert_error(gate.client.ask(token="mallory"), 401, "invalid_api_key")
    assert took < 3, f"revoked after {took:.2f} s"  # promised within 1 s; the rest is for a busy machine
    assert gate.queued() == 1
    engine.open_gate()
    assert [one.reply().status for one in [*running, waiting]] == [200] * 3
    assert "never" not in engine.contents()
    invariants.check(gate, expected={"completed": 3, "rejected_invalid_api_key": 7})


def test_revoked_under_load(fake_engine, gateway):
    """Whatever its requests are doing at that moment, none is lost and others notice nothing."""
    gate = gateway([fake_engine(max_running=4)], [user("alice", threshold=1000), user("mallory", threshold=1000)])
    turn = iter(range(10 ** 9))
    traffic = Traffic(gate.port, lambda: Plan(("alice", "mallory")[next(turn) % 2], chat_body()), outstanding=16).start()
    for _ in range(3):
        mark = len(traffic.results)
        until(lambda: len(traffic.results) > mark + 30, "answers come")
        write_tokens(gate.tokens, [user("alice", threshold=1000)])
        until(lambda: any(fate.status == 401 for fate in traffic.results[mark:]), "it is revoked")
        write_tokens(gate.tokens, [user("alice", threshold=1000), user("mallory", threshold=1000)])
        mark = len(traffic.results)
        until(lambda: any(fate.ok and fate.plan.token == "mallory" for fate in traffic.results[mark:]), "it is allowed again")
    fates = traffic.stop()
    assert all(fate.ok for fate in fates if fate.plan.token == "alice")
    assert {fate.status for fate in fates if fate.plan.token == "mallory"} == {200, 401}
    invariants.check(gate, fates)
