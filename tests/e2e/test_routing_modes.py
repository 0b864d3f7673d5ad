"""Routing modes: whose engines a request may use, from its body or as its user has it."""

import pytest

from support import jitter
from support.client import chat_body
from support.errors import assert_error
from support.users import user

CS = {"organization": "cs"}


@pytest.fixture
def engines(fake_engine):
    """One seat of the users' own organisation, and one of another's."""
    return fake_engine(max_running=1), fake_engine(max_running=1)


@pytest.fixture
def gate(engines, gateway):
    own, other = engines
    lines = [f"llm_engine {engine.url} model=m id={engine.name} max_running=1 org={org};" for engine, org in ((own, "cs"), (other, "maths"))]
    return gateway(http=" ".join(lines), users=[
        user("any", **CS), user("only", **CS, default_routing_mode="private-only"), user("first", **CS, default_routing_mode="private-first"),
        user("stranger", organization="law"), user("nobody")])


def mode(name):
    return chat_body(**{"routing-mode": name})


def test_private_only_waits_for_its_own(engines, gate):
    own, other = engines
    own.hold()
    running = gate.client.send(token="only")
    own.wait_requests(1)
    waiting = gate.client.send(mode("private-only"), token="any")  # the body's word, beside the user's
    gate.wait_queued(1)
    assert gate.client.ask(mode("any"), token="only").status == 200
    assert len(other.requests) == 1
    own.open_gate()
    assert running.reply().status == waiting.reply().status == 200
    assert (len(own.requests), len(other.requests)) == (2, 1)


@pytest.mark.parametrize("token", ["stranger", "nobody"])
def test_private_only_without_engines_of_its_own(gate, token):
    assert_error(gate.client.ask(mode("private-only"), token=token), 503, "no_engine")


def test_private_first_takes_another_with_room(engines, gate):
    own, other = engines
    own.hold()
    running = gate.client.send(token="first")
    own.wait_requests(1)
    assert gate.client.ask(token="first").status == 200
    assert len(other.requests) == 1
    assert gate.client.ask(mode("private-first"), token="stranger").status == 200  # has none of its own
    own.open_gate()
    assert running.reply().status == 200


def test_private_first_finds_its_own_free_again(engines, gate):
    """One request after another: the seat is free before the client sees the end, so none goes to somebody else's engine."""
    own, other = engines
    count = 150 if jitter.ACTIVE else 1500
    for number in range(count):
        assert gate.client.ask(chat_body(stream=number % 2 == 0), token="first").status == 200
    assert (len(own.requests), len(other.requests)) == (count, 0)
