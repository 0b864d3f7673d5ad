"""F23: an engine that answers 429 or 503 itself: a sign that it is full, one more attempt elsewhere, else its own words."""

import pytest

from support import invariants
from support.client import chat_body
from support.fake_engine import answer, error
from support.poll import until
from support.users import user


def limit_of(gate, engine):
    return next(row["limit"] for row in gate.status()["engines"] if row["id"] == engine.name)


@pytest.mark.parametrize("status", [429, 503])
def test_its_limit_falls_and_comes_back(fake_engine, gateway, status):
    """While it refuses, others serve; no request is lost, and it is not flooded with what it cannot take."""
    full, other = fake_engine(max_running=8), fake_engine(max_running=32)
    gate = gateway([full, other], [user("alice", threshold=1000)], http="llm_routing round_robin;")
    before = limit_of(gate, full)
    full.script = error(status)
    replies = [gate.client.ask(token="alice") for _ in range(10)]
    assert [reply.status for reply in replies] == [200] * 10
    assert limit_of(gate, full) < before, "the refusal was no sign"
    full.script = answer
    until(lambda: gate.client.ask(token="alice").status == 200 and limit_of(gate, full) == before, "its limit comes back", 40)
    invariants.check(gate)


@pytest.mark.parametrize("status", [429, 503])
def test_alone_its_own_words_pass(fake_engine, gateway, status):
    engine = fake_engine(script=error(status, [("Retry-After", "7"), ("X-Engine", "yes")]))
    gate = gateway([engine])
    reply = gate.client.ask(token="alice")
    assert reply.status == status and reply.json()["error"]["message"] == f"engine says {status}"
    assert reply.header("retry-after") == "7" and reply.header("x-engine") == "yes"
    assert len(engine.requests) == 2, "one attempt and one more with the same engine"
    engine.script = answer
    invariants.check(gate, expected={"completed": 1})


def test_refusals_under_load(fake_engine, gateway):
    """An engine that takes less than it says: what it refuses is served in the end, by it or by the other."""
    def choosy(exchange):
        (answer if len(choosy.engine.exchanges) <= 2 else error(503))(exchange)

    small, other = fake_engine(max_running=16, script=choosy), fake_engine(max_running=16)
    choosy.engine = small
    gate = gateway([small, other], [user("alice", threshold=1000)])
    replies = [gate.client.send(chat_body(content=f"r{number}"), token="alice").reply() for number in range(60)]
    assert [reply.status for reply in replies] == [200] * 60
    invariants.check(gate, expected={"completed": 60})
